// What documents are like, all of them together: how many, how long, which are there twice.
import { createHash, type Hash } from 'node:crypto';
import { utf16Length } from '../measure.ts';
import { type PlacedPart, placeOf } from './documents.ts';
import { Seen } from './seen.ts';

export interface Survey {
  readonly documents: number;
  readonly characters: number;
  readonly bytes: number;
  /** Characters of the shortest document, of those at a tenth, the middle and nine tenths, and of the longest. */
  readonly lengths: readonly [number, number, number, number, number];
  /** Documents whose text was there before, and the place of the first of them and of what it repeats. */
  readonly duplicates: number;
  readonly firstDuplicate: readonly [string, string] | null;
  /** False where there are so many documents that their duplicates are those of a share of them, reckoned up. */
  readonly isExact: boolean;
}

/** A document so far. */
interface Begun {
  /** Its file and its number there. */
  readonly file: number;
  readonly number: number;
  readonly hash: Hash;
  length: number;
}

/** Larger than any number of a document in its file. */
const NUMBERS = 2 ** 32;

/** Surveys documents as their parts come, which are then of no more use. */
export class Surveyor {
  readonly #files: string[] = [];
  /** How many documents have a length: of different lengths there are few, for all of them together are the text. */
  readonly #lengths = new Map<number, number>();
  readonly #seen = new Seen();
  #begun: Begun | null = null;
  #bytes = 0;
  #firstDuplicate: readonly [string, string] | null = null;

  /** Adds a part of a document of the file `path`. */
  add(path: string, { bytes, begins, number }: PlacedPart): void {
    if (begins) {
      this.#end();
      if (this.#files.at(-1) !== path) this.#files.push(path);
      this.#begun = { file: this.#files.length - 1, number, hash: createHash('sha256'), length: 0 };
    }
    const begun = this.#begun!;
    begun.hash.update(bytes);
    begun.length += utf16Length(bytes);
    this.#bytes += bytes.length;
  }

  /** Of all that was added. */
  result(): Survey {
    this.#end();
    this.#begun = null;
    const sorted = [...this.#lengths].sort(([a], [b]) => a - b);
    const documents = sorted.reduce((sum, [, count]) => sum + count, 0);
    const at = (share: number) => {
      let rest = Math.floor(share * (documents - 1));
      for (const [length, count] of sorted) {
        if (rest < count) return length;
        rest -= count;
      }
      return 0;
    };
    return {
      documents,
      characters: sorted.reduce((sum, [length, count]) => sum + length * count, 0),
      bytes: this.#bytes,
      lengths: [at(0), at(0.1), at(0.5), at(0.9), at(1)],
      duplicates: this.#seen.repeats,
      firstDuplicate: this.#firstDuplicate,
      isExact: this.#seen.share === 1,
    };
  }

  #end(): void {
    if (this.#begun === null) return;
    const { file, number, hash, length } = this.#begun;
    this.#lengths.set(length, (this.#lengths.get(length) ?? 0) + 1);
    const spot = file * NUMBERS + number;
    const before = this.#seen.add(shortened(hash.digest()), spot);
    if (before !== null) this.#firstDuplicate ??= [this.#placeOf(spot), this.#placeOf(before)];
  }

  #placeOf(spot: number): string {
    return placeOf(this.#files[Math.floor(spot / NUMBERS)]!, spot % NUMBERS);
  }
}

/** 53 bits of a hash, as many as a number holds. */
const shortened = (digest: Buffer): number => (digest.readUInt32LE(4) >>> 11) * 2 ** 32 + digest.readUInt32LE(0);
