// Sizes of buffers, known up to the run-time dimensions.
import type { Dimension } from '../graph/dimension.ts';

/** A number of floats: `count` for each combination of positions along the run-time dimensions. */
export interface Extent {
  readonly runtime: readonly string[];
  readonly count: number;
}

export function extentOf(dims: readonly Dimension[]): Extent {
  let count = 1;
  const runtime: string[] = [];
  for (const dim of dims) {
    if (dim.size === null) runtime.push(dim.name);
    else count *= dim.size;
  }
  return { runtime: runtime.sort(), count };
}

/** Floats that every buffer's count is rounded up to, so that each starts on a cache line. */
const alignment = 16;

export const aligned = (count: number): number => Math.ceil(count / alignment) * alignment;

/** A name for the buffers that grow with the same dimensions: '' for fixed, 'time', 'batch*time'. */
export const growthOf = (extent: Extent): string => extent.runtime.join('*');
