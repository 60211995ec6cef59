// pad: a tensor among zeros along one dimension: what a concatenation is the sum of.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, dimension, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { dot, forEachIndex, strides, zeros } from '../graph/tensor.ts';
import { sliceOf } from './slice.ts';

export interface PadAttributes {
  /** The dimension that is widened, by name. */
  readonly dimension: string;
  /** Where its first position comes to lie. */
  readonly from: number;
  /** What it becomes. */
  readonly to: Dimension;
}

const rows = dimension('rows', 2);
const headDim = dimension('head_dim', 3);

export const pad: Primitive<PadAttributes> = {
  name: 'pad',
  doc: 'A tensor among zeros along one dimension.',
  kernel: 'inline',
  type([input], { dimension: name, from, to }) {
    const dim = input!.dimensions.find(candidate => candidate.name === name);
    if (!dim?.size || from < 0 || from + dim.size > to.size!)
      throw new Error(`pad: ${name} of ${showDimensions(input!.dimensions)} at ${from} of ${to.name} ${to.size}`);
    return { dimensions: input!.dimensions.map(own => (own === dim ? to : own)), dtype: 'f32' };
  },
  gradient({ builder, inputs: [input], attributes: { dimension: name, from, to }, gradient }) {
    const whole = input!.dimensions.find(dim => dim.name === name)!;
    return [sliceOf(builder, gradient, { dimension: to.name, from, to: whole })];
  },
  reference([input], { from, to }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const own = strides(output.shape);
    const shift = from * own[output.names.indexOf(to.name)]!;
    forEachIndex(input!.shape, (index, linear) => {
      output.data[dot(index, own) + shift] = input!.data[linear]!;
    });
    return output;
  },
  cases: [
    {
      inputs: [{ dimensions: [rows, headDim], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 2, to: dimension('wide', 6) },
    },
    {
      inputs: [{ dimensions: [headDim, rows], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 0, to: dimension('head_dim', 4) },
    },
  ],
};

/** The tensor among zeros, for a map to read. */
export const padded = (builder: Builder, node: Node, attributes: PadAttributes): Node =>
  builder.apply(pad, [node], attributes);
