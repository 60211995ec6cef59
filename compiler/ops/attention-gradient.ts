// attention-gradient: the gradient of attention with respect to its query, key or value.
// With P the probabilities and dP = dO vᵀ: dv = Pᵀ dO, dS = slope P (dP - delta), dq = scale dS k, dk = scale dSᵀ q,
// slope being the derivative of the score by the scaled product, 1 where it is that
// (FlashAttention-2, Dao 2023, algorithm 2).
import { batch, dimension, time } from '../graph/dimension.ts';
import type { Primitive } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { type AttentionShape, forEachRow } from './attention.ts';

export interface AttentionGradientAttributes extends AttentionShape {
  readonly of: 'query' | 'key' | 'value';
}

const heads = dimension('heads', 2);
const headDim = dimension('head_dim', 2);
const vectors = { dimensions: [batch, time, heads, headDim], dtype: 'f32' } as const;
const perQuery = { dimensions: [batch, time, heads], dtype: 'f32' } as const;

export const attentionGradient: Primitive<AttentionGradientAttributes> = {
  name: 'attention-gradient',
  doc: 'The gradient of attention with respect to q, k or v; inputs q, k, v, log-sum-exp, output gradient, delta.',
  kernel: 'attention-gradient',
  type: ([query, key], { of }) => ({ dimensions: of === 'query' ? query!.dimensions : key!.dimensions, dtype: 'f32' }),
  gradient() {
    throw new Error('attention-gradient: second derivatives are not supported');
  },
  reference([query, key, value, , outputGradient, delta], attributes, result, sizes) {
    const output: Tensor = zeros(result.dimensions, sizes);
    const width = query!.shape[3]!;
    forEachRow(query!, key!, 0, attributes, row => {
      row.keys.forEach((at, n) => {
        const probability = row.probabilities[n]!;
        let probabilityGradient = 0;
        for (let d = 0; d < width; d++)
          probabilityGradient += outputGradient!.data[row.query + d]! * value!.data[at + d]!;
        const scoreGradient =
          attributes.scale * row.slopes[n]! * probability * (probabilityGradient - delta!.data[row.place]!);
        for (let d = 0; d < width; d++) {
          if (attributes.of === 'query') output.data[row.query + d]! += scoreGradient * key!.data[at + d]!;
          if (attributes.of === 'key') output.data[at + d]! += scoreGradient * query!.data[row.query + d]!;
          if (attributes.of === 'value') output.data[at + d]! += probability * outputGradient!.data[row.query + d]!;
        }
      });
    });
    return output;
  },
  // Held against finite differences through attention's own cases; this one is for shapes and targets.
  cases: [
    {
      inputs: [vectors, vectors, vectors, perQuery, vectors, perQuery],
      attributes: { scale: 0.5, causal: true, window: 0, score: null, mask: null, of: 'key' },
      sizes: { batch: 1, time: 3 },
    },
  ],
};
