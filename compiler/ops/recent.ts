// recent: the last positions of what came before followed by what is new: what a convolution remembers in decoding.
import type { Builder } from '../graph/builder.ts';
import { batch, dimension, sameDimensions, sequences, showDimensions, time } from '../graph/dimension.ts';
import type { Node, Primitive, PrimitiveCase } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';
import { isPerSequence, piecesOf } from './pieces.ts';

const channels = dimension('channels', 3);
/** Texts whose new tokens end at these places. */
const endingAt = (...ends: number[]): PrimitiveCase<null> => ({
  inputs: [
    { dimensions: [batch, time, channels], dtype: 'f32' },
    { dimensions: [sequences, dimension('memory', 3), channels], dtype: 'f32' },
    { dimensions: [sequences], dtype: 'i32', values: ends },
  ],
  attributes: null,
  sizes: { batch: 1, time: ends.at(-1)!, sequences: ends.length },
});

export const recent: Primitive<null> = {
  name: 'recent',
  doc: "The last positions of each text's state followed by its part of x, as many as the state has; inputs x, state, ends.",
  kernel: 'recent',
  type([x, state, ends]) {
    const [, , own] = x!.dimensions;
    const [texts, memory, kept] = state!.dimensions;
    const fits =
      x!.dimensions.length === 3 &&
      state!.dimensions.length === 3 &&
      sameDimensions([sequences, own!], [texts!, kept!]) &&
      isPerSequence(ends!);
    if (!fits || memory!.size === null)
      throw new Error(`recent: ${showDimensions(x!.dimensions)} after ${showDimensions(state!.dimensions)}`);
    return { dimensions: state!.dimensions, dtype: 'f32' };
  },
  gradient() {
    throw new Error('recent: decoding is not differentiated');
  },
  reference([x, state, ends], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [, memory, width] = state!.shape as [number, number, number];
    piecesOf(x!, ends).forEach(({ first, count }, b) => {
      for (let m = 0; m < memory; m++) {
        const at = m + count;
        const [source, from] = at < memory ? [state!, b * memory + at] : [x!, first + at - memory];
        output.data.set(source.data.subarray(from * width, (from + 1) * width), (b * memory + m) * width);
      }
    });
    return output;
  },
  cases: [endingAt(1, 2), endingAt(2, 2, 4), endingAt(3), endingAt(0, 5, 6, 10)],
};

/** Each text's state once its part of x came after it. */
export const recentOf = (builder: Builder, x: Node, state: Node, ends: Node): Node =>
  builder.apply(recent, [x, state, ends], null);
