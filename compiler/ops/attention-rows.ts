// Walks over attention's queries and the keys that each sees, in float64: what the references of attention and of its
// gradient share.
import type { Tensor } from '../graph/tensor.ts';
import { evaluator } from '../scalar/evaluate.ts';
import { constant, operand } from '../scalar/expression.ts';
import { uniform } from '../scalar/philox.ts';
import { type AttentionShape, dropoutSite, type ExtraInputs, scoreDerivative } from './attention.ts';
import { piecesOf } from './pieces.ts';

/** A query and one of the keys that it sees. */
export interface AttentionPair {
  /** Index of the key's (batch, position, kv_head). */
  readonly source: number;
  /** What the softmax takes. */
  readonly score: number;
  /** Derivatives of the score by the scaled product and by the head's slope. */
  readonly byProduct: number;
  readonly bySlope: number;
  /** What dropout multiplies the pair's probability by. */
  readonly kept: number;
}

export interface AttentionRow {
  /** Index of the query's (batch, time, head). */
  readonly place: number;
  readonly pairs: readonly AttentionPair[];
  /** Of the pairs' scores and, where there are sinks, the head's sink. */
  readonly logSumExp: number;
}

/** Visits each query head with the keys that it sees. */
export function forEachRow(
  query: Tensor,
  key: Tensor,
  extras: ExtraInputs<Tensor>,
  shape: AttentionShape,
  visit: (row: AttentionRow) => void,
): void {
  const { scale, causal, window, dropout } = shape;
  const { starts, ends, sinks, slopes, noise, training, documents } = extras;
  const scoreOf = evaluator(shape.score ?? operand(0));
  const byProductOf = evaluator(scoreDerivative(shape, 'product'));
  const bySlopeOf = evaluator(scoreDerivative(shape, 'slope'));
  const sees = evaluator(shape.mask ?? constant(1));
  const drops = training !== undefined && training.data[0] !== 0;
  const [, , headCount, width] = query.shape as [number, number, number, number];
  const [, contextSize, kvHeadCount] = key.shape as [number, number, number];
  const group = headCount / kvHeadCount;
  piecesOf(query, ends).forEach(({ first, count }, sequence) => {
    const start = starts?.data[sequence] ?? 0;
    // A cache holds room for positions that are not written yet.
    const filled = start + count;
    for (let t = 0; t < count; t++)
      for (let head = 0; head < headCount; head++) {
        const place = (first + t) * headCount + head;
        const position = start + t;
        const pairs: AttentionPair[] = [];
        const bounds = 2 * (first + t);
        const [from, to] = documents ? [documents.data[bounds]!, documents.data[bounds + 1]!] : [0, filled];
        for (let s = from; s < to; s++) {
          const at = { query: position, key: s, head };
          if ((causal && s > position) || (window > 0 && position - s >= window) || sees([], at) === 0) continue;
          const source = (sequence * contextSize + s) * kvHeadCount + Math.floor(head / group);
          let product = 0;
          for (let d = 0; d < width; d++) product += query.data[place * width + d]! * key.data[source * width + d]!;
          const operands = [scale * product, slopes?.data[head] ?? 0];
          const isDropped = drops && uniform(noise!.data, sequence, dropoutSite + head, s, position) < dropout;
          pairs.push({
            source,
            score: scoreOf(operands, at),
            byProduct: byProductOf(operands, at),
            bySlope: bySlopeOf(operands, at),
            kept: isDropped ? 0 : drops ? 1 / (1 - dropout) : 1,
          });
        }
        const logits = [...pairs.map(({ score }) => score), ...(sinks ? [sinks.data[head]!] : [])];
        const greatest = Math.max(...logits);
        const total = logits.reduce((sum, logit) => sum + Math.exp(logit - greatest), 0);
        visit({ place, pairs, logSumExp: greatest + Math.log(total) });
      }
  });
}
