// Byte-level BPE with a split pattern that is known here: most tokenizers of today's models, on the fast path. A text is
// cut into words as bytes, and words that were met before are looked up; only new ones are merged.
import { byteCharacters } from './alphabet.ts';
import type { Bpe } from './bpe.ts';
import type { IdList } from './id-list.ts';
import { type SplitName, splits } from './split.ts';
import { larger, WordTable } from './words.ts';

/** Words that are kept with their ids, and the longest such word, in bytes: most of a text is short words. */
const KEPT_WORDS = 1 << 18;
const KEPT_LENGTH = 64;

export class ByteLevelWords {
  readonly #bpe: Bpe;
  readonly #split: SplitName;
  readonly #byteIds: Int32Array;
  readonly #words = new WordTable();
  /** By word: its id where it is one token, or -1 - the place of its ids in the pool, where their number comes first. */
  readonly #found = new Int32Array(KEPT_WORDS);
  #pool = new Int32Array(1 << 12);
  #pooled = 0;
  #text = new Uint8Array(1 << 12);
  readonly #encoder = new TextEncoder();

  /** @returns null where the vocabulary lacks a byte, so that not every word is one of bytes. */
  static of(bpe: Bpe, split: SplitName): ByteLevelWords | null {
    const byteIds = byteCharacters.map(character => bpe.vocabulary.id(character));
    return byteIds.every(id => id !== undefined) ? new ByteLevelWords(bpe, split, Int32Array.from(byteIds)) : null;
  }

  private constructor(bpe: Bpe, split: SplitName, byteIds: Int32Array) {
    this.#bpe = bpe;
    this.#split = split;
    this.#byteIds = byteIds;
  }

  /** Appends the ids of a text. */
  encode(text: string, ids: IdList): void {
    // No character of a string takes more than three bytes.
    if (3 * text.length > this.#text.length) this.#text = new Uint8Array(3 * text.length);
    const bytes = this.#text;
    const end = this.#encoder.encodeInto(text, bytes).written;
    const { wordEnd } = splits[this.#split];
    for (let start = 0; start < end; ) {
      const next = wordEnd(bytes, start, end);
      this.#encodeWord(bytes, start, next, ids);
      start = next;
    }
  }

  #encodeWord(text: Uint8Array, start: number, end: number, ids: IdList): void {
    if (end - start > KEPT_LENGTH) {
      const symbols = this.#merged(text, start, end);
      ids.append(symbols, 0, symbols.length);
      return;
    }
    const known = this.#words.size;
    const word = this.#words.add(text, start, end);
    if (word === known) this.#keep(word, this.#merged(text, start, end));
    const found = this.#found[word]!;
    if (found >= 0) ids.push(found);
    else ids.append(this.#pool, -found, -found + this.#pool[-1 - found]!);
    if (this.#words.size === KEPT_WORDS) {
      this.#words.clear();
      this.#pooled = 0;
    }
  }

  #keep(word: number, symbols: Int32Array): void {
    if (symbols.length === 1) {
      this.#found[word] = symbols[0]!;
      return;
    }
    const place = this.#pooled;
    this.#pooled += 1 + symbols.length;
    if (this.#pooled > this.#pool.length) this.#pool = larger(this.#pool, this.#pooled);
    this.#pool[place] = symbols.length;
    this.#pool.set(symbols, place + 1);
    this.#found[word] = -1 - place;
  }

  #merged(text: Uint8Array, start: number, end: number): Int32Array {
    if (this.#bpe.options.wholeWords) {
      const spelling = Array.from(text.subarray(start, end), byte => byteCharacters[byte]).join('');
      const whole = this.#bpe.vocabulary.id(spelling);
      if (whole !== undefined) return Int32Array.of(whole);
    }
    const symbols = new Int32Array(end - start);
    for (let i = start; i < end; i++) symbols[i - start] = this.#byteIds[text[i]!]!;
    return symbols.subarray(0, this.#bpe.merges.apply(symbols, symbols.length));
  }
}
