// A tokenizer: text to token ids and back, as its tokenizer.json says.
import { toUSVString } from 'node:util';
import type { AddedTokens } from './added-tokens.ts';
import type { Decoder, TokenStream } from './decoders.ts';
import { IdList } from './id-list.ts';
import type { Marks } from './post-processors.ts';
import type { Vocabulary } from './vocabulary.ts';

/** What recipes call the token that ends a text; the first that the vocabulary has is taken. */
const END_OF_TEXT = ['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>', '<｜end▁of▁sentence｜>', '[SEP]'];

/** What a tokenizer is made of: see json.ts, which reads it. */
export interface TokenizerParts {
  /** The tokenizer.json that it comes from, as text. */
  readonly json: string;
  readonly vocabulary: Vocabulary;
  readonly added: AddedTokens;
  /** What goes before a text and after it, where that is asked for. */
  readonly marks: Marks;
  /** Appends the ids of a text between added tokens; `first` where the whole text begins with it. */
  readonly encode: (text: string, first: boolean, ids: IdList) => void;
  readonly decoder: Decoder;
  /** True where the ids of two texts, cut at a place that split.ts calls safe, are those of the whole. */
  readonly cutsSafely: boolean;
}

export class Tokenizer {
  /** The tokenizer.json that it comes from, as text. */
  readonly json: string;
  /** One more than the largest id. */
  readonly vocabularySize: number;
  /** The id that ends a text, or null where the vocabulary has none of the usual names for it. */
  readonly endOfText: number | null;
  /** True where a text may be cut as safeCut (split.ts) says, and its parts encoded by themselves. */
  readonly cutsSafely: boolean;
  readonly #parts: TokenizerParts;

  constructor(parts: TokenizerParts) {
    this.#parts = parts;
    this.json = parts.json;
    this.vocabularySize = parts.vocabulary.size;
    this.endOfText = END_OF_TEXT.map(name => this.tokenToId(name)).find(id => id !== undefined) ?? null;
    this.cutsSafely = parts.cutsSafely;
  }

  /** The id of a token as the vocabulary spells it (`Ġthe`, `<|endoftext|>`), or undefined. */
  tokenToId(token: string): number | undefined {
    return this.#parts.vocabulary.id(token);
  }

  /**
   * The ids of a text. Added tokens in it (`<|endoftext|>`) become their ids; with `marks`, what the tokenizer puts
   * before and after every text (`<s>`, `[CLS]`) is put there, else nothing is.
   * With byte-level tokenizers, decoding gives the text back, whatever it holds, save that a lone surrogate, which no
   * UTF-8 can hold, is U+FFFD.
   */
  encode(text: string, { marks = false }: { readonly marks?: boolean } = {}): Int32Array<ArrayBuffer> {
    const ids = new IdList(text.length >> 1);
    const { added, encode, marks: around } = this.#parts;
    if (marks) for (const id of around.before) ids.push(id);
    added.cut(
      toUSVString(text),
      (part, first) => encode(part, first, ids),
      id => ids.push(id),
    );
    if (marks) for (const id of around.after) ids.push(id);
    return ids.toArray();
  }

  /**
   * The text of a run of ids. Bytes that are not UTF-8, a run cut inside a character for one, become U+FFFD.
   *
   * @throws RangeError where there is no such id.
   */
  decode(ids: Iterable<number>): string {
    return this.#parts.decoder.decode(Array.from(ids, id => this.#spelling(id)));
  }

  /** A decoder for tokens that come one at a time; it holds back the bytes of a character until it is whole. */
  streamDecoder(): StreamDecoder {
    return new StreamDecoder(this.#parts.decoder.stream(), id => this.#spelling(id));
  }

  #spelling(id: number): string {
    if (!(Number.isInteger(id) && id >= 0 && id < this.vocabularySize))
      throw new RangeError(`token ${id} is outside the vocabulary of ${this.vocabularySize}`);
    // An id that no token has stands for nothing.
    return this.#parts.added.spellings.get(id) ?? this.#parts.vocabulary.tokens[id] ?? '';
  }
}

/** Turns ids that come one at a time into text, whole characters only. */
export class StreamDecoder {
  readonly #stream: TokenStream;
  readonly #spelling: (id: number) => string;

  constructor(stream: TokenStream, spelling: (id: number) => string) {
    this.#stream = stream;
    this.#spelling = spelling;
  }

  /** The characters that this token completes: often one word, sometimes none. */
  push(id: number): string {
    return this.#stream.push(this.#spelling(id));
  }

  /** What is left of an unfinished character, as U+FFFD; the decoder then begins anew. */
  end(): string {
    return this.#stream.end();
  }
}
