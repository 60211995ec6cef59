// Counting the words of texts, as the split pattern cuts them: what training learns from.
import type { CountedWords } from './learn.ts';
import { forEachWord, type SplitName } from './split.ts';
import { larger, WordTable } from './words.ts';

const NEWLINE = 0x0a;

/**
 * Counts words line by line, as the Hugging Face library counts files: no word runs over a newline into the next line.
 * Special tokens in the text are marks and not text, and are left out; that library learns them as words.
 */
export class WordCounter {
  readonly #split: SplitName;
  readonly #marks: readonly Buffer[];
  readonly #words = new WordTable();
  #counts = new Float64Array(1 << 12);

  constructor(split: SplitName, specialTokens: readonly string[]) {
    this.#split = split;
    // Of two that begin at one place, the longer is meant.
    this.#marks = specialTokens.map(token => Buffer.from(token)).sort((a, b) => b.length - a.length);
  }

  /** Counts the words of a text, which is well-formed UTF-8. */
  addText(text: Uint8Array): void {
    const bytes = Buffer.from(text.buffer, text.byteOffset, text.byteLength);
    const next = this.#marks.map(mark => bytes.indexOf(mark));
    for (let start = 0; start < bytes.length; ) {
      let first = -1;
      for (let i = 0; i < next.length; i++) {
        if (next[i] !== -1 && next[i]! < start) next[i] = bytes.indexOf(this.#marks[i]!, start);
        if (next[i] !== -1 && (first === -1 || next[i]! < next[first]!)) first = i;
      }
      const end = first === -1 ? bytes.length : next[first]!;
      this.#addLines(bytes, start, end);
      start = first === -1 ? end : end + this.#marks[first]!.length;
    }
  }

  /** Adds words that were counted elsewhere. */
  addCounted({ bytes, starts, counts }: CountedWords): void {
    for (let word = 0; word < counts.length; word++)
      this.#count(bytes, starts[word]!, starts[word + 1]!, counts[word]!);
  }

  counted(): CountedWords {
    return { ...this.#words.all(), counts: this.#counts.slice(0, this.#words.size) };
  }

  #addLines(text: Buffer, start: number, end: number): void {
    while (start < end) {
      const newline = text.indexOf(NEWLINE, start);
      const lineEnd = newline === -1 || newline >= end ? end : newline + 1;
      forEachWord(text, start, lineEnd, this.#split, (from, to) => this.#count(text, from, to, 1));
      start = lineEnd;
    }
  }

  #count(text: Uint8Array, start: number, end: number, by: number): void {
    const word = this.#words.add(text, start, end);
    if (word >= this.#counts.length) this.#counts = larger(this.#counts, word + 1);
    this.#counts[word]! += by;
  }
}
