// Numbers as people read them, and columns of them smoothed.

/** 182400 as `182k`, 8030261248 as `8.03G`, 0.00052 as `5.2e-4`. */
export function brief(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 0.001) return value.toExponential(1);
  if (size < 1000) return String(Number(value.toPrecision(4)));
  const [scale, unit] = size < 1e6 ? [1e3, 'k'] : size < 1e9 ? [1e6, 'M'] : size < 1e12 ? [1e9, 'G'] : [1e12, 'T'];
  return Number((value / scale).toPrecision(3)) + unit;
}

export const bytes = value => (value === null || value === undefined ? '' : `${brief(value)}B`);

/** Seconds as `42 s`, `12 min` or `3 h 05`. */
export function duration(seconds) {
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')}`;
}

/** A running mean in which each value back counts `weight` times as much as the next; without the bias of a start at 0. */
export function smoothed(values, weight) {
  let mean = 0;
  let count = 0;
  return values.map(value => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    count += 1;
    return mean / (1 - weight ** count);
  });
}

export const last = values => values.findLast(value => value !== null) ?? null;
export const least = values =>
  values.reduce((most, value) => (value !== null && (most === null || value < most) ? value : most), null);

/** How many values came after the lowest, the first of those that are equal. */
export function sinceLowest(values) {
  const there = values.filter(value => value !== null);
  return there.length === 0 ? 0 : there.length - 1 - there.indexOf(least(there));
}

export function median(values) {
  const sorted = values.filter(value => value !== null).sort((a, b) => a - b);
  return sorted.length === 0 ? null : sorted[Math.floor(sorted.length / 2)];
}
