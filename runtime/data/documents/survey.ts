// What documents are like, all of them together: how many, how long, which are there twice.
import { createHash } from 'node:crypto';
import type { Document } from './documents.ts';

export interface Survey {
  readonly documents: number;
  readonly characters: number;
  readonly bytes: number;
  /** Characters of the shortest document, of those at a tenth, the middle and nine tenths, and of the longest. */
  readonly lengths: readonly [number, number, number, number, number];
  /** Documents whose text was there before, and the place of the first of them and of what it repeats. */
  readonly duplicates: number;
  readonly firstDuplicate: readonly [string, string] | null;
}

/** Surveys documents as they come; one at a time is in memory. */
export class Surveyor {
  readonly #lengths: number[] = [];
  /** Places by a hash of the text. */
  readonly #known = new Map<string, string>();
  #bytes = 0;
  #duplicates = 0;
  #firstDuplicate: readonly [string, string] | null = null;

  add({ text, place }: Document): void {
    this.#lengths.push(text.length);
    this.#bytes += Buffer.byteLength(text);
    const key = createHash('sha256').update(text).digest('base64');
    const before = this.#known.get(key);
    if (before === undefined) this.#known.set(key, place);
    else {
      this.#duplicates += 1;
      this.#firstDuplicate ??= [place, before];
    }
  }

  result(): Survey {
    const sorted = this.#lengths.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
    return {
      documents: sorted.length,
      characters: sorted.reduce((sum, length) => sum + length, 0),
      bytes: this.#bytes,
      lengths: [at(0), at(0.1), at(0.5), at(0.9), at(1)],
      duplicates: this.#duplicates,
      firstDuplicate: this.#firstDuplicate,
    };
  }
}
