// Counter-based random numbers, bit for bit those of templates/cpu/random.h: what the float64 reference draws.

/** The high and the low word of a product of two 32-bit numbers. */
function product(a: number, b: number): readonly [high: number, low: number] {
  const low = Math.imul(a, b) >>> 0;
  // With a = aHigh 2^16 + aLow, all that reaches the high word stays below 2^53.
  const rest = (a & 0xffff) * b;
  const high = Math.floor(((a >>> 16) * b + Math.floor(rest / 0x10000)) / 0x10000);
  return [high >>> 0, low];
}

/** Philox4x32-10 (Salmon et al. 2011): four random words for a counter of four words under a key of two. */
export function philox(counter: readonly number[], key: readonly number[]): number[] {
  let [c0, c1, c2, c3] = counter.map(word => word >>> 0) as [number, number, number, number];
  let [k0, k1] = key.map(word => word >>> 0) as [number, number];
  for (let round = 0; round < 10; round++) {
    const [aHigh, aLow] = product(0xd2511f53, c0);
    const [bHigh, bLow] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(bHigh ^ c1 ^ k0) >>> 0, bLow, (aHigh ^ c3 ^ k1) >>> 0, aLow];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * Uniform in [0, 1), a multiple of 2^-24.
 * @param noise two words of key, the step's first sequence of this call, the layer
 * @param site a place of the model
 * @param low with `high`, the element's number within its sequence
 */
export function uniform(noise: ArrayLike<number>, sequence: number, site: number, low: number, high: number): number {
  const counter = [low, high, noise[2]! + sequence, noise[3]! * 0x10000 + site];
  return (philox(counter, [noise[0]!, noise[1]!])[0]! >>> 8) * 2 ** -24;
}
