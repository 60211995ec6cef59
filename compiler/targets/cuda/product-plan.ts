// How each group of products is computed: in one tile that is finished where it is computed, or in tiles of their own
// whose sums a second launch finishes; how operands lie in memory; and what the workspace holds.
import { countText, plus, times } from '../../emission/index-text.ts';
import { constantCount, type Dimension, hasDimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type MatmulGroup, stored } from '../../kernels/kernel.ts';
import type { ContractAttributes } from '../../ops/contract.ts';
import type { MapAttributes } from '../../ops/map.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { type ElementStorage, isPadded, type Storage, storedDimensions } from '../../plan/storage.ts';
import { operandsOf, type Scalar } from '../../scalar/expression.ts';
import { finishedAtOnce, pairedColumns } from './finish.ts';
import type { Passing } from './hopper-finish.ts';
import type { Surroundings } from './kernel-source.ts';
import { chooseTiling, type ProductKind, type ProductWork, type Tiling } from './product-tiles.ts';
import { type WeightCopy, weightCopy } from './weight-copies.ts';

/** An operand as the device code takes it: its outer positions are the left's rows or the right's columns. */
export interface Operand {
  readonly node: Node;
  readonly storage: ElementStorage;
  /** The copy that is read where it is a weight of bfloat16 products; null where the tensor itself is. */
  readonly copy: WeightCopy | null;
  /** Which positions lie side by side. */
  readonly run: 'inner' | 'outer';
  /** C++ text: elements from run to run. */
  readonly stride: string;
  /** C++ text: how many outer positions there are. */
  readonly outer: string;
  /** The largest power of two up to 8 that divides it. */
  readonly aligned: number;
}

export interface Product {
  readonly node: Node;
  readonly left: Operand;
  readonly right: Operand;
  readonly inner: readonly Dimension[];
  readonly kind: ProductKind;
}

export interface GroupPlan {
  readonly group: MatmulGroup;
  readonly products: readonly Product[];
  /**
   * - `added`: a tile sums up all products (often there is one)
   * - `beside`: a tile has the products side by side, which share the left operand
   * - `later`: each product has tiles of its own, and a second launch finishes what they leave in the workspace
   */
  readonly way: 'added' | 'beside' | 'later';
  readonly tiling: Tiling;
  /** What the tiling was chosen for. */
  readonly work: ProductWork;
  /** Which of the sums is a product; null where another product's sum has it already. */
  readonly sums: ReadonlyMap<Node, number | null>;
  /** Columns of a block where rows are few; null where that makes no difference. */
  readonly fewColumns: number | null;
  /** Elements that are finished together. */
  readonly atOnce: 1 | 4;
  /** Where a tile is finished in place, two elements at once: what passes through shared memory meanwhile. */
  readonly passing: readonly Passing[] | null;
}

/** Columns that a block has where rows are few, about: malc_few_columns of templates/cuda/product.h. */
const leastFewColumns = 16;

const isRuntime = (dims: readonly Dimension[]): boolean => dims.some(dim => dim.size === null);

const innerCount = (products: readonly Product[]): number =>
  products.reduce((sum, { inner }) => sum + constantCount(inner), 0);

export const columnCount = ({ columns }: MatmulGroup): number => constantCount(columns);

/** How many products a tile is divided among. */
export const partsOf = ({ way, products: { length } }: GroupPlan): number => (way === 'beside' ? dividing(length) : 1);

/** The power of two that is not less: tiles are halved, and halved again. */
const dividing = (count: number): number => 2 ** Math.ceil(Math.log2(count));

/** @param choose finds the tiling of such a work; null where no tile holds it */
export function planGroup(
  group: MatmulGroup,
  surroundings: Surroundings,
  choose: (work: ProductWork) => Tiling | null = chooseTiling,
): GroupPlan {
  const { storageOf } = surroundings;
  const products = group.products.map(node => productOf(node, group, surroundings));
  const [first, ...others] = products as [Product, ...Product[]];
  const isAdded = others.every(({ kind }) => kind === first.kind) && areAdded(group);
  const way = isAdded ? 'added' : areBeside(products) ? 'beside' : 'later';
  const hasManyInner = !isRuntime(group.rows) && products.every(({ inner }) => isRuntime(inner));
  const inner = isAdded ? products.flatMap(product => product.inner) : first.inner;
  const work: ProductWork = {
    kind: first.kind,
    rows: isRuntime(group.rows) ? null : constantCount(group.rows),
    columns: columnCount(group),
    inner: isRuntime(inner) ? null : innerCount(isAdded ? products : [first]),
    results: 1,
    beside: way === 'beside' ? dividing(products.length) : 1,
    step: pairedColumns(group.columns, group.epilogue),
    isDivisible: hasManyInner && products.length === 1,
  };
  const tiling = way === 'later' ? null : choose(work);
  const numbered = new Map(group.products.map((node, n) => [node, n]));
  if (tiling === null || tiling.parts > 1) {
    // No element is finished before all sums are there: tiles may cut whatever they like.
    const alone = { ...work, results: products.length, beside: 1, step: 1, isDivisible: hasManyInner };
    const plan = { group, products, way: 'later', tiling: choose(alone)!, work: alone, sums: numbered } as const;
    return { ...plan, fewColumns: null, atOnce: finishedAtOnce(group), passing: null };
  }
  const areLong = group.outputs.every(node => storageOf(node) === 'f32');
  const isOne = way === 'beside' || products.length === 1;
  const streams = isRuntime(group.rows) && isOne && areLong && products.every(isStreamed);
  return {
    group,
    products,
    way: way as 'added' | 'beside',
    tiling,
    work,
    sums: isAdded ? new Map(group.products.map((node, n) => [node, n === 0 ? 0 : null])) : numbered,
    fewColumns: streams ? work.step * Math.ceil(leastFewColumns / work.step) : null,
    atOnce: isPaddedAlong(group, storageOf) ? 4 : finishedAtOnce(group),
    passing: null,
  };
}

/** Whether all that has the group's only column dimension is padded along it: four elements may go past its end. */
function isPaddedAlong({ columns, products, epilogue, outputs }: MatmulGroup, storageOf: Storage): boolean {
  if (columns.length !== 1 || epilogue.some(({ primitive }) => primitive!.name === 'pair')) return false;
  const made = new Set([...products, ...epilogue]);
  const read = epilogue.flatMap(node => node.inputs.flatMap(stored)).filter(node => !made.has(node));
  const along = [...read, ...outputs].filter(node => hasDimension(node.dimensions, columns[0]!.name));
  return along.every(node => isPadded(node, storageOf(node)));
}

/** C++ text: where a group's sums begin in the workspace, which has group after group; or what follows all, for null. */
export function workspaceAt(plans: readonly GroupPlan[], plan: GroupPlan | null): string {
  const before = plans.slice(0, plan ? plans.indexOf(plan) : plans.length).filter(({ way }) => way === 'later');
  return plus(
    before.map(({ group, products, tiling }) =>
      times(countText([...group.rows, ...group.columns]), String(products.length * tiling.parts)),
    ),
  );
}

/** What a group needs of the workspace, whichever of two plans is followed; null where neither needs any. */
export function largerWorkspace(plan: GroupPlan, other: GroupPlan | undefined): Extent | null {
  const [own, others] = [workspaceOf(plan), other ? workspaceOf(other) : null];
  return own && others ? { ...own, count: Math.max(own.count, others.count) } : (own ?? others);
}

/** Sums of product after product, in parts. */
function workspaceOf({ way, group, products, tiling }: GroupPlan): Extent | null {
  if (way !== 'later') return null;
  const { runtime, count } = extentOf([...group.rows, ...group.columns]);
  return { runtime, count: products.length * tiling.parts * count };
}

function productOf(node: Node, group: MatmulGroup, { dtype, storageOf, hasCopy }: Surroundings): Product {
  const [left, right] = node.inputs as [Node, Node];
  const inner = left.dimensions.filter(dim => hasDimension(right.dimensions, dim.name));
  const { exact = false } = node.attributes as ContractAttributes;
  const kind = exact || dtype === 'f32' ? 'f32' : 'bf16';
  const operand = (tensor: Node, outer: readonly Dimension[]): Operand => {
    const { run, along } = sidesOf(tensor, outer, inner);
    const count = countText(outer);
    if (kind === 'bf16' && hasCopy(tensor)) {
      const copy = weightCopy(tensor, along);
      return { node: tensor, storage: 'bf16', copy, run, stride: String(copy.stride), outer: count, aligned: 8 };
    }
    const storage = storageOf(tensor);
    const lying = storedDimensions(tensor, storage).slice(-along.length);
    const aligned = [8, 4, 2].find(step => constantCount(lying) % step === 0) ?? 1;
    return { node: tensor, storage, copy: null, run, stride: countText(lying), outer: count, aligned };
  };
  return { node, left: operand(left, group.rows), right: operand(right, group.columns), inner, kind };
}

/** Which positions of an operand lie side by side, and their dimensions. */
function sidesOf(node: Node, outer: readonly Dimension[], inner: readonly Dimension[]) {
  const order = (dims: readonly Dimension[]) => dims.map(dim => dim.name).join();
  const isInner = order(node.dimensions) === order([...outer, ...inner]);
  if (!isInner && order(node.dimensions) !== order([...inner, ...outer]))
    throw new Error(`matmul: [${order(node.dimensions)}] is not a matrix of [${order(outer)}] by [${order(inner)}]`);
  return isInner ? ({ run: 'inner', along: inner } as const) : ({ run: 'outer', along: outer } as const);
}

/** Whether a tile can have these products side by side: they share the left operand, and read the right ones alike. */
function areBeside(products: readonly Product[]): boolean {
  const [first, ...others] = products as [Product, ...Product[]];
  const isAlike = ({ left, right, kind }: Product) =>
    left.node === first.left.node &&
    kind === first.kind &&
    right.run === first.right.run &&
    right.stride === first.right.stride &&
    right.storage === first.right.storage;
  return products.length <= 4 && others.every(isAlike);
}

/** Whether both operands come by asynchronous copies: bfloat16 in memory, and their runs begin at even elements. */
export const isCopied = ({ kind, left, right }: Product): boolean =>
  kind === 'bf16' && [left, right].every(({ storage, aligned }) => storage === 'bf16' && aligned >= 2);

/** Whether decoding can stream a product's weights past few rows. Only training, whose rows are many, has those in bfloat16. */
const isStreamed = ({ left, right }: Product): boolean =>
  left.run === 'inner' && right.run === 'inner' && left.storage === 'f32';

/**
 * Whether one sum can stand for all products of a group: nothing reads one for itself, and all are added, through maps that
 * nothing else reads either, to the same value. Which of them is added where makes no difference then.
 */
function areAdded({ products, epilogue, outputs }: MatmulGroup): boolean {
  if (products.length === 1) return true;
  const chains = products.map(product => {
    const chain: Node[] = [];
    for (let term = product; !outputs.includes(term); term = chain.at(-1)!) {
      const readers = epilogue.filter(node => node.inputs.includes(term));
      if (readers.length !== 1 || !isAddend(readers[0]!, term)) break;
      chain.push(readers[0]!);
    }
    return chain;
  });
  return chains[0]!.some(node => chains.every(chain => chain.includes(node)));
}

/** Whether a map adds an input to something else, once, and does nothing else with it. */
function isAddend({ primitive, attributes, inputs }: Node, input: Node): boolean {
  if (primitive?.name !== 'map') return false;
  const { expression } = attributes as MapAttributes;
  const isTerm = (scalar: Scalar): boolean => scalar.kind === 'operand' && inputs[scalar.index] === input;
  const termsOf = (scalar: Scalar): Scalar[] =>
    scalar.kind === 'apply' && scalar.name === 'add' ? scalar.args.flatMap(termsOf) : [scalar];
  const reads = (scalar: Scalar): boolean => [...operandsOf(scalar)].some(index => inputs[index] === input);
  const own = termsOf(expression).filter(reads);
  return own.length === 1 && isTerm(own[0]!);
}
