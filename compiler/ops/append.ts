// append: writes the keys or values of new positions into the cache, in place, and hands the whole cache on.
import { batch, context, dimension, product, showDimensions, time } from '../graph/dimension.ts';
import type { Primitive } from '../graph/graph.ts';
import type { Tensor } from '../graph/tensor.ts';

const heads = dimension('kv_heads', 2);
const headDim = dimension('head_dim', 2);

export const append: Primitive<null> = {
  name: 'append',
  doc: 'Writes new positions into a cache at `start`, in place, and hands the whole cache on.',
  kernel: 'append',
  type([cache, fresh, start]) {
    if (
      cache!.dimensions[1]?.name !== context.name ||
      fresh!.dimensions[1]?.name !== time.name ||
      start!.dtype !== 'i32'
    )
      throw new Error(`append: ${showDimensions(fresh!.dimensions)} to ${showDimensions(cache!.dimensions)}`);
    return { dimensions: cache!.dimensions, dtype: 'f32' };
  },
  gradient() {
    throw new Error('append: decoding is not differentiated');
  },
  reference([cache, fresh, start]) {
    const output: Tensor = { ...cache!, data: cache!.data.slice() };
    const width = product(cache!.shape.slice(2));
    const [sequences, positions] = fresh!.shape as [number, number];
    for (let sequence = 0; sequence < sequences; sequence++) {
      const from = sequence * positions * width;
      output.data.set(
        fresh!.data.subarray(from, from + positions * width),
        (sequence * cache!.shape[1]! + start!.data[0]!) * width,
      );
    }
    return output;
  },
  cases: [
    {
      inputs: [
        { dimensions: [batch, context, heads, headDim], dtype: 'f32' },
        { dimensions: [batch, time, heads, headDim], dtype: 'f32' },
        { dimensions: [], dtype: 'i32', range: [1, 1] },
      ],
      attributes: null,
      sizes: { batch: 2, time: 2, context: 4 },
    },
  ],
};
