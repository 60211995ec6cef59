// A table of words as bytes: the number of each, in the order in which they came. Counting words in training and
// remembering how they were encoded both look up nearly every word of a text here, so it makes no object of any.

/** Multiplier of the FNV-1a hash (Fowler, Noll, Vo), over bytes. */
const FNV_PRIME = 0x01000193;
const FNV_BASIS = 0x811c9dc5;

/** The share of places in the hash table that is taken at most. */
const LOAD = 0.6;

export class WordTable {
  /** Words in the table. */
  size = 0;
  #bytes = new Uint8Array(1 << 16);
  /** Where each word begins in the bytes; the next word's beginning is its end. */
  #starts = new Int32Array((1 << 12) + 1);
  #hashes = new Int32Array(1 << 12);
  /** Open addressing: word number + 1 by hash, 0 where nothing is. */
  #places = new Int32Array(1 << 13);

  /** The number of the word text[start, end): `size` as it was before, where the word is new and was put in. */
  add(text: Uint8Array, start: number, end: number): number {
    let hash = FNV_BASIS;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ text[i]!, FNV_PRIME);
    // The lower bits of the product know little of the bytes' upper ones.
    hash ^= hash >>> 15;
    const mask = this.#places.length - 1;
    let place = hash & mask;
    for (let entry = this.#places[place]!; entry !== 0; entry = this.#places[place]!) {
      const word = entry - 1;
      if (this.#hashes[word] === hash && this.#holds(word, text, start, end)) return word;
      place = (place + 1) & mask;
    }
    return this.#append(text, start, end, hash, place);
  }

  /** The bytes of a word: a view that is valid until the next word is added. */
  word(number: number): Uint8Array {
    return this.#bytes.subarray(this.#starts[number], this.#starts[number + 1]);
  }

  /** All words, one after the other, and where each begins and the last ends. */
  all(): { readonly bytes: Uint8Array; readonly starts: Int32Array } {
    return { bytes: this.#bytes.slice(0, this.#starts[this.size]), starts: this.#starts.slice(0, this.size + 1) };
  }

  clear(): void {
    this.size = 0;
    this.#places.fill(0);
  }

  #holds(word: number, text: Uint8Array, start: number, end: number): boolean {
    const bytes = this.#bytes;
    let own = this.#starts[word]!;
    if (this.#starts[word + 1]! - own !== end - start) return false;
    for (let i = start; i < end; i++) if (bytes[own++] !== text[i]) return false;
    return true;
  }

  #append(text: Uint8Array, start: number, end: number, hash: number, place: number): number {
    const word = this.size++;
    const first = this.#starts[word]!;
    const last = first + end - start;
    if (last > this.#bytes.length) this.#bytes = larger(this.#bytes, last);
    if (word + 2 > this.#starts.length) this.#starts = larger(this.#starts, word + 2);
    if (word >= this.#hashes.length) this.#hashes = larger(this.#hashes, word + 1);
    this.#bytes.set(text.subarray(start, end), first);
    this.#starts[word + 1] = last;
    this.#hashes[word] = hash;
    this.#places[place] = word + 1;
    if (this.size > this.#places.length * LOAD) this.#spread();
    return word;
  }

  /** A hash table of twice the places. */
  #spread(): void {
    const places = new Int32Array(2 * this.#places.length);
    const mask = places.length - 1;
    for (let word = 0; word < this.size; word++) {
      let place = this.#hashes[word]! & mask;
      while (places[place] !== 0) place = (place + 1) & mask;
      places[place] = word + 1;
    }
    this.#places = places;
  }
}

/** A copy of an array with room for at least `length` elements, and for half as many again as it had. */
export function larger<Numbers extends Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Float64Array<ArrayBuffer>>(
  array: Numbers,
  length: number,
): Numbers {
  const copy = new (array.constructor as new (length: number) => Numbers)(
    Math.max(length, Math.ceil(array.length * 1.5)),
  );
  copy.set(array);
  return copy;
}
