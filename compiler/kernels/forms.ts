// Whether a set of nodes can be one kernel, and in which form: what fusion is allowed to do.
import { type Dimension, hasDimension, sameDimensions } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import type { PairAttributes } from '../ops/pair.ts';
import type { ReduceAttributes } from '../ops/reduce.ts';
import { rowSum, statisticsOf } from '../ops/statistics.ts';
import type { MatmulGroup } from './kernel.ts';

export interface RowForm {
  readonly rows: readonly Dimension[];
  readonly columns: readonly Dimension[];
}

const isReduce = (node: Node) => node.primitive?.name === 'reduce';
const overOf = (node: Node) => (node.attributes as ReduceAttributes).over;

/** The rows and columns of a row kernel with these members, or null where they do not share them. */
export function rowForm(members: readonly Node[]): RowForm | null {
  const widest = members
    .map(node => (isReduce(node) ? node.inputs[0]!.dimensions : node.dimensions))
    .reduce((a, b) => (b.length > a.length ? b : a));
  const columnCount = splitPoint(members, widest);
  const rows = widest.slice(0, widest.length - columnCount);
  const columns = widest.slice(widest.length - columnCount);
  const inside = new Set(members);
  for (const node of members) {
    if (!fits(node, rows, columns, widest)) return null;
    if (node.inputs.some(input => inside.has(input) && isTotal(input, rows))) return null;
  }
  return { rows, columns };
}

/** How many trailing dimensions are columns: what the members' reductions say, else all that follow the run-time ones. */
function splitPoint(members: readonly Node[], widest: readonly Dimension[]): number {
  for (const node of members) {
    if (!isReduce(node) || !sameDimensions(node.inputs[0]!.dimensions, widest)) continue;
    const over = overOf(node);
    return over.includes(widest[0]!.name) ? widest.length - over.length : over.length;
  }
  const firstFixed = widest.findIndex(dim => dim.size !== null);
  return firstFixed < 0 ? 0 : firstFixed === 0 ? Math.min(1, widest.length) : widest.length - firstFixed;
}

function fits(
  node: Node,
  rows: readonly Dimension[],
  columns: readonly Dimension[],
  widest: readonly Dimension[],
): boolean {
  if (isReduce(node)) {
    const input = node.inputs[0]!;
    const over = overOf(node);
    const overRows = over.length === rows.length && rows.every(dim => over.includes(dim.name));
    const overColumns = over.length === columns.length && columns.every(dim => over.includes(dim.name));
    if (sameDimensions(input.dimensions, widest)) return overColumns || (overRows && isSum(node));
    return sameDimensions(input.dimensions, rows) && overRows && isSum(node);
  }
  const { attributes } = node;
  if (node.primitive?.name === 'pair' && !hasDimension(columns, (attributes as PairAttributes).dimension)) return false;
  return sameDimensions(node.dimensions, widest) || sameDimensions(node.dimensions, rows);
}

const isSum = (node: Node) => (node.attributes as ReduceAttributes).operation === 'sum';

/** True for a reduction over the rows: it is finished only when every row has been visited. */
export const isTotal = (node: Node, rows: readonly Dimension[]): boolean =>
  isReduce(node) && rows.length > 0 && rows.every(dim => overOf(node).includes(dim.name));

/**
 * The independent groups of a matmul kernel with these members, or null where they cannot be one: every map must have the
 * dimensions of the products that it finishes, and no product may read a member. A map of other values belongs to maps
 * that read it or what it reads. A sum over all rows of what a group makes belongs to it, and no member reads it. So do
 * statistics of each row of a value that it makes, which are complete when the whole launch is: only they read one another.
 */
export function matmulForm(members: readonly Node[]): Omit<MatmulGroup, 'outputs'>[] | null {
  const inside = new Set(members);
  const groups: { products: Node[]; epilogue: Node[] }[] = [];
  const groupOf = new Map<Node, (typeof groups)[number]>();
  const [besides, sums]: [Node[], Node[]] = [[], []];
  const measured = new Set(members.flatMap(node => rowSum(node)?.of ?? []).filter(of => inside.has(of)));
  const statistics = [...measured].flatMap(of => statisticsOf(of, members) ?? []);
  const ofRows = new Set(statistics.flatMap(each => each.members));
  const others = members.filter(node => !ofRows.has(node));
  if (others.some(({ inputs }) => inputs.some(input => ofRows.has(input)))) return null;
  for (const node of others) {
    if (node.primitive?.name === 'contract') {
      if (node.inputs.some(input => inside.has(input))) return null;
      const group = { products: [node], epilogue: [] };
      groups.push(group);
      groupOf.set(node, group);
      continue;
    }
    if (isReduce(node)) {
      sums.push(node);
      continue;
    }
    const joined = new Set(node.inputs.flatMap(input => groupOf.get(input) ?? []));
    const [first, ...further] = joined;
    if (!first) {
      besides.push(node);
      continue;
    }
    if (!sameDimensions(node.dimensions, first.products[0]!.dimensions)) return null;
    for (const other of further) {
      if (!sameDimensions(other.products[0]!.dimensions, node.dimensions)) return null;
      first.products.push(...other.products);
      first.epilogue.push(...other.epilogue);
      for (const moved of [...other.products, ...other.epilogue]) groupOf.set(moved, first);
      groups.splice(groups.indexOf(other), 1);
    }
    first.epilogue.push(node);
    groupOf.set(node, first);
  }
  for (const node of besides) {
    const isNear = (other: Node) =>
      [node, ...node.inputs].some(value => other.inputs.includes(value)) || node.inputs.includes(other);
    const near = groups.find(({ epilogue }) => epilogue.some(isNear));
    if (!near || !sameDimensions(node.dimensions, near.products[0]!.dimensions)) return null;
    near.epilogue.push(node);
    groupOf.set(node, near);
  }
  const isElsewhere = (input: Node, group: object) => inside.has(input) && groupOf.get(input) !== group;
  for (const group of groups)
    if (group.epilogue.some(node => node.inputs.some(input => isElsewhere(input, group)))) return null;
  const formed: Omit<MatmulGroup, 'outputs'>[] = [];
  for (const { products, epilogue } of groups) {
    const splits = products.map(rowsAndColumns);
    const { rows, columns } = splits[0]!;
    if (!splits.every(split => sameDimensions(split.rows, rows))) return null;
    const pairsInRows = epilogue.some(
      node => node.primitive?.name === 'pair' && !hasDimension(columns, (node.attributes as PairAttributes).dimension),
    );
    if (pairsInRows) return null;
    const own = sums.filter(node => epilogue.includes(node.inputs[0]!));
    if (!own.every(node => isTotal(node, rows) && isSum(node) && sameDimensions(node.dimensions, columns))) return null;
    const [ofGroup = null, ...more] = statistics.filter(({ of }) => epilogue.includes(of));
    if (more.length > 0 || !(ofGroup?.members ?? []).every(node => !rowSum(node) || isOver(node, columns))) return null;
    formed.push({
      rows,
      columns,
      products,
      epilogue: epilogue.sort((a, b) => a.id - b.id),
      totals: own,
      statistics: ofGroup,
    });
  }
  if (formed.filter(group => group.statistics).length < statistics.length) return null;
  const isRead = (node: Node) => members.some(({ inputs }) => inputs.includes(node));
  return formed.reduce((count, { totals }) => count + totals.length, 0) < sums.length || sums.some(isRead)
    ? null
    : formed;
}

/** Whether a reduction is over exactly these dimensions. */
const isOver = (node: Node, dims: readonly Dimension[]): boolean => {
  const over = overOf(node);
  return over.length === dims.length && dims.every(dim => over.includes(dim.name));
};

/** A product's rows come from its left operand, its columns from the right. */
function rowsAndColumns(product: Node): { rows: Dimension[]; columns: Dimension[] } {
  const [left] = product.inputs;
  return {
    rows: product.dimensions.filter(dim => hasDimension(left!.dimensions, dim.name)),
    columns: product.dimensions.filter(dim => !hasDimension(left!.dimensions, dim.name)),
  };
}
