// attention-gradient: the gradient of attention with respect to its query, key, value or slopes.
// With P the probabilities, K what dropout multiplies them by and dP = K (dO vᵀ): dv = (K P)ᵀ dO, dS = P (dP - delta),
// dq = scale (f' dS) k, dk = scale (f' dS)ᵀ q, f' being the derivative of the score by the scaled product, 1 where it
// is that; the gradient of a head's slope is the sum of dS times the derivative of the score by it
// (FlashAttention-2, Dao 2023, algorithm 2).
import { batch, dimension, time } from '../graph/dimension.ts';
import type { Primitive, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { coordinate, multiply, operand, subtract } from '../scalar/expression.ts';
import { type AttentionShape, extraInputs } from './attention.ts';
import { forEachRow } from './attention-rows.ts';

export interface AttentionGradientAttributes extends AttentionShape {
  /** The slopes' is [batch, heads]: each sequence's part of it. */
  readonly of: 'query' | 'key' | 'value' | 'slope';
}

const heads = dimension('heads', 2);
const headDim = dimension('head_dim', 2);
const vectors: Type = { dimensions: [batch, time, heads, headDim], dtype: 'f32' };
const perQuery: Type = { dimensions: [batch, time, heads], dtype: 'f32' };
const inputs = [vectors, vectors, vectors, perQuery, vectors, perQuery];
const usual = { scale: 0.5, causal: true, window: 0, mask: null, value_dim: 2, dropout: 0 } as const;

export const attentionGradient: Primitive<AttentionGradientAttributes> = {
  name: 'attention-gradient',
  doc: 'The gradient of attention by q, k, v or slopes; inputs q, k, v, log-sum-exp, output gradient, delta and extras.',
  kernel: 'attention-gradient',
  type([query, key, value], { of }) {
    const [sequences, , queryHeads] = query!.dimensions;
    const dimensions = {
      query: query!.dimensions,
      key: key!.dimensions,
      value: value!.dimensions,
      slope: [sequences!, queryHeads!],
    };
    return { dimensions: dimensions[of], dtype: 'f32' };
  },
  gradient() {
    throw new Error('attention-gradient: second derivatives are not supported');
  },
  reference(tensors, attributes, result, sizes) {
    const [query, key, value, logSumExp, outputGradient, delta, ...further] = tensors as [
      ...[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
      ...Tensor[],
    ];
    const output: Tensor = zeros(result.dimensions, sizes);
    const { value_dim: valueDim, scale, extras, of } = attributes;
    const [, positions, headCount, width] = query.shape as [number, number, number, number];
    const stored = value.shape[3]!;
    forEachRow(query, key, extraInputs(further, extras), attributes, ({ place, pairs }) => {
      for (const { source, score, byProduct, bySlope, kept } of pairs) {
        const probability = Math.exp(score - logSumExp.data[place]!);
        let product = 0;
        for (let d = 0; d < valueDim; d++)
          product += outputGradient.data[place * valueDim + d]! * value.data[source * stored + d]!;
        const scoreGradient = probability * (kept * product - delta.data[place]!);
        const productGradient = scale * byProduct * scoreGradient;
        if (of === 'query')
          for (let d = 0; d < width; d++)
            output.data[place * width + d]! += productGradient * key.data[source * width + d]!;
        if (of === 'key')
          for (let d = 0; d < width; d++)
            output.data[source * width + d]! += productGradient * query.data[place * width + d]!;
        if (of === 'value')
          for (let d = 0; d < valueDim; d++)
            output.data[source * stored + d]! += kept * probability * outputGradient.data[place * valueDim + d]!;
        if (of === 'slope') {
          const sequence = Math.floor(place / (positions * headCount));
          output.data[sequence * headCount + (place % headCount)]! += bySlope * scoreGradient;
        }
      }
    });
    return output;
  },
  // Held against finite differences through attention's own cases; these are for shapes and targets.
  cases: [
    { inputs, attributes: { ...usual, score: null, extras: [], of: 'key' }, sizes: { batch: 1, time: 3 } },
    {
      inputs: [...inputs, { dimensions: [heads], dtype: 'f32' }],
      attributes: {
        ...usual,
        score: subtract(operand(0), multiply(operand(1), subtract(coordinate('query'), coordinate('key')))),
        extras: ['slopes'],
        of: 'slope',
      },
      sizes: { batch: 2, time: 3 },
    },
  ],
};
