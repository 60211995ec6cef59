// The forms of parameters that products read: packed for sums over the columns of a matrix, and for sums over its rows.
import { type Dimension, product } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';

/** Which way products read a matrix [rows][columns]: forward sums over its columns, backward over its rows. */
export const ways = ['forward', 'backward'] as const;
export type Way = (typeof ways)[number];

/** One form of a parameter, which is read as a matrix. */
export interface PreparedForm {
  /** The parameter's name in its stage. */
  readonly parameter: string;
  readonly way: Way;
  /** Rows of the matrix in memory: elements of the dimensions that come first. */
  readonly rows: number;
}

/**
 * The form in which a product reads a parameter as its right operand; null where the two groups of dimensions do not lie
 * one after the other.
 */
export function preparedForm(
  right: Node,
  inner: readonly Dimension[],
  columns: readonly Dimension[],
): PreparedForm | null {
  const names = (dims: readonly Dimension[]) => dims.map(dim => dim.name).join();
  const order = names(right.dimensions);
  const form = (way: Way, first: readonly Dimension[]): PreparedForm => ({
    parameter: right.label,
    way,
    rows: product(first.map(dim => dim.size!)),
  });
  if (order === names([...columns, ...inner])) return form('forward', columns);
  if (order === names([...inner, ...columns])) return form('backward', inner);
  return null;
}

/** What the struct of parameters calls a form. */
export const formName = (parameter: string, way: Way): string => `${parameter}_${way}`;
