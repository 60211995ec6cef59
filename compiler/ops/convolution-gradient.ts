// convolution-gradient: the gradient of a causal convolution with respect to its weight:
// dw[k] = sum over sequences and positions of x[t - kernel + 1 + k] dy[t], channel by channel.
import { batch, type Dimension, dimension, sameDimensions, showDimensions, time } from '../graph/dimension.ts';
import type { Primitive, Type } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';

export interface ConvolutionGradientAttributes {
  /** The weight's second dimension. */
  readonly kernel: Dimension;
}

const channels = dimension('channels', 3);
const signal: Type = { dimensions: [batch, time, channels], dtype: 'f32' };

export const convolutionGradient: Primitive<ConvolutionGradientAttributes> = {
  name: 'convolution-gradient',
  doc: 'The gradient of a causal convolution with respect to its weight; inputs x and the output gradient.',
  kernel: 'convolution-gradient',
  type([x, gradient], { kernel }) {
    if (x!.dimensions.length !== 3 || !sameDimensions(x!.dimensions, gradient!.dimensions) || kernel.size === null)
      throw new Error(
        `convolution-gradient: ${showDimensions(x!.dimensions)} and ${showDimensions(gradient!.dimensions)}`,
      );
    return { dimensions: [x!.dimensions[2]!, kernel], dtype: 'f32' };
  },
  gradient() {
    throw new Error('convolution-gradient: second derivatives are not supported');
  },
  reference([x, gradient], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [sequences, positions, width] = x!.shape as [number, number, number];
    const taps = output.shape[1]!;
    for (let b = 0; b < sequences; b++)
      for (let t = 0; t < positions; t++)
        for (let k = Math.max(0, taps - 1 - t); k < taps; k++) {
          const from = (b * positions + t - (taps - 1) + k) * width;
          const to = (b * positions + t) * width;
          for (let c = 0; c < width; c++) output.data[c * taps + k]! += x!.data[from + c]! * gradient!.data[to + c]!;
        }
    return output;
  },
  // Held against finite differences through convolution's own cases; these are for shapes and targets.
  cases: [
    { inputs: [signal, signal], attributes: { kernel: dimension('kernel', 4) }, sizes: { batch: 2, time: 7 } },
    { inputs: [signal, signal], attributes: { kernel: dimension('kernel', 4) }, sizes: { batch: 1, time: 1 } },
    { inputs: [signal, signal], attributes: { kernel: dimension('kernel', 3) }, sizes: { batch: 3, time: 2 } },
    { inputs: [signal, signal], attributes: { kernel: dimension('kernel', 1) }, sizes: { batch: 2, time: 3 } },
  ],
};
