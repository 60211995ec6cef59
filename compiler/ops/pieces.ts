// Where each text's tokens lie in a call: what the references of decoding's primitives share.
import { sameDimensions, sequences } from '../graph/dimension.ts';
import type { Type } from '../graph/graph.ts';
import type { Tensor } from '../graph/tensor.ts';

/** Consecutive tokens of a call. */
export interface Piece {
  readonly first: number;
  readonly count: number;
}

/** Integers, one for each text that decoding goes on with. */
export const isPerSequence = ({ dimensions, dtype }: Type): boolean =>
  dtype === 'i32' && sameDimensions(dimensions, [sequences]);

/**
 * The tokens of each text, counted over all of `x`, [batch, time, ...].
 * @param ends of decoding: where each text's tokens end; without it each sequence of the batch is a text
 */
export function piecesOf(x: Tensor, ends: Tensor | undefined): Piece[] {
  const [batch, time] = x.shape as [number, number];
  if (!ends) return Array.from({ length: batch }, (_, b) => ({ first: b * time, count: time }));
  return Array.from(ends.data, (end, n) => {
    const first = n > 0 ? ends.data[n - 1]! : 0;
    return { first, count: end - first };
  });
}
