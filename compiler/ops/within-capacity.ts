// within-capacity: which of the tokens that chose an expert come before it is full: capacity factors.
import { batch, dimension, showDimensions, time } from '../graph/dimension.ts';
import type { Primitive } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';

export interface CapacityAttributes {
  readonly experts: number;
  /** An expert takes so many tokens for each token of the call, rounded up. */
  readonly limit: number;
}

const chosen = dimension('chosen', 2);

export const withinCapacity: Primitive<CapacityAttributes> = {
  name: 'within-capacity',
  doc: 'For each choice of an expert, in the order of the tokens: 1 while the expert has room, then 0.',
  kernel: 'within-capacity',
  type([index]) {
    if (index!.dtype !== 'i32' || index!.dimensions.length < 2)
      throw new Error(`within-capacity: ${index!.dtype}${showDimensions(index!.dimensions)}`);
    return { dimensions: index!.dimensions, dtype: 'f32' };
  },
  gradient: () => [null],
  reference([index], { experts, limit }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const tokens = output.data.length / output.shape.at(-1)!;
    const taken = new Float64Array(experts);
    const capacity = Math.ceil(limit * tokens);
    index!.data.forEach((expert, n) => {
      output.data[n] = taken[expert]!++ < capacity ? 1 : 0;
    });
    return output;
  },
  cases: [
    {
      inputs: [{ dimensions: [batch, time, chosen], dtype: 'i32', range: [0, 3] }],
      attributes: { experts: 4, limit: 0.375 },
      sizes: { batch: 2, time: 4 },
    },
  ],
};
