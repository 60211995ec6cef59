// map: a scalar expression of any number of tensors, element by element; operands broadcast by dimension name.

import type { Builder } from '../graph/builder.ts';
import { type Dimension, hasDimension, type Sizes, showDimensions, within } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { dot, forEachIndex, stridesAlong, type Tensor, zeros } from '../graph/tensor.ts';
import { differentiate } from '../scalar/differentiate.ts';
import { evaluator } from '../scalar/evaluate.ts';
import {
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
      const full = mapOver(builder, attributes.dimensions, multiply(operand(inputs.length), partial), [
        ...inputs,
        gradient,
      ]);
      return sumTo(builder, full, input.dimensions);
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

/** The sum over the dimensions that `kept` lacks. A sum to a single number goes over each row first. */
function sumTo(builder: Builder, node: Node, kept: readonly Dimension[]): Node {
  const missing = node.dimensions.filter(dim => !hasDimension(kept, dim.name)).map(dim => dim.name);
  const fixed = node.dimensions.filter(dim => dim.size !== null).map(dim => dim.name);
  if (kept.length > 0 || fixed.length === missing.length || fixed.length === 0) return sum(builder, node, missing);
  const rows = sum(builder, node, fixed);
  return sum(
    builder,
    rows,
    missing.filter(name => !fixed.includes(name)),
  );
}

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
  if (renumbered.kind === 'operand' && only!.dimensions.length === dimensions.length && only!.dtype === 'f32')
    return only!;
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
