// Which documents were there before, by a short hash of each: in little memory, however many there are.

/** Documents that are remembered at most; of more, a share is: half of them, a quarter, and so on. */
const MOST = 3 * 2 ** 20;
/** The share of slots that is taken at most. */
const LOAD = 0.75;
/** Lower bits of a hash say whether its document is in the share, those above where it is looked for. */
const SHARE_BITS = 2 ** 21;

export class Seen {
  /** One of so many documents is remembered: a power of two. */
  share = 1;
  #size = 0;
  /** Open addressing: hash + 1, 0 where nothing is; the spot of the first document, and how often it came again. */
  #hashes = new Float64Array(2 ** 10);
  #spots = new Float64Array(2 ** 10);
  #repeats = new Uint32Array(2 ** 10);
  readonly #most: number;

  constructor(most = MOST) {
    this.#most = most;
  }

  /** Documents that came again; of a share of all, about so many. */
  get repeats(): number {
    return this.share * this.#repeats.reduce((sum, count) => sum + count, 0);
  }

  /**
   * Remembers a document, unless it is left out; gives the spot of the same document where that came before.
   *
   * @param hash of the text, 53 bits
   * @param spot says where it stands
   */
  add(hash: number, spot: number): number | null {
    if (hash % this.share !== 0) return null;
    const slot = this.#slotOf(hash);
    if (this.#hashes[slot] !== 0) {
      this.#repeats[slot]! += 1;
      return this.#spots[slot]!;
    }
    this.#put(slot, hash, spot, 0);
    if (this.#size > this.#most) this.#thin();
    else if (this.#size > LOAD * this.#hashes.length) this.#rebuild(2 * this.#hashes.length);
    return null;
  }

  /** Where a hash is, or would be. */
  #slotOf(hash: number): number {
    const mask = this.#hashes.length - 1;
    let slot = Math.floor(hash / SHARE_BITS) & mask;
    while (this.#hashes[slot] !== 0 && this.#hashes[slot] !== hash + 1) slot = (slot + 1) & mask;
    return slot;
  }

  #put(slot: number, hash: number, spot: number, repeats: number): void {
    this.#hashes[slot] = hash + 1;
    this.#spots[slot] = spot;
    this.#repeats[slot] = repeats;
    this.#size += 1;
  }

  /** Halves the share, and what is remembered. */
  #thin(): void {
    this.share *= 2;
    this.#rebuild(this.#hashes.length);
  }

  #rebuild(slots: number): void {
    const [hashes, spots, repeats] = [this.#hashes, this.#spots, this.#repeats];
    this.#size = 0;
    this.#hashes = new Float64Array(slots);
    this.#spots = new Float64Array(slots);
    this.#repeats = new Uint32Array(slots);
    for (const [index, hash] of hashes.entries()) {
      if (hash === 0 || (hash - 1) % this.share !== 0) continue;
      this.#put(this.#slotOf(hash - 1), hash - 1, spots[index]!, repeats[index]!);
    }
  }
}
