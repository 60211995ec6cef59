// convolution: each channel filtered alone along time: what a state-space block does before its scan.
// The depthwise causal convolution of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3.4).
import type { Builder } from '../graph/builder.ts';
import { batch, type Dimension, dimension, sameDimensions, showDimensions, time } from '../graph/dimension.ts';
import type { Node, Primitive, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { convolutionGradient } from './convolution-gradient.ts';

export interface ConvolutionAttributes {
  /** The filter reaches from each position forward instead of back: the gradient of what reaches back. */
  readonly reverse: boolean;
}

const channels = dimension('channels', 3);
const filter = (kernel: number): Type => ({ dimensions: [channels, dimension('kernel', kernel)], dtype: 'f32' });
const memory = (kernel: number): Type => ({
  dimensions: [batch, dimension('memory', kernel - 1), channels],
  dtype: 'f32',
});
const signal: Type = { dimensions: [batch, time, channels], dtype: 'f32' };

export const convolution: Primitive<ConvolutionAttributes> = {
  name: 'convolution',
  doc: 'Each channel filtered alone along time: y[t] = sum of weight[k] x[t - kernel + 1 + k]; inputs x, weight and, in decoding, the positions before x.',
  kernel: 'convolution',
  type([x, weight, state], { reverse }) {
    const [sequences, , own] = x!.dimensions as [Dimension, Dimension, Dimension];
    const [filters, kernel] = weight!.dimensions as [Dimension, Dimension];
    const fitsWeight =
      x!.dimensions.length === 3 &&
      weight!.dimensions.length === 2 &&
      sameDimensions([own], [filters]) &&
      kernel.size !== null;
    const fitsState =
      !state ||
      (sameDimensions([sequences, own], [state.dimensions[0]!, state.dimensions[2]!]) &&
        state.dimensions[1]!.size === kernel.size! - 1 &&
        !reverse);
    if (!fitsWeight || !fitsState)
      throw new Error(
        `convolution${reverse ? ', reversed' : ''}: ${[x, weight, ...(state ? [state] : [])].map(input => showDimensions(input!.dimensions)).join(', ')}`,
      );
    return { dimensions: x!.dimensions, dtype: 'f32' };
  },
  gradient({ builder, inputs: [x, weight, state], attributes: { reverse }, gradient }) {
    if (state) throw new Error('convolution: decoding is not differentiated');
    // Reaching forward, a gradient plays the part that x plays reaching back.
    const signals = reverse ? [gradient, x!] : [x!, gradient];
    return [
      convolve(builder, [gradient, weight!], !reverse),
      builder.apply(convolutionGradient, signals, { kernel: weight!.dimensions[1]! }),
    ];
  },
  reference([x, weight, state], { reverse }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [sequences, positions, width] = x!.shape as [number, number, number];
    const taps = weight!.shape[1]!;
    for (let b = 0; b < sequences; b++)
      for (let t = 0; t < positions; t++)
        for (let k = 0; k < taps; k++) {
          const at = reverse ? t + taps - 1 - k : t - (taps - 1) + k;
          for (let c = 0; c < width; c++)
            output.data[(b * positions + t) * width + c]! += weight!.data[c * taps + k]! * seen(x!, state, b, at, c);
        }
    return output;
  },
  cases: [
    { inputs: [signal, filter(4)], attributes: { reverse: false }, sizes: { batch: 2, time: 7 } },
    { inputs: [signal, filter(3)], attributes: { reverse: true }, sizes: { batch: 2, time: 5 } },
    { inputs: [signal, filter(4)], attributes: { reverse: false }, sizes: { batch: 1, time: 2 } },
    { inputs: [signal, filter(4)], attributes: { reverse: true }, sizes: { batch: 1, time: 1 } },
    { inputs: [signal, filter(1)], attributes: { reverse: false }, sizes: { batch: 2, time: 3 } },
    {
      inputs: [signal, filter(4), memory(4)],
      attributes: { reverse: false },
      sizes: { batch: 2, time: 5 },
      decoding: true,
    },
    {
      inputs: [signal, filter(4), memory(4)],
      attributes: { reverse: false },
      sizes: { batch: 3, time: 1 },
      decoding: true,
    },
  ],
};

/** x at a position, which may lie before the first, where the state is, or where nothing is: 0 there. */
function seen(x: Tensor, state: Tensor | undefined, b: number, position: number, c: number): number {
  const [, positions, width] = x.shape as [number, number, number];
  if (position >= positions) return 0;
  if (position >= 0) return x.data[(b * positions + position) * width + c]!;
  if (!state) return 0;
  const kept = state.shape[1]!;
  return state.data[(b * kept + kept + position) * width + c]!;
}

/** The convolution of x by weight; with a third input, the state that lies before x. */
export const convolve = (builder: Builder, inputs: readonly Node[], reverse = false): Node =>
  builder.apply(convolution, inputs, { reverse });
