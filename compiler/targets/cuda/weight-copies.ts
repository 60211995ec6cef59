// Copies of weights in bfloat16, which products of bfloat16 read instead of the float32 values: in the same order, in rows
// that begin at multiples of 16 bytes, so that asynchronous copies bring whole pieces of them to shared memory. The pass of
// the update that changes a weight writes its copy, as does whatever else changes weights (templates/cuda/optimizer.h).
import { constantCount, type Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';

/** There is one form of a copy: products read it along its rows or across them. */
export const ways = ['copy'] as const;

/** A copy as a product reads it: a matrix of padded rows. */
export interface WeightCopy {
  /** The parameter's name in its stage. */
  readonly parameter: string;
  readonly way: 'copy';
  readonly rows: number;
  /** Elements from row to row: those of a row, and zeros up to a multiple of 8. */
  readonly stride: number;
}

/** The copy of a parameter whose rows have these dimensions, its last ones. */
export function weightCopy({ label, dimensions }: Node, row: readonly Dimension[]): WeightCopy {
  const width = constantCount(row);
  return { parameter: label, way: 'copy', rows: constantCount(dimensions) / width, stride: Math.ceil(width / 8) * 8 };
}

/** What the struct of parameters calls a copy. */
export const copyName = (parameter: string): string => `${parameter}_copy`;
