// attention: softmax(score(scale q kᵀ)) v under a mask, with grouped queries, and the log-sum-exp of its scores.
// Vaswani et al. 2017; log-sum-exp for the backward pass as in FlashAttention (Dao et al. 2022); scores and masks as
// formulas of the pair, evaluated inside the kernel, as in FlexAttention (Dong et al. 2024).
import type { Builder } from '../graph/builder.ts';
import { batch, dimension, hasDimension, showDimensions, time } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
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
  show,
  subtract,
} from '../scalar/expression.ts';
import { attentionGradient } from './attention-gradient.ts';
import { mapOver } from './map.ts';
import { sum } from './reduce.ts';

export interface AttentionShape {
  readonly scale: number;
  /** A query at p sees no key after p. False where there is a mask, which says it all. */
  readonly causal: boolean;
  /** A query at p sees no key before p - window + 1; 0 for all. With a mask, both must let it see the key. */
  readonly window: number;
  /** What the softmax takes in place of the scaled score, which is operand 0; null for that itself. */
  readonly score: Scalar | null;
  /** Whether a query sees a key. One that sees none gets zeros. Null for no more than `causal` and `window`. */
  readonly mask: Scalar | null;
}

/** Coordinates that scores and masks may read: positions of the query and of the key in the text, and the query's head. */
export const pairCoordinates = ['query', 'key', 'head'] as const;

/** d score / d scaled score; null for 1. */
export function scoreSlope({ score }: AttentionShape): Scalar | null {
  if (score === null) return null;
  const slope = differentiate(score, 0);
  return slope.kind === 'constant' && slope.value === 1 ? null : slope;
}

export interface AttentionAttributes extends AttentionShape {
  /** The weighted values, or the log of the sum of exponentials of each query's scores. */
  readonly result: 'output' | 'log_sum_exp';
}

const heads = dimension('heads', 4);
const kvHeads = dimension('kv_heads', 2);
const headDim = dimension('head_dim', 3);
const caseInputs = [
  { dimensions: [batch, time, heads, headDim], dtype: 'f32' },
  { dimensions: [batch, time, kvHeads, headDim], dtype: 'f32' },
  { dimensions: [batch, time, kvHeads, headDim], dtype: 'f32' },
] as const;

const [queryPosition, keyPosition, head] = pairCoordinates.map(coordinate) as [Scalar, Scalar, Scalar];
const distance = subtract(queryPosition, keyPosition);
/** 2 tanh((s - 0.3 (head + 1) (query - key)) / 2): what depends on everything that a score may read. */
const caseScore = multiply(
  constant(2),
  apply(
    'tanh',
    multiply(constant(0.5), subtract(operand(0), multiply(multiply(constant(0.3), add(head, constant(1))), distance))),
  ),
);
/** The past and, for the first heads, key 2. */
const caseMask = apply(
  'or',
  apply('lessEqual', keyPosition, queryPosition),
  apply('and', apply('equal', keyPosition, constant(2)), apply('less', head, constant(2))),
);

export const attention: Primitive<AttentionAttributes> = {
  name: 'attention',
  doc: 'softmax(score(scale q kᵀ)) v over the keys that the mask lets each query see; inputs q, k, v and, with a cache, start.',
  kernel: 'attention',
  type([query, key, value, start], { result, causal, score, mask }) {
    const [, , queryHeads, queryDim] = query!.dimensions;
    const [, , keyHeads, keyDim] = key!.dimensions;
    const fits = queryDim?.size === keyDim?.size && (queryHeads?.size ?? 0) % (keyHeads?.size ?? 1) === 0;
    const cached = hasDimension(key!.dimensions, 'context');
    if (!fits || value!.dimensions.length !== 4 || cached !== (start !== undefined))
      throw new Error(
        `attention: ${[query, key, value].map(input => showDimensions(input!.dimensions)).join(', ')}${start ? ', start' : ''}`,
      );
    if (causal && mask) throw new Error('attention: a mask takes the place of `causal`');
    for (const [expression, operands] of [
      [score, 1],
      [mask, 0],
    ] as const)
      if (expression && !readsOnly(expression, operands))
        throw new Error(`attention: a score or mask reads more than it is given: ${show(expression)}`);
    return { dimensions: result === 'output' ? query!.dimensions : query!.dimensions.slice(0, 3), dtype: 'f32' };
  },
  gradient({ builder, node, inputs: [query, key, value, start], attributes: { result, ...shape }, gradient }) {
    if (start || result !== 'output')
      throw new Error('attention: only the output of attention without a cache is differentiated');
    const called = <T>(label: string, build: () => T): T => builder.within(label, node.origin, build);
    const logSumExp = called('log_sum_exp', () =>
      builder.apply(attention, [query!, key!, value!], { ...shape, result: 'log_sum_exp' }),
    );
    // delta = sum over head_dim of output * gradient: the softmax gradient's row term (FlashAttention-2, Dao 2023).
    const delta = called('delta', () => {
      const product = mapOver(builder, node.dimensions, multiply(operand(0), operand(1)), [node, gradient]);
      return sum(builder, product, ['head_dim']);
    });
    const inputs = [query!, key!, value!, logSumExp, gradient, delta];
    return (['query', 'key', 'value'] as const).map(of =>
      called(`attention_${of}_gradient`, () => builder.apply(attentionGradient, inputs, { ...shape, of })),
    );
  },
  reference([query, key, value, start], attributes, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const width = query!.shape[3]!;
    forEachRow(query!, key!, start?.data[0] ?? 0, attributes, row => {
      if (attributes.result === 'log_sum_exp') {
        output.data[row.place] = row.logSumExp;
        return;
      }
      row.probabilities.forEach((probability, n) => {
        for (let d = 0; d < width; d++) output.data[row.query + d]! += probability * value!.data[row.keys[n]! + d]!;
      });
    });
    return output;
  },
  cases: [
    {
      inputs: [...caseInputs],
      attributes: { scale: 0.7, causal: true, window: 0, score: null, mask: null, result: 'output' },
      sizes: { batch: 2, time: 4 },
    },
    {
      inputs: [...caseInputs],
      attributes: { scale: 0.5, causal: true, window: 2, score: null, mask: null, result: 'output' },
      sizes: { batch: 1, time: 5 },
    },
    {
      inputs: [...caseInputs],
      attributes: { scale: 0.5, causal: false, window: 0, score: null, mask: null, result: 'output' },
      sizes: { batch: 1, time: 3 },
    },
    {
      inputs: [...caseInputs],
      attributes: { scale: 0.8, causal: false, window: 3, score: caseScore, mask: caseMask, result: 'output' },
      sizes: { batch: 2, time: 5 },
    },
    // The first query sees nothing.
    {
      inputs: [...caseInputs],
      attributes: {
        scale: 0.8,
        causal: false,
        window: 0,
        score: null,
        mask: apply('less', keyPosition, queryPosition),
        result: 'output',
      },
      sizes: { batch: 1, time: 3 },
    },
  ],
};

function readsOnly(expression: Scalar, operands: number): boolean {
  const known: readonly string[] = pairCoordinates;
  return (
    [...operandsOf(expression)].every(index => index < operands) &&
    [...coordinatesOf(expression)].every(name => known.includes(name))
  );
}

export interface AttentionRow {
  /** Index of (batch, time, head). */
  readonly place: number;
  /** Where this query's vector begins. */
  readonly query: number;
  /** Where each visible key's (and value's) vector begins, and its probability. */
  readonly keys: readonly number[];
  readonly probabilities: readonly number[];
  /** d score / d scaled score of each. */
  readonly slopes: readonly number[];
  readonly logSumExp: number;
}

/** Visits each query with the keys that it sees: what the references of attention and of its gradient share. */
export function forEachRow(
  query: Tensor,
  key: Tensor,
  start: number,
  shape: AttentionShape,
  visit: (row: AttentionRow) => void,
): void {
  const { scale, causal, window } = shape;
  const scoreOf = evaluator(shape.score ?? operand(0));
  const slopeOf = evaluator(scoreSlope(shape) ?? constant(1));
  const sees = evaluator(shape.mask ?? constant(1));
  const [sequences, queries, headCount, width] = query.shape as [number, number, number, number];
  const [, contextSize, kvHeadCount] = key.shape as [number, number, number];
  // A cache holds room for positions that are not written yet.
  const filled = hasName(key, 'context') ? start + queries : contextSize;
  const group = headCount / kvHeadCount;
  for (let sequence = 0; sequence < sequences; sequence++)
    for (let t = 0; t < queries; t++)
      for (let head = 0; head < headCount; head++) {
        const place = (sequence * queries + t) * headCount + head;
        const position = start + t;
        const keys: number[] = [];
        const scores: number[] = [];
        const slopes: number[] = [];
        for (let s = 0; s < filled; s++) {
          const pair = { query: position, key: s, head };
          if ((causal && s > position) || (window > 0 && position - s >= window) || sees([], pair) === 0) continue;
          const at = ((sequence * contextSize + s) * kvHeadCount + Math.floor(head / group)) * width;
          let product = 0;
          for (let d = 0; d < width; d++) product += query.data[place * width + d]! * key.data[at + d]!;
          keys.push(at);
          scores.push(scoreOf([scale * product], pair));
          slopes.push(slopeOf([scale * product], pair));
        }
        const greatest = Math.max(...scores);
        const total = scores.reduce((sumSoFar, score) => sumSoFar + Math.exp(score - greatest), 0);
        const probabilities = scores.map(score => Math.exp(score - greatest) / total);
        visit({ place, query: place * width, keys, probabilities, slopes, logSumExp: greatest + Math.log(total) });
      }
}

const hasName = (tensor: Tensor, name: string) => tensor.names.includes(name);

/** Attention over q, k, v; with `start`, k and v are caches of which start + time positions are filled. */
export const attend = (builder: Builder, inputs: readonly Node[], shape: AttentionShape): Node =>
  builder.apply(attention, inputs, { ...shape, result: 'output' });
