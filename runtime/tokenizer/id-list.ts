// A list of token ids that grows: what encoding writes to.
import { larger } from './words.ts';

export class IdList {
  length = 0;
  #ids: Int32Array<ArrayBuffer>;

  /** @param room ids that it holds before it must grow */
  constructor(room: number) {
    this.#ids = new Int32Array(Math.max(16, room));
  }

  push(id: number): void {
    if (this.length === this.#ids.length) this.#ids = larger(this.#ids, this.length + 1);
    this.#ids[this.length++] = id;
  }

  /** Appends ids[start, end). */
  append(ids: Int32Array, start: number, end: number): void {
    if (this.length + end - start > this.#ids.length) this.#ids = larger(this.#ids, this.length + end - start);
    for (let i = start; i < end; i++) this.#ids[this.length++] = ids[i]!;
  }

  /** A copy of what is in the list. */
  toArray(): Int32Array<ArrayBuffer> {
    return this.#ids.slice(0, this.length);
  }
}
