// Which number makes a model as large as another: a search over the multiples of a number for the nearest count.

/** A whole number, and what is counted with it. */
export interface Solution {
  readonly value: number;
  readonly count: number;
}

/** Constants beyond this are no dimensions of anything. */
const MOST = 2 ** 24;
/** Numbers in a row with which there is no model, such as widths that heads do not divide, before the search gives up. */
const MOST_GAPS = 256;

/**
 * The multiple of `multiple` whose count is nearest to `target`, the lower of two that are as near. Counts may not fall as
 * numbers grow; null stands for a number with which there is no model. Null where there is none at all.
 */
export function nearestCount(countOf: (value: number) => number | null, target: number, multiple = 1): Solution | null {
  const known = new Map<number, number | null>();
  const count = (step: number): number | null => {
    if (!known.has(step)) known.set(step, countOf(step * multiple));
    return known.get(step)!;
  };
  /** The first step from one on, and below an end, with which there is a model. */
  const firstFrom = (step: number, end: number): number | null => {
    for (let next = step; next < Math.min(end, step + MOST_GAPS); next++) if (count(next) !== null) return next;
    return null;
  };
  const last = Math.floor(MOST / multiple) + 1;
  let low = firstFrom(1, last);
  if (low === null) return null;
  let high = low;
  while (count(high)! < target) {
    const next = firstFrom(2 * high, last);
    if (next === null) break;
    [low, high] = [high, next];
  }
  // Between them lies the target, or all are below it or above.
  for (let end = high; end - low > 1; ) {
    const middle = low + Math.floor((end - low) / 2);
    const found = firstFrom(middle, end);
    if (found === null) end = middle;
    else if (count(found)! < target) low = found;
    else [end, high] = [middle, found];
  }
  const solutions = [low, high].map(step => ({ value: step * multiple, count: count(step)! }));
  return solutions.reduce((best, next) =>
    Math.abs(next.count - target) < Math.abs(best.count - target) ? next : best,
  );
}
