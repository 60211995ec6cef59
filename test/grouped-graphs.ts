// What the tests of grouped products share: products of the rows that each expert gets, the gradient of their weights, and
// one matrix for each expert as for each head.
import type { Builder } from '../compiler/graph/builder.ts';
import { batch, type Dimension, dimension, time } from '../compiler/graph/dimension.ts';
import { multiplyEach } from '../compiler/ops/contract-each.ts';
import { multiplyGrouped } from '../compiler/ops/grouped.ts';
import { groupedGradient } from '../compiler/ops/grouped-gradient.ts';

export interface Shape {
  readonly experts: number;
  readonly chosen: number;
  readonly inner: number;
  readonly outer: number;
  /** The weights are [experts, outer, inner], or else [experts, inner, outer]. */
  readonly outerFirst: boolean;
  /** All slots of a row read the same left operand. */
  readonly shared: boolean;
}

/** The product of each slot, the gradient of the weights, and the product of each head. */
export function groupedNodes(builder: Builder, { experts, chosen, inner, outer, outerFirst, shared }: Shape) {
  const [e, c] = [dimension('experts', experts), dimension('chosen', chosen)];
  const [i, o] = [dimension('inner', inner), dimension('outer', outer)];
  const matrices: readonly Dimension[] = outerFirst ? [e, o, i] : [e, i, o];
  const left = builder.input('left', [batch, time, ...(shared ? [] : [c]), i]);
  const weights = builder.input('weights', matrices);
  const index = builder.input('index', [batch, time, c], 'i32');
  const each = builder.input('each', [batch, time, e, i]);
  const gradient = builder.input('gradient', [batch, time, c, o]);
  return {
    index,
    product: multiplyGrouped(builder, left, weights, index),
    ofWeights: builder.apply(groupedGradient, [left, gradient, index], { dimensions: matrices }),
    eachProduct: multiplyEach(builder, each, weights),
  };
}

/** Relative L2 distance of `actual` and the sum of `expected` and `before`; absolute where that is all zeros. */
export function distance(actual: Float64Array, expected: Float64Array, before: Float64Array | undefined): number {
  let difference = 0;
  let norm = 0;
  actual.forEach((value, n) => {
    const sum = expected[n]! + (before?.[n] ?? 0);
    difference += (value - sum) ** 2;
    norm += sum ** 2;
  });
  return Math.sqrt(difference / (norm || 1));
}
