// A table of pairs of token ids: the number of each, in the order in which they came. Training counts pairs in it and
// encoding looks up merges, for every pair of neighbours of every word that is new.
import { larger } from './words.ts';

export class PairTable {
  /** Pairs in the table. */
  size = 0;
  /** The ids of each pair, by its number. */
  lefts = new Int32Array(1 << 12);
  rights = new Int32Array(1 << 12);
  /** Open addressing: pair number + 1 by hash, 0 where nothing is; at least half of the places are free. */
  #places = new Int32Array(1 << 13);

  /** The number of a pair, or -1. */
  find(left: number, right: number): number {
    return this.#places[this.#placeOf(left, right)]! - 1;
  }

  /** The number of a pair: `size` as it was before, where the pair is new and was put in. */
  add(left: number, right: number): number {
    const place = this.#placeOf(left, right);
    if (this.#places[place] !== 0) return this.#places[place]! - 1;
    const pair = this.size++;
    if (pair === this.lefts.length) {
      this.lefts = larger(this.lefts, this.size);
      this.rights = larger(this.rights, this.size);
    }
    this.lefts[pair] = left;
    this.rights[pair] = right;
    this.#places[place] = pair + 1;
    if (2 * this.size > this.#places.length) this.#spread();
    return pair;
  }

  /** Where a pair is in the hash table, or where it would be put. */
  #placeOf(left: number, right: number): number {
    const mask = this.#places.length - 1;
    let place = hashOf(left, right) & mask;
    for (let entry = this.#places[place]!; entry !== 0; entry = this.#places[place]!) {
      if (this.lefts[entry - 1] === left && this.rights[entry - 1] === right) return place;
      place = (place + 1) & mask;
    }
    return place;
  }

  /** A hash table of twice the places. */
  #spread(): void {
    this.#places = new Int32Array(2 * this.#places.length);
    for (let pair = 0; pair < this.size; pair++)
      this.#places[this.#placeOf(this.lefts[pair]!, this.rights[pair]!)] = pair + 1;
  }
}

/** Mixes two ids: multiplied by constants of MurmurHash3, and the upper bits brought down. */
function hashOf(left: number, right: number): number {
  const mixed = Math.imul(Math.imul(left, 0xcc9e2d51) ^ right, 0x1b873593);
  return mixed ^ (mixed >>> 15);
}
