// recent: the last positions of what came before followed by what is new: what a convolution remembers in decoding.
import type { Builder } from '../graph/builder.ts';
import { batch, dimension, sameDimensions, showDimensions, time } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';

const channels = dimension('channels', 3);
const inputs = [
  { dimensions: [batch, time, channels], dtype: 'f32' },
  { dimensions: [batch, dimension('memory', 3), channels], dtype: 'f32' },
] as const;

export const recent: Primitive<null> = {
  name: 'recent',
  doc: 'The last positions of a state followed by x, as many as the state has; inputs x and state.',
  kernel: 'recent',
  type([x, state]) {
    const [sequences, , own] = x!.dimensions;
    const [others, memory, kept] = state!.dimensions;
    const fits =
      x!.dimensions.length === 3 &&
      state!.dimensions.length === 3 &&
      sameDimensions([sequences!, own!], [others!, kept!]);
    if (!fits || memory!.size === null)
      throw new Error(`recent: ${showDimensions(x!.dimensions)} after ${showDimensions(state!.dimensions)}`);
    return { dimensions: state!.dimensions, dtype: 'f32' };
  },
  gradient() {
    throw new Error('recent: decoding is not differentiated');
  },
  reference([x, state], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [sequences, positions, width] = x!.shape as [number, number, number];
    const memory = state!.shape[1]!;
    for (let b = 0; b < sequences; b++)
      for (let m = 0; m < memory; m++) {
        const at = m + positions;
        const [source, from] = at < memory ? [state!, b * memory + at] : [x!, b * positions + at - memory];
        output.data.set(source.data.subarray(from * width, (from + 1) * width), (b * memory + m) * width);
      }
    return output;
  },
  cases: [
    { inputs, attributes: null, sizes: { batch: 2, time: 1 } },
    { inputs, attributes: null, sizes: { batch: 2, time: 2 } },
    { inputs, attributes: null, sizes: { batch: 1, time: 3 } },
    { inputs, attributes: null, sizes: { batch: 3, time: 5 } },
  ],
};

/** The state that follows once x came after `state`. */
export const recentOf = (builder: Builder, x: Node, state: Node): Node => builder.apply(recent, [x, state], null);
