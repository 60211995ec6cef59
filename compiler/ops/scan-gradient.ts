// scan-gradient: the gradient of scan with respect to one of its operands.
// With g[t] = c[t] dy[t] + exp(delta[t+1] a) g[t+1] the gradient of h[t], and p[t] = g[t] exp(delta[t] a) h[t-1] that of
// delta[t] a: dx = delta sum(g b), ddelta = sum(p a + g b x) over state; da = sum of p delta over sequences and positions;
// db = sum(g delta x), dc = sum(dy h) over channels.
import { batch, dimension, time } from '../graph/dimension.ts';
import type { Primitive, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { forEachStep, type ScanStep, scanOperands } from './scan.ts';

export interface ScanGradientAttributes {
  readonly of: (typeof scanOperands)[number];
}

const channels = dimension('channels', 3);
const state = dimension('state', 2);
const signal: Type = { dimensions: [batch, time, channels], dtype: 'f32' };
const mixing: Type = { dimensions: [batch, time, state], dtype: 'f32' };
const cases = (['x', 'delta', 'a', 'b', 'c'] as const).map((of, n) => ({
  inputs: [
    signal,
    { ...signal, range: [0.05, 1] as [number, number] },
    { dimensions: [channels, state], dtype: 'f32', range: [-2, -0.1] as [number, number] } as const,
    mixing,
    mixing,
    signal,
  ],
  attributes: { of },
  sizes: { batch: 2, time: 1 + n },
}));

export const scanGradient: Primitive<ScanGradientAttributes> = {
  name: 'scan-gradient',
  doc: 'The gradient of scan with respect to x, delta, a, b or c; inputs those and the output gradient.',
  kernel: 'scan-gradient',
  type: (inputs, { of }) => ({ dimensions: inputs[scanOperands.indexOf(of)]!.dimensions, dtype: 'f32' }),
  gradient() {
    throw new Error('scan-gradient: second derivatives are not supported');
  },
  reference(tensors, { of }, result, sizes) {
    const [x, delta, a, input, c, gradient] = tensors as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
    const output = zeros(result.dimensions, sizes);
    const [, positions, width] = x.shape as [number, number, number];
    const states = a.shape[1]!;
    let carried = 0;
    for (const { place, channel, s, decay, before, after } of stepsBackward(tensors.slice(0, 5))) {
      const [signalAt, mixingAt, rateAt] = [place * width + channel, place * states + s, channel * states + s];
      const outputGradient = gradient.data[signalAt]!;
      if ((place + 1) % positions === 0) carried = 0;
      const slope = c.data[mixingAt]! * outputGradient + carried;
      carried = decay * slope;
      const exponentSlope = slope * decay * before;
      const drive = slope * input.data[mixingAt]!;
      if (of === 'x') output.data[signalAt]! += delta.data[signalAt]! * drive;
      if (of === 'delta') output.data[signalAt]! += exponentSlope * a.data[rateAt]! + drive * x.data[signalAt]!;
      if (of === 'a') output.data[rateAt]! += exponentSlope * delta.data[signalAt]!;
      if (of === 'b') output.data[mixingAt]! += slope * delta.data[signalAt]! * x.data[signalAt]!;
      if (of === 'c') output.data[mixingAt]! += outputGradient * after;
    }
    return output;
  },
  // Held against finite differences through scan's own cases; these are for shapes and targets.
  cases,
};

/** The steps of a scan, each number of state's from the last position to the first. */
function stepsBackward(tensors: readonly Tensor[]): ScanStep[] {
  const steps: ScanStep[] = [];
  forEachStep(tensors, step => steps.push(step));
  return steps.reverse();
}
