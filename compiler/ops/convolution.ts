// convolution: each channel filtered alone along time: what a state-space block does before its scan.
// The depthwise causal convolution of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3.4).
import type { Builder } from '../graph/builder.ts';
import {
  batch,
  type Dimension,
  dimension,
  sameDimensions,
  sequences,
  showDimensions,
  time,
} from '../graph/dimension.ts';
import type { Node, Primitive, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { convolutionGradient } from './convolution-gradient.ts';
import { isPerSequence, type Piece, piecesOf } from './pieces.ts';

export interface ConvolutionAttributes {
  /** The filter reaches from each position forward instead of back: the gradient of what reaches back. */
  readonly reverse: boolean;
}

const channels = dimension('channels', 3);
const filter = (kernel: number): Type => ({ dimensions: [channels, dimension('kernel', kernel)], dtype: 'f32' });
const memory = (kernel: number): Type => ({
  dimensions: [sequences, dimension('memory', kernel - 1), channels],
  dtype: 'f32',
});
const signal: Type = { dimensions: [batch, time, channels], dtype: 'f32' };
const ends = (...values: number[]) => ({ dimensions: [sequences], dtype: 'i32', values }) as const;

export const convolution: Primitive<ConvolutionAttributes> = {
  name: 'convolution',
  doc: 'Each channel filtered alone along time: y[t] = sum of weight[k] x[t - kernel + 1 + k]; inputs x, weight and, in decoding, the positions before each text and its ends.',
  kernel: 'convolution',
  type([x, weight, state, ends], { reverse }) {
    const [, , own] = x!.dimensions as [Dimension, Dimension, Dimension];
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
        isPerSequence(ends!) &&
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
  reference([x, weight, state, ends], { reverse }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [width, taps] = weight!.shape as [number, number];
    piecesOf(x!, ends).forEach((piece, b) => {
      for (let t = 0; t < piece.count; t++)
        for (let k = 0; k < taps; k++) {
          const at = reverse ? t + taps - 1 - k : t - (taps - 1) + k;
          for (let c = 0; c < width; c++) {
            const value = seen(x!, piece, at, c) ?? stateAt(state, b, at, c);
            output.data[(piece.first + t) * width + c]! += weight!.data[c * taps + k]! * value;
          }
        }
    });
    return output;
  },
  cases: [
    { inputs: [signal, filter(4)], attributes: { reverse: false }, sizes: { batch: 2, time: 7 } },
    { inputs: [signal, filter(3)], attributes: { reverse: true }, sizes: { batch: 2, time: 5 } },
    { inputs: [signal, filter(4)], attributes: { reverse: false }, sizes: { batch: 1, time: 2 } },
    { inputs: [signal, filter(4)], attributes: { reverse: true }, sizes: { batch: 1, time: 1 } },
    { inputs: [signal, filter(1)], attributes: { reverse: false }, sizes: { batch: 2, time: 3 } },
    {
      inputs: [signal, filter(4), memory(4), ends(5, 5, 7)],
      attributes: { reverse: false },
      sizes: { batch: 1, time: 7, sequences: 3 },
      decoding: true,
    },
    {
      inputs: [signal, filter(4), memory(4), ends(1, 2, 3)],
      attributes: { reverse: false },
      sizes: { batch: 1, time: 3, sequences: 3 },
      decoding: true,
    },
  ],
};

/** x at a position of a piece: 0 after its last, null before its first, where the state is. */
function seen(x: Tensor, { first, count }: Piece, position: number, c: number): number | null {
  if (position >= count) return 0;
  return position >= 0 ? x.data[(first + position) * x.shape[2]! + c]! : null;
}

/** The state at a position below 0; 0 without one. */
function stateAt(state: Tensor | undefined, b: number, position: number, c: number): number {
  if (!state) return 0;
  const [, kept, width] = state.shape as [number, number, number];
  return state.data[((b + 1) * kept + position) * width + c]!;
}

/** The convolution of x by weight; in decoding, further inputs are the state before each text and where it ends. */
export const convolve = (builder: Builder, inputs: readonly Node[], reverse = false): Node =>
  builder.apply(convolution, inputs, { reverse });
