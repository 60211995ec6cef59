// A measured number: several samples as their median and range.

export interface Measurement {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** @throws an internal error where there is no sample */
export function summarize(samples: readonly number[]): Measurement {
  if (samples.length === 0) throw new Error('nothing was measured');
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const median = (sorted[Math.ceil(half) - 1]! + sorted[Math.floor(half)]!) / 2;
  return { median, low: sorted[0]!, high: sorted.at(-1)! };
}
