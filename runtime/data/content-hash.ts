// A short hash of several contents, of any size: what a run remembers of its data.
import { createHash } from 'node:crypto';

/** SHA-256 of contents, each with its length before it, so that no two lists of them are alike. */
export class ContentHash {
  readonly #hash = createHash('sha256');

  /** A content of so many bytes follows. */
  begin(bytes: number): void {
    this.#hash.update(`${bytes}:`);
  }

  add(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  digest(): string {
    return this.#hash.digest('hex').slice(0, 32);
  }
}
