// A byte-level BPE tokenizer: text to token ids and back. Sennrich et al. 2016; over bytes, Radford et al. 2019.
import { byteCharacters, spelledBytes } from './alphabet.ts';
import { Heap } from './heap.ts';
import { forEachWord, type SplitName } from './split.ts';

/** A token that is matched in the text itself, before it is split, and never made by merges. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** True for a token that is a mark (the end of a text), not text. */
  readonly special: boolean;
}

export interface Vocabulary {
  /** The spelling of each id: in characters of the byte alphabet, all 256 there, or an added token's content. */
  readonly tokens: readonly string[];
  /** Pairs of ids, the first to be merged first; a pair becomes the token that its two spellings make. */
  readonly merges: readonly (readonly [left: number, right: number])[];
  readonly added: readonly AddedToken[];
  readonly split: SplitName;
  /** True where a word that is itself a token is taken whole, merges or no merges (`ignore_merges`). */
  readonly wholeWords: boolean;
}

/** What recipes call the token that ends a text; the first that the vocabulary has is taken. */
const END_OF_TEXT = ['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>'];

/** Words that are kept with their tokens, and the longest such word, in characters: most of a text is short words. */
const CACHED_WORDS = 1 << 17;
const CACHED_LENGTH = 32;

/** Merges waiting in the heap are numbers, rank * PLACES + place: the lowest rank first, then the leftmost. */
const PLACES = 2 ** 28;

export class Tokenizer {
  readonly vocabulary: Vocabulary;
  readonly vocabularySize: number;
  /** The id that ends a text, or null where the vocabulary has none of the usual names for it. */
  readonly endOfText: number | null;

  readonly #ids: ReadonlyMap<string, number>;
  readonly #byteIds: Int32Array;
  /** left * vocabularySize + right to rank, and by rank the id that the pair becomes. */
  readonly #ranks = new Map<number, number>();
  readonly #results: Int32Array;
  /** Bytes of every token, one after the other; those of token i lie in [starts[i], starts[i + 1]). */
  readonly #bytes: Uint8Array;
  readonly #starts: Int32Array;
  readonly #added: RegExp | null;
  readonly #cache = new Map<string, Int32Array>();
  readonly #encoder = new TextEncoder();

  /** @throws Error where the vocabulary lacks a byte, or the token that a merge makes; readTokenizer checks before. */
  constructor(vocabulary: Vocabulary) {
    const { tokens, merges, added } = vocabulary;
    this.vocabulary = vocabulary;
    this.vocabularySize = tokens.length;
    this.#ids = new Map(tokens.map((token, id) => [token, id]));
    const id = (token: string): number => {
      const found = this.#ids.get(token);
      if (found === undefined) throw new Error(`the vocabulary has no token ${JSON.stringify(token)}`);
      return found;
    };
    this.#byteIds = Int32Array.from(byteCharacters, id);
    this.#results = Int32Array.from(merges, ([left, right]) => id(tokens[left]! + tokens[right]!));
    merges.forEach(([left, right], rank) => {
      this.#ranks.set(left * this.vocabularySize + right, rank);
    });

    const contents = new Set(added.map(token => token.content));
    const bytes = tokens.map(
      token => (contents.has(token) ? null : spelledBytes(token)) ?? this.#encoder.encode(token),
    );
    this.#starts = new Int32Array(tokens.length + 1);
    bytes.forEach((piece, index) => {
      this.#starts[index + 1] = this.#starts[index]! + piece.length;
    });
    this.#bytes = new Uint8Array(this.#starts[tokens.length]!);
    bytes.forEach((piece, index) => {
      this.#bytes.set(piece, this.#starts[index]);
    });

    this.#added = addedPattern([...contents]);
    this.endOfText = END_OF_TEXT.filter(name => contents.has(name)).map(id)[0] ?? null;
  }

  /** The id of a token as the vocabulary spells it (`Ġthe`, `<|endoftext|>`), or undefined. */
  tokenToId(token: string): number | undefined {
    return this.#ids.get(token);
  }

  /**
   * The ids of a text. Added tokens in it (`<|endoftext|>`) become their ids; none is put before or after.
   * Decoding gives the text back, whatever it holds, save that a lone surrogate, which no UTF-8 can hold, is U+FFFD.
   */
  encode(text: string): Int32Array {
    let ids = new Int32Array(Math.max(16, text.length >> 1));
    let count = 0;
    const room = (more: number) => {
      if (count + more <= ids.length) return;
      const larger = new Int32Array(Math.max(2 * ids.length, count + more));
      larger.set(ids.subarray(0, count));
      ids = larger;
    };
    const words = (part: string) =>
      forEachWord(part, this.vocabulary.split, word => {
        const found = this.#wordIds(word);
        room(found.length);
        for (let i = 0; i < found.length; i++) ids[count++] = found[i]!;
      });

    let start = 0;
    if (this.#added !== null)
      for (const match of text.matchAll(this.#added)) {
        words(text.slice(start, match.index));
        room(1);
        ids[count++] = this.#ids.get(match[0])!;
        start = match.index + match[0].length;
      }
    words(text.slice(start));
    return ids.slice(0, count);
  }

  /** The text of a run of ids. Bytes that are not UTF-8, a run cut inside a character for one, become U+FFFD. */
  decode(ids: Iterable<number>): string {
    const decoder = this.streamDecoder();
    let text = '';
    for (const id of ids) text += decoder.push(id);
    return text + decoder.end();
  }

  /** A decoder for tokens that come one at a time; it holds back the bytes of a character until it is whole. */
  streamDecoder(): StreamDecoder {
    return new StreamDecoder(id => this.bytesOf(id));
  }

  /** The bytes that a token stands for. @throws RangeError where there is no such id. */
  bytesOf(id: number): Uint8Array {
    if (!(Number.isInteger(id) && id >= 0 && id < this.vocabularySize))
      throw new RangeError(`token ${id} is outside the vocabulary of ${this.vocabularySize}`);
    return this.#bytes.subarray(this.#starts[id], this.#starts[id + 1]);
  }

  #wordIds(word: string): Int32Array {
    const cached = this.#cache.get(word);
    if (cached !== undefined) return cached;
    const ids = this.#mergedIds(this.#encoder.encode(word));
    if (word.length <= CACHED_LENGTH) {
      if (this.#cache.size >= CACHED_WORDS) this.#cache.clear();
      this.#cache.set(word, ids);
    }
    return ids;
  }

  /** Applies the merges to one word's bytes, in n log n steps, so that a run of a million equal letters is no trap. */
  #mergedIds(bytes: Uint8Array): Int32Array {
    if (this.vocabulary.wholeWords) {
      const whole = this.#ids.get(Array.from(bytes, byte => byteCharacters[byte]).join(''));
      if (whole !== undefined) return Int32Array.of(whole);
    }
    const length = bytes.length;
    // Symbols are a linked list over the places of the word's bytes; a place whose symbol was merged away holds -1.
    const symbols = Int32Array.from(bytes, byte => this.#byteIds[byte]!);
    const next = Int32Array.from(bytes, (_, place) => place + 1);
    const previous = Int32Array.from(bytes, (_, place) => place - 1);
    const rankAt = (place: number): number | undefined => {
      const after = next[place]!;
      return after < length ? this.#ranks.get(symbols[place]! * this.vocabularySize + symbols[after]!) : undefined;
    };
    const waiting = new Heap<number>((a, b) => a < b);
    const consider = (place: number) => {
      const rank = rankAt(place);
      if (rank !== undefined) waiting.push(rank * PLACES + place);
    };

    for (let place = 0; place + 1 < length; place++) consider(place);
    let count = length;
    for (let first = waiting.pop(); first !== undefined; first = waiting.pop()) {
      const place = first % PLACES;
      const rank = (first - place) / PLACES;
      // An entry is stale where one of its two symbols has been merged with another meanwhile.
      if (symbols[place] === -1 || rankAt(place) !== rank) continue;
      const gone = next[place]!;
      symbols[place] = this.#results[rank]!;
      symbols[gone] = -1;
      next[place] = next[gone]!;
      if (next[place]! < length) previous[next[place]!] = place;
      count--;
      consider(place);
      if (previous[place]! >= 0) consider(previous[place]!);
    }

    const ids = new Int32Array(count);
    for (let place = 0, i = 0; place < length; place = next[place]!) ids[i++] = symbols[place]!;
    return ids;
  }
}

/** Turns tokens that come one at a time into text, whole characters only. */
export class StreamDecoder {
  readonly #bytesOf: (id: number) => Uint8Array;
  // A byte order mark is a character like any other here: decoding gives the text back.
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(bytesOf: (id: number) => Uint8Array) {
    this.#bytesOf = bytesOf;
  }

  /** The characters that this token completes: often one word, sometimes none. */
  push(id: number): string {
    return this.#decoder.decode(this.#bytesOf(id), { stream: true });
  }

  /** What is left of an unfinished character, as U+FFFD; the decoder then begins anew. */
  end(): string {
    return this.#decoder.decode();
  }
}

/** Matches any of the contents, the longest that begins at a place, or null where there is none. */
export function addedPattern(contents: readonly string[]): RegExp | null {
  if (contents.length === 0) return null;
  const longestFirst = [...contents].sort((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map(content => content.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|'), 'gu');
}
