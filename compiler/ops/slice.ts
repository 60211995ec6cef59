// slice: a run of positions along one dimension: the gradient of pad.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, dimension, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { dot, forEachIndex, strides, zeros } from '../graph/tensor.ts';
import { operand } from '../scalar/expression.ts';
import { mapOver } from './map.ts';
import { padded } from './pad.ts';

export interface SliceAttributes {
  /** The dimension that is cut, by name. */
  readonly dimension: string;
  /** The first position that is kept. */
  readonly from: number;
  /** What is left of it, whose size says how many positions are kept. */
  readonly to: Dimension;
}

const rows = dimension('rows', 2);
const headDim = dimension('head_dim', 6);

export const slice: Primitive<SliceAttributes> = {
  name: 'slice',
  doc: 'A run of positions along one dimension.',
  kernel: 'inline',
  type([input], { dimension: name, from, to }) {
    const dim = input!.dimensions.find(candidate => candidate.name === name);
    if (!dim?.size || from < 0 || from + to.size! > dim.size)
      throw new Error(`slice: ${to.size} from ${from} on of ${name} in ${showDimensions(input!.dimensions)}`);
    return { dimensions: input!.dimensions.map(own => (own === dim ? to : own)), dtype: 'f32' };
  },
  gradient({ builder, inputs: [input], attributes: { dimension: name, from, to }, gradient }) {
    const whole = input!.dimensions.find(dim => dim.name === name)!;
    const among = padded(builder, gradient, { dimension: to.name, from, to: whole });
    return [mapOver(builder, input!.dimensions, operand(0), [among])];
  },
  reference([input], { dimension: name, from }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const own = strides(input!.shape);
    const shift = from * own[input!.names.indexOf(name)]!;
    forEachIndex(output.shape, (index, linear) => {
      output.data[linear] = input!.data[dot(index, own) + shift]!;
    });
    return output;
  },
  cases: [
    {
      inputs: [{ dimensions: [rows, headDim], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 2, to: dimension('part', 3) },
    },
    {
      inputs: [{ dimensions: [headDim, rows], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 0, to: dimension('head_dim', 2) },
    },
  ],
};

/** The run of positions, as a tensor of its own. */
export function sliceOf(builder: Builder, node: Node, attributes: SliceAttributes): Node {
  const cut = builder.apply(slice, [node], attributes);
  return mapOver(builder, cut.dimensions, operand(0), [cut]);
}
