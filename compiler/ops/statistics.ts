// Statistics of rows: sums over the columns of a value, of its squares, and of its squared distances from the mean. Norms
// are made of them. A product that makes the value can begin them while its elements are at hand.
import { constantCount, type Dimension, sameDimensions } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { coordinatesOf, type Scalar, same } from '../scalar/expression.ts';
import type { MapAttributes } from './map.ts';
import type { ReduceAttributes } from './reduce.ts';

/** What a sum over the columns says of a value. */
export interface RowSum {
  readonly of: Node;
  readonly kind: 'sum' | 'squares' | 'deviations';
}

/** Sums over the columns of a value, and what is made of them: a norm's statistics. */
export interface RowStatistics {
  readonly of: Node;
  /** The sums, their terms and maps of them, in an order in which they can be computed. */
  readonly members: readonly Node[];
}

/** What a node sums up of each row of a value; null where it does nothing of the kind. */
export function rowSum(node: Node): RowSum | null {
  if (node.primitive?.name !== 'reduce') return null;
  const { operation, over } = node.attributes as ReduceAttributes;
  const [term] = node.inputs as [Node];
  const columns = term.dimensions.slice(-over.length);
  const areColumns = columns.length === over.length && columns.every(dim => over.includes(dim.name));
  if (operation !== 'sum' || !areColumns || columns.some(dim => dim.size === null)) return null;
  const root = rootOf(term);
  const parts = root?.kind === 'apply' && root.name === 'subtract' ? root.args : root ? [root] : [];
  const [of, mean] = parts.map(part => (part.kind === 'operand' ? term.inputs[part.index]! : null));
  if (!of || !sameDimensions(of.dimensions, term.dimensions)) return { of: term, kind: 'sum' };
  if (parts.length === 1) return { of, kind: 'squares' };
  return mean && isMean(mean, of, columns) ? { of, kind: 'deviations' } : { of: term, kind: 'sum' };
}

/** What a map is the square of; null where it is none. */
function rootOf({ primitive, attributes }: Node): Scalar | null {
  if (primitive?.name !== 'map') return null;
  const { expression } = attributes as MapAttributes;
  if (expression.kind !== 'apply' || expression.name !== 'multiply') return null;
  const [a, b] = expression.args as [Scalar, Scalar];
  return same(a, b) ? a : null;
}

function isMean({ primitive, attributes, inputs }: Node, of: Node, columns: readonly Dimension[]): boolean {
  if (primitive?.name !== 'map') return false;
  const { expression } = attributes as MapAttributes;
  if (expression.kind !== 'apply' || expression.name !== 'multiply') return false;
  const factor = expression.args.find(arg => arg.kind === 'constant');
  const total = expression.args.find(arg => arg.kind === 'operand');
  const sum = total && rowSum(inputs[total.index]!);
  const share = factor ? factor.value * constantCount(columns) : 0;
  return sum?.kind === 'sum' && sum.of === of && Math.abs(share - 1) < 1e-6;
}

/**
 * The statistics of a value's rows among some nodes: sums over its columns, what these add up, and maps of them that have
 * one number for a row; null where there is none.
 * @param nodes in an order in which they can be computed
 */
export function statisticsOf(of: Node, nodes: readonly Node[]): RowStatistics | null {
  const found = new Set<Node>();
  for (const node of nodes) {
    if (rowSum(node)?.of === of) {
      for (const term of node.inputs) if (term !== of) found.add(term);
      found.add(node);
    } else if (isMapOf(node, found) && node.dimensions.length < of.dimensions.length) found.add(node);
  }
  return found.size === 0 ? null : { of, members: [...found].sort((a, b) => a.id - b.id) };
}

/** Whether a map is made of found values, at least one, and of numbers that the program is given. */
function isMapOf({ primitive, attributes, inputs }: Node, found: ReadonlySet<Node>): boolean {
  if (primitive?.name !== 'map' || !inputs.some(input => found.has(input))) return false;
  const { expression } = attributes as MapAttributes;
  const isGiven = (input: Node) => input.primitive === null && input.dimensions.length === 0;
  return coordinatesOf(expression).size === 0 && inputs.every(input => found.has(input) || isGiven(input));
}
