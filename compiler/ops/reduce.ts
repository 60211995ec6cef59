// reduce: the sum or the maximum over named dimensions.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, hasDimension, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { dot, forEachIndex, strides, zeros } from '../graph/tensor.ts';
import { apply, divide, multiply, operand } from '../scalar/expression.ts';
import { mapOver } from './map.ts';

export interface ReduceAttributes {
  readonly operation: 'sum' | 'max';
  readonly over: readonly string[];
}

const rows: Dimension = { name: 'rows', size: 3 };
const heads: Dimension = { name: 'heads', size: 2 };
const hidden: Dimension = { name: 'hidden', size: 4 };

export const reduce: Primitive<ReduceAttributes> = {
  name: 'reduce',
  doc: 'The sum or the maximum over named dimensions.',
  kernel: 'row',
  type([input], { over }) {
    for (const name of over)
      if (!hasDimension(input!.dimensions, name))
        throw new Error(`reduce: no dimension ${name} in ${showDimensions(input!.dimensions)}`);
    return { dimensions: input!.dimensions.filter(dim => !over.includes(dim.name)), dtype: 'f32' };
  },
  gradient({ builder, node, inputs: [input], attributes, gradient }) {
    if (attributes.operation === 'sum') return [mapOver(builder, input!.dimensions, operand(0), [gradient])];
    // The gradient goes to the greatest element; equal ones share it, as PyTorch's amax does.
    const isGreatest = mapOver(builder, input!.dimensions, apply('equal', operand(0), operand(1)), [input!, node]);
    const count = sum(builder, isGreatest, attributes.over);
    const share = multiply(operand(0), divide(operand(1), operand(2)));
    return [mapOver(builder, input!.dimensions, share, [isGreatest, gradient, count])];
  },
  reference([input], { operation, over }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    if (operation === 'max') output.data.fill(Number.NEGATIVE_INFINITY);
    const own = strides(output.shape);
    const steps = input!.names.map(name => (over.includes(name) ? 0 : own[output.names.indexOf(name)]!));
    forEachIndex(input!.shape, (index, linear) => {
      const at = dot(index, steps);
      const value = input!.data[linear]!;
      output.data[at] = operation === 'sum' ? output.data[at]! + value : Math.max(output.data[at]!, value);
    });
    return output;
  },
  cases: [
    { inputs: [{ dimensions: [rows, hidden], dtype: 'f32' }], attributes: { operation: 'sum', over: ['hidden'] } },
    {
      inputs: [{ dimensions: [rows, heads, hidden], dtype: 'f32' }],
      attributes: { operation: 'sum', over: ['rows', 'heads'] },
    },
    {
      inputs: [{ dimensions: [rows, heads, hidden], dtype: 'f32' }],
      attributes: { operation: 'max', over: ['hidden'] },
    },
  ],
};

/** The sum over named dimensions; the node itself where there are none. */
export const sum = (builder: Builder, node: Node, over: readonly string[]): Node =>
  over.length === 0 ? node : builder.suffixed('_sum', () => builder.apply(reduce, [node], { operation: 'sum', over }));

/** The maximum over named dimensions. */
export const maximum = (builder: Builder, node: Node, over: readonly string[]): Node =>
  builder.suffixed('_max', () => builder.apply(reduce, [node], { operation: 'max', over }));
