// What a launch multiplies: the shapes of its products of matrices and of its attention, known up to the run-time sizes.
// Other programs are measured at the same shapes (bench/peers), and predictions are reckoned from them.
import { type Dimension, hasDimension, product, type Sizes, sameDimensions } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import type { Kernel, MatmulGroup } from '../kernels/kernel.ts';
import type { AttentionAttributes } from '../ops/attention.ts';
import type { AttentionGradientAttributes } from '../ops/attention-gradient.ts';
import { type Extent, extentOf } from './extent.ts';

/** A product [rows][inner] x [inner][columns]. */
export interface ProductExtents {
  readonly kind: 'product';
  readonly rows: Extent;
  readonly columns: Extent;
  readonly inner: Extent;
  /** How the left and the right operand lie in memory: `n` row by row, `t` column by column. */
  readonly layout: 'nn' | 'nt' | 'tn' | 'tt';
}

export interface AttentionExtents {
  readonly kind: 'attention';
  readonly pass: 'forward' | 'backward';
  readonly heads: number;
  readonly keyHeads: number;
  /** Elements of a query's vector, and of a value's. */
  readonly width: number;
  readonly valueWidth: number;
  readonly causal: boolean;
  /** Keys that a query sees at most; 0 for all. */
  readonly window: number;
}

export type ShapeExtents = ProductExtents | AttentionExtents;

/** The same, once the run-time sizes are known. */
export type Shape =
  | (Omit<ProductExtents, 'rows' | 'columns' | 'inner'> & {
      readonly rows: number;
      readonly columns: number;
      readonly inner: number;
    })
  | (AttentionExtents & { readonly batch: number; readonly time: number });

/** @param sizes `batch` and `time`: attention's queries are those of all sequences */
export function shapeAt(shape: ShapeExtents, sizes: Sizes): Shape {
  if (shape.kind === 'attention') return { ...shape, batch: sizes.batch!, time: sizes.time! };
  const size = ({ runtime, count }: Extent) => count * product(runtime.map(name => sizes[name]!));
  return { ...shape, rows: size(shape.rows), columns: size(shape.columns), inner: size(shape.inner) };
}

/**
 * The shapes of one launch, as a library of single products would be asked for them: products that share an operand are
 * one with the rows or columns of all, and those that are added up one with all inner positions.
 */
export function shapesOf(kernel: Kernel): ShapeExtents[] {
  if (kernel.kind === 'matmul') return productsOf(kernel.groups);
  if (kernel.kind !== 'attention' && kernel.kind !== 'attention-gradient') return [];
  const [{ inputs, attributes }] = kernel.members as [Node];
  const [query, key] = inputs as [Node, Node];
  const { causal, window, value_dim } = attributes as AttentionAttributes | AttentionGradientAttributes;
  const [, , heads, width] = query.dimensions as [Dimension, Dimension, Dimension, Dimension];
  return [
    {
      kind: 'attention',
      pass: kernel.kind === 'attention' ? 'forward' : 'backward',
      heads: heads.size!,
      keyHeads: key.dimensions[2]!.size!,
      width: width.size!,
      valueWidth: value_dim,
      causal,
      window,
    },
  ];
}

/** A product, or several as one, and what they read. */
interface Joined {
  readonly left: readonly Node[];
  readonly right: readonly Node[];
  readonly shape: ProductExtents;
}

function productsOf(groups: readonly MatmulGroup[]): ProductExtents[] {
  const single = groups.flatMap(({ rows, columns, products }) =>
    joinAll(
      products.map(node => productOf(node, rows, columns)),
      (a, b) => (a.left[0] === b.left[0] ? joinAlong('columns', a, b) : joinAlong('inner', a, b)),
    ),
  );
  const shared = (a: readonly Node[], b: readonly Node[]) =>
    a.length === b.length && a.every((node, n) => node === b[n]);
  const joined = joinAll(single, (a, b) => {
    if (shared(a.left, b.left)) return joinAlong('columns', a, b);
    return shared(a.right, b.right) ? joinAlong('rows', a, b) : null;
  });
  return joined.map(({ shape }) => shape);
}

/** Joins each with the first before it that it can be joined with. */
function joinAll(products: readonly Joined[], join: (a: Joined, b: Joined) => Joined | null): Joined[] {
  const result: Joined[] = [];
  for (const product of products) {
    const known = result.findIndex(each => join(each, product) !== null);
    if (known < 0) result.push(product);
    else result[known] = join(result[known]!, product)!;
  }
  return result;
}

/** One product in place of two that differ along one side only; null where they differ otherwise. */
function joinAlong(side: 'rows' | 'columns' | 'inner', a: Joined, b: Joined): Joined | null {
  const isAlike = (['rows', 'columns', 'inner'] as const).every(each =>
    each === side
      ? a.shape[each].runtime.join() === b.shape[each].runtime.join()
      : JSON.stringify(a.shape[each]) === JSON.stringify(b.shape[each]),
  );
  if (!isAlike || a.shape.layout !== b.shape.layout) return null;
  const extent = { ...a.shape[side], count: a.shape[side].count + b.shape[side].count };
  return {
    left: side === 'columns' ? a.left : [...a.left, ...b.left],
    right: side === 'rows' ? a.right : [...a.right, ...b.right],
    shape: { ...a.shape, [side]: extent },
  };
}

function productOf(node: Node, rows: readonly Dimension[], columns: readonly Dimension[]): Joined {
  const [left, right] = node.inputs as [Node, Node];
  const inner = left.dimensions.filter(dim => hasDimension(right.dimensions, dim.name));
  const letter = (tensor: Node, dims: readonly Dimension[]) => (sameDimensions(tensor.dimensions, dims) ? 'n' : 't');
  const layout = `${letter(left, [...rows, ...inner])}${letter(right, [...inner, ...columns])}` as const;
  const extents = { rows: extentOf(rows), columns: extentOf(columns), inner: extentOf(inner) };
  return { left: [left], right: [right], shape: { kind: 'product', ...extents, layout } };
}
