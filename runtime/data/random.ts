// Random numbers that are a function of (seed, stream, position): Philox4x32-10.
// Salmon, Moraes, Dror, Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", section 4.3. There is no state but a
// position, so what is drawn does not depend on what was drawn before it, and any draw can be repeated alone.
import { UserError } from '../../compiler/diagnostic.ts';

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
/** The key moves on by these each round: the golden ratio and the square root of three, less one, as fractions. */
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** The upper 32 bits of the product of two unsigned 32-bit numbers; `Math.imul` has the lower. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aLow * bHigh + aHigh * bLow + ((aLow * bLow) >>> 16);
  return (aHigh * bHigh + Math.floor(middle / 0x10000)) >>> 0;
}

/** Philox4x32-10: four random words of a counter of four words and a key of two, into `out`. */
export function philox(counter: ArrayLike<number>, key: ArrayLike<number>, out: Uint32Array): void {
  let c0 = counter[0]! >>> 0;
  let c1 = counter[1]! >>> 0;
  let c2 = counter[2]! >>> 0;
  let c3 = counter[3]! >>> 0;
  let k0 = key[0]! >>> 0;
  let k1 = key[1]! >>> 0;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** @throws UserError where the seed is not a whole number from 0 to 2^53 - 1. */
export function requireSeed(seed: number): void {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new UserError(`the seed is ${seed}; give a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
}

/** A stream of random numbers. Streams of one seed are independent: an epoch's, a story's, a sample's. */
export class Random {
  readonly #key: readonly [number, number];
  readonly #counter = new Uint32Array(4);
  readonly #block = new Uint32Array(4);
  #used = 4;

  /** @throws UserError where the seed is not a whole number from 0 to 2^53 - 1. */
  constructor(seed: number, stream = 0) {
    requireSeed(seed);
    this.#key = [seed >>> 0, Math.floor(seed / 2 ** 32)];
    this.#counter.set([0, 0, stream >>> 0, Math.floor(stream / 2 ** 32)]);
  }

  /** A whole number from 0 to 2^32 - 1. */
  uint32(): number {
    if (this.#used === 4) {
      philox(this.#counter, this.#key, this.#block);
      if (++this.#counter[0]! === 2 ** 32) this.#counter[1]!++;
      this.#used = 0;
    }
    return this.#block[this.#used++]!;
  }

  /** A whole number from 0 to n - 1, each as likely as the others, for n under 2^32. Lemire 2019, arXiv:1805.10941. */
  below(n: number): number {
    for (;;) {
      const word = this.uint32();
      // Of the products word * n, those with a low half under 2^32 mod n would favour some results.
      if (Math.imul(word, n) >>> 0 >= (2 ** 32 - n) % n) return multiplyHigh(word, n);
    }
  }

  /** A number in [0, 1), a multiple of 2^-53. */
  uniform(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }
}

/** The numbers 0 to n - 1 in a random order (Fisher and Yates). */
export function permutation(n: number, seed: number, stream: number): Uint32Array {
  const random = new Random(seed, stream);
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const moved = order[i]!;
    order[i] = order[j]!;
    order[j] = moved;
  }
  return order;
}

/** Larger orders are not kept in memory: 64 MiB for each epoch are enough. */
const MOST_KEPT = 2 ** 24;

/** The number at each place of a random order of the numbers 0 to n - 1; of many numbers none is kept in memory. */
export function orderOf(n: number, seed: number, stream: number): (place: number) => number {
  if (n > MOST_KEPT) return enciphered(n, seed, stream);
  const order = permutation(n, seed, stream);
  return place => order[place]!;
}

/** Rounds after which the cipher's order cannot be told from a random one by looking at it. */
const CIPHER_ROUNDS = 8;

/**
 * A random order as a cipher, whose key is the seed: a Feistel network with Philox as its function (Luby and Rackoff 1988,
 * "How to construct pseudorandom permutations from pseudorandom functions") on the numbers below the next power of four,
 * applied again while the result is not below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
 */
export function enciphered(n: number, seed: number, stream: number): (place: number) => number {
  const half = 2 ** Math.ceil(Math.log2(n) / 2);
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32)];
  const counter = new Uint32Array([0, 0, stream >>> 0, Math.floor(stream / 2 ** 32)]);
  const block = new Uint32Array(4);
  return place => {
    let number = place;
    do {
      let [left, right] = [Math.floor(number / half), number % half];
      for (let round = 0; round < CIPHER_ROUNDS; round++) {
        counter[0] = right;
        counter[1] = round;
        philox(counter, key, block);
        [left, right] = [right, (left ^ (block[0]! & (half - 1))) >>> 0];
      }
      number = left * half + right;
    } while (number >= n);
    return number;
  };
}
