// map: a scalar expression of any number of tensors, element by element; operands broadcast by dimension name.

import type { Builder } from '../graph/builder.ts';
import {
  type Dimension,
  hasDimension,
  type Sizes,
  sameDimensions,
  showDimensions,
  within,
} from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { dot, forEachIndex, stridesAlong, type Tensor, zeros } from '../graph/tensor.ts';
import { differentiate } from '../scalar/differentiate.ts';
import { evaluator } from '../scalar/evaluate.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  coordinatesOf,
  multiply,
  operand,
  operandsOf,
  type Scalar,
  substitute,
} from '../scalar/expression.ts';
import { sum } from './reduce.ts';

export interface MapAttributes {
  readonly expression: Scalar;
  readonly dimensions: readonly Dimension[];
}

const hidden: Dimension = { name: 'hidden', size: 5 };
const rows: Dimension = { name: 'rows', size: 3 };

export const map: Primitive<MapAttributes> = {
  name: 'map',
  doc: 'A scalar expression, element by element; operands broadcast by dimension name.',
  kernel: 'row',
  type(inputs, { dimensions }) {
    for (const input of inputs)
      if (!within(input.dimensions, dimensions))
        throw new Error(
          `map: an operand has ${showDimensions(input.dimensions)}, the result ${showDimensions(dimensions)}`,
        );
    return { dimensions, dtype: 'f32' };
  },
  gradient({ builder, inputs, attributes, gradient }) {
    return inputs.map((input, index) => {
      const partial = differentiate(attributes.expression, index);
      if (input.dtype !== 'f32' || (partial.kind === 'constant' && partial.value === 0)) return null;
      const expression = multiply(operand(inputs.length), partial);
      return sumMap(builder, attributes.dimensions, expression, [...inputs, gradient], input.dimensions);
    });
  },
  reference(inputs, { expression }, result, sizes) {
    return evaluateMap(inputs, expression, result.dimensions, sizes);
  },
  cases: [
    {
      inputs: [
        { dimensions: [rows, hidden], dtype: 'f32' },
        { dimensions: [rows], dtype: 'f32', range: [0.5, 2] },
        { dimensions: [hidden], dtype: 'f32' },
      ],
      attributes: {
        expression: apply(
          'multiply',
          apply('multiply', operand(0), apply('rsqrt', operand(1))),
          apply('tanh', operand(2)),
        ),
        dimensions: [rows, hidden],
      },
    },
    {
      inputs: [{ dimensions: [rows], dtype: 'f32' }],
      attributes: {
        expression: apply(
          'select',
          apply('less', coordinate('hidden'), constant(2)),
          operand(0),
          apply('exp', operand(0)),
        ),
        dimensions: [rows, hidden],
      },
    },
  ],
};

/**
 * An order of `dims` in which the sum over all that `kept` lacks is one over leading and one over trailing dimensions: those
 * in the middle move to the end.
 */
function summable(dims: readonly Dimension[], kept: readonly Dimension[]): Dimension[] {
  const leading = leadingMissing(dims, kept);
  const rest = dims.slice(leading.length);
  const isKept = (dim: Dimension) => hasDimension(kept, dim.name);
  return [...leading, ...rest.filter(isKept), ...rest.filter(dim => !isKept(dim))];
}

/** The dimensions before the first that is kept; of a sum to a single number, those of run time: it goes over each row first. */
function leadingMissing(dims: readonly Dimension[], kept: readonly Dimension[]): readonly Dimension[] {
  const end = dims.findIndex(dim => (kept.length > 0 ? hasDimension(kept, dim.name) : dim.size !== null));
  return end < 0 ? dims : dims.slice(0, end);
}

/** The sum of a map over the dimensions that `kept` lacks. */
export function sumMap(
  builder: Builder,
  dims: readonly Dimension[],
  expression: Scalar,
  operands: readonly Node[],
  kept: readonly Dimension[],
): Node {
  const full = mapOver(builder, summable(dims, kept), expression, operands);
  const names = (list: readonly Dimension[]) => list.map(dim => dim.name);
  const leading = leadingMissing(full.dimensions, kept);
  const trailing = full.dimensions.slice(leading.length).filter(dim => !hasDimension(kept, dim.name));
  return sum(builder, sum(builder, full, names(trailing)), names(leading));
}

/** The sum over the dimensions that `kept` lacks. */
export const sumTo = (builder: Builder, node: Node, kept: readonly Dimension[]): Node =>
  sumMap(builder, node.dimensions, operand(0), [node], kept);

function evaluateMap(inputs: readonly Tensor[], expression: Scalar, dims: readonly Dimension[], sizes: Sizes): Tensor {
  const result = zeros(dims, sizes);
  const steps = inputs.map(input => stridesAlong(input, result.names));
  const value = evaluator(expression);
  const operands = inputs.map(() => 0);
  const coordinates: Record<string, number> = {};
  forEachIndex(result.shape, (index, linear) => {
    for (let n = 0; n < inputs.length; n++) operands[n] = inputs[n]!.data[dot(index, steps[n]!)]!;
    for (let axis = 0; axis < index.length; axis++) coordinates[result.names[axis]!] = index[axis]!;
    result.data[linear] = value(operands, coordinates);
  });
  return result;
}

/**
 * A map with these result dimensions. Operands that the expression does not read are dropped, equal ones merged, parts
 * that are the same for a whole row become maps of their own, and a map that only hands its operand on is the operand.
 */
export function mapOver(
  builder: Builder,
  dimensions: readonly Dimension[],
  expression: Scalar,
  operands: readonly Node[],
): Node {
  const all = [...operands];
  const hoisted = hoist(builder, dimensions, expression, all);
  const read = [...operandsOf(hoisted)].sort((a, b) => a - b);
  const kept = [...new Set(read.map(index => all[index]!))];
  const renumbered = substitute(hoisted, index => operand(kept.indexOf(all[index]!)));
  const only = kept[0];
  const isSame = renumbered.kind === 'operand' && sameDimensions(only!.dimensions, dimensions);
  // What is inline has no place of its own: a map gives it one.
  if (isSame && only!.dtype === 'f32' && only!.primitive?.kernel !== 'inline') return only!;
  return builder.apply(map, kept, { expression: renumbered, dimensions });
}

/**
 * Replaces the largest subexpressions that depend on some leading dimensions alone by operands that hold them: what is one
 * number for a row is computed, and kept for the backward pass, once a row.
 */
function hoist(builder: Builder, dimensions: readonly Dimension[], expression: Scalar, operands: Node[]): Scalar {
  if (expression.kind !== 'apply' || expression.name === 'detach') return expression;
  const used = new Set([
    ...[...operandsOf(expression)].flatMap(index => operands[index]!.dimensions.map(dim => dim.name)),
    ...coordinatesOf(expression),
  ]);
  const leading = dimensions.slice(0, used.size);
  if (used.size > 0 && used.size < dimensions.length && leading.every(dim => used.has(dim.name))) {
    const row = builder.suffixed('_factor', () => mapOver(builder, leading, expression, operands));
    return operand(operands.push(row) - 1);
  }
  return apply(expression.name, ...expression.args.map(arg => hoist(builder, dimensions, arg, operands)));
}

/** A map whose result has the dimensions of its widest operand. */
export function mapWide(builder: Builder, expression: Scalar, operands: readonly Node[]): Node {
  const widest = operands.reduce((a, b) => (b.dimensions.length > a.dimensions.length ? b : a));
  return mapOver(builder, widest.dimensions, expression, operands);
}

/** The sum of two tensors, element by element, with the dimensions of the wider one. */
export const plus = (builder: Builder, a: Node, b: Node): Node => mapWide(builder, add(operand(0), operand(1)), [a, b]);
