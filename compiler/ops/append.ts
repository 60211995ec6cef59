// append: writes the keys or values of each text's new tokens into its cache, in place, and hands the whole cache on.
import { batch, context, dimension, product, sequences, showDimensions, time } from '../graph/dimension.ts';
import type { Primitive } from '../graph/graph.ts';
import type { Tensor } from '../graph/tensor.ts';
import { isPerSequence, piecesOf } from './pieces.ts';

const heads = dimension('kv_heads', 2);
const headDim = dimension('head_dim', 2);

export const append: Primitive<null> = {
  name: 'append',
  doc: "Writes each text's new tokens into its cache at `starts`, in place, and hands the whole cache on; inputs cache, fresh, starts, ends.",
  kernel: 'append',
  type([cache, fresh, starts, ends]) {
    const [own, positions] = cache!.dimensions;
    if (
      own?.name !== sequences.name ||
      positions?.name !== context.name ||
      fresh!.dimensions[1]?.name !== time.name ||
      !isPerSequence(starts!) ||
      !isPerSequence(ends!)
    )
      throw new Error(`append: ${showDimensions(fresh!.dimensions)} to ${showDimensions(cache!.dimensions)}`);
    return { dimensions: cache!.dimensions, dtype: 'f32' };
  },
  gradient() {
    throw new Error('append: decoding is not differentiated');
  },
  reference([cache, fresh, starts, ends]) {
    const output: Tensor = { ...cache!, data: cache!.data.slice() };
    const width = product(cache!.shape.slice(2));
    piecesOf(fresh!, ends).forEach(({ first, count }, sequence) => {
      const from = fresh!.data.subarray(first * width, (first + count) * width);
      output.data.set(from, (sequence * cache!.shape[1]! + starts!.data[sequence]!) * width);
    });
    return output;
  },
  cases: [
    {
      inputs: [
        { dimensions: [sequences, context, heads, headDim], dtype: 'f32' },
        { dimensions: [batch, time, heads, headDim], dtype: 'f32' },
        { dimensions: [sequences], dtype: 'i32', values: [1, 0, 3] },
        { dimensions: [sequences], dtype: 'i32', values: [2, 2, 3] },
      ],
      attributes: null,
      sizes: { batch: 1, time: 3, sequences: 3, context: 4 },
    },
  ],
};
