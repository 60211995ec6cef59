// scan: a linear recurrence whose decay depends on the input: the selective scan of a state-space block.
// h[t] = exp(delta[t] a) h[t-1] + delta[t] b[t] x[t], y[t] = sum over state of c[t] h[t]: algorithm 2 of Mamba (Gu and
// Dao 2023, arXiv:2312.00752) with a discretised by zero-order hold and b, as in its code, by Euler's rule.
import type { Builder } from '../graph/builder.ts';
import { batch, dimension, sameDimensions, sequences, showDimensions, time } from '../graph/dimension.ts';
import type { Node, Primitive, PrimitiveCase, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { isPerSequence, piecesOf } from './pieces.ts';
import { scanGradient } from './scan-gradient.ts';

export interface ScanAttributes {
  /** y of every position, or h after the last one. */
  readonly result: 'output' | 'state';
}

/** What the scan reads, in order, before what decoding hands it besides: the state to start from, and ends. */
export const scanOperands = ['x', 'delta', 'a', 'b', 'c'] as const;

const channels = dimension('channels', 3);
const state = dimension('state', 2);
const signal: Type = { dimensions: [batch, time, channels], dtype: 'f32' };
const mixing: Type = { dimensions: [batch, time, state], dtype: 'f32' };
const start: Type = { dimensions: [sequences, channels, state], dtype: 'f32' };
const ends = (...values: number[]) => ({ dimensions: [sequences], dtype: 'i32', values }) as const;
const inputs: PrimitiveCase<ScanAttributes>['inputs'] = [
  signal,
  { ...signal, range: [0.05, 1] },
  { dimensions: [channels, state], dtype: 'f32', range: [-2, -0.1] },
  mixing,
  mixing,
];

export const scan: Primitive<ScanAttributes> = {
  name: 'scan',
  doc: 'h[t] = exp(delta[t] a) h[t-1] + delta[t] b[t] x[t], and c[t] h[t] summed over state; inputs x, delta, a, b, c and, in decoding, h to start each text from and its ends.',
  kernel: 'scan',
  type([x, delta, a, b, c, begin, ends], { result }) {
    const [sequence, positions, own] = x!.dimensions;
    const perChannel = a!.dimensions[1]!;
    const last = [begin ? sequences : sequence!, own!, perChannel];
    const fits =
      x!.dimensions.length === 3 &&
      a!.dimensions.length === 2 &&
      sameDimensions(delta!.dimensions, x!.dimensions) &&
      sameDimensions(a!.dimensions, [own!, perChannel]) &&
      sameDimensions(b!.dimensions, [sequence!, positions!, perChannel]) &&
      sameDimensions(c!.dimensions, b!.dimensions) &&
      (!begin || (sameDimensions(begin.dimensions, last) && isPerSequence(ends!)));
    if (!fits)
      throw new Error(
        `scan: ${[x, delta, a, b, c, ...(begin ? [begin] : [])].map(input => showDimensions(input!.dimensions)).join(', ')}`,
      );
    return { dimensions: result === 'output' ? x!.dimensions : last, dtype: 'f32' };
  },
  gradient({ builder, node, inputs: operands, attributes, gradient }) {
    if (operands.length > scanOperands.length || attributes.result === 'state')
      throw new Error('scan: decoding is not differentiated');
    return scanOperands.map(of =>
      builder.within(`scan_${of}_gradient`, node.origin, () =>
        builder.apply(scanGradient, [...operands, gradient], { of }),
      ),
    );
  },
  reference(tensors, attributes, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [, , a, , c, begin] = tensors as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | undefined];
    const [width, states] = a.shape as [number, number];
    // A text without new tokens keeps its state.
    if (attributes.result === 'state' && begin) output.data.set(begin.data);
    forEachStep(tensors, ({ b, place, channel, s, after }) => {
      if (attributes.result === 'output') output.data[place * width + channel]! += c.data[place * states + s]! * after;
      else output.data[(b * width + channel) * states + s] = after;
    });
    return output;
  },
  cases: [
    { inputs, attributes: { result: 'output' }, sizes: { batch: 2, time: 5 } },
    { inputs, attributes: { result: 'output' }, sizes: { batch: 1, time: 1 } },
    { inputs, attributes: { result: 'state' }, sizes: { batch: 2, time: 3 }, decoding: true },
    ...(['output', 'state'] as const).flatMap(result => [
      {
        inputs: [...inputs, start, ends(4, 4, 5)],
        attributes: { result },
        sizes: { batch: 1, time: 5, sequences: 3 },
        decoding: true,
      },
      {
        inputs: [...inputs, start, ends(1, 2)],
        attributes: { result },
        sizes: { batch: 1, time: 2, sequences: 2 },
        decoding: true,
      },
    ]),
  ],
};

export interface ScanStep {
  /** Number of the text. */
  readonly b: number;
  /** Of the token, among those of all texts. */
  readonly place: number;
  readonly channel: number;
  readonly s: number;
  /** exp(delta a), h before the position and h after it. */
  readonly decay: number;
  readonly before: number;
  readonly after: number;
}

/** Visits every number of state at every position, each one's positions in order. */
export function forEachStep(tensors: readonly Tensor[], visit: (step: ScanStep) => void): void {
  const [x, delta, a, input, , begin, ends] = tensors as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor?, Tensor?];
  const [width, states] = a.shape as [number, number];
  piecesOf(x, ends).forEach(({ first, count }, b) => {
    for (let channel = 0; channel < width; channel++)
      for (let s = 0; s < states; s++) {
        let h = begin?.data[(b * width + channel) * states + s] ?? 0;
        for (let place = first; place < first + count; place++) {
          const step = delta.data[place * width + channel]!;
          const decay = Math.exp(step * a.data[channel * states + s]!);
          const before = h;
          h = decay * before + step * input.data[place * states + s]! * x.data[place * width + channel]!;
          visit({ b, place, channel, s, decay, before, after: h });
        }
      }
  });
}

/** The scan's output at every position; inputs x, delta, a, b, c and, in decoding, each text's state and its end. */
export const scanned = (builder: Builder, operands: readonly Node[]): Node =>
  builder.apply(scan, operands, { result: 'output' });

/** The state that the same scan leaves after the last position. */
export const scanState = (builder: Builder, operands: readonly Node[]): Node =>
  builder.apply(scan, operands, { result: 'state' });
