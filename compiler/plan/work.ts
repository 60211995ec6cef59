// The work of a launch, known up to the run-time sizes: floating-point operations and bytes. What `malc bench kernels`
// holds times against.
//
// Operations: a product and its sum are two, any other function of a scalar expression is one (an exponential too), and
// so is each term of a reduction. What several members of a kernel use is counted once. Of attention the products are
// counted, over the pairs of query and key that are seen, and not its softmax, scores or masks of its own; its gradient
// computes the scores again, as FlashAttention counts it. Comparisons that choose, random numbers and copies are none.
//
// Bytes: each value that a launch reads from memory is read once, weights and saved values included, and each that it
// leaves is written once; what is added to is read besides. Packed copies, workspaces and second readings are not
// counted: they are what a better kernel would save.
import { type Dimension, hasDimension, type Sizes } from '../graph/dimension.ts';
import type { Node, Type } from '../graph/graph.ts';
import type { Kernel } from '../kernels/kernel.ts';
import type { AttentionAttributes } from '../ops/attention.ts';
import type { AttentionGradientAttributes } from '../ops/attention-gradient.ts';
import { eachShape } from '../ops/contract-each.ts';
import { groupedShape } from '../ops/grouped.ts';
import type { MapAttributes } from '../ops/map.ts';
import type { ScanAttributes } from '../ops/scan.ts';
import { type Scalar, show } from '../scalar/expression.ts';
import { type Extent, extentOf } from './extent.ts';
import { type ShapeExtents, shapesOf } from './shapes.ts';
import { type Storage, storedAsFloat, storedExtent } from './storage.ts';

/** So many for each combination of run-time positions, and, where `pairs` is there, for each pair that is seen. */
export interface Quantity extends Extent {
  readonly pairs?: Pairs;
}

/** The pairs of a query and a key that attention sees, for one sequence and head. */
export interface Pairs {
  /** The dimension of the keys: `context`, of which the positions up to the last query count, is a cache. */
  readonly keys: 'time' | 'context';
  readonly causal: boolean;
  /** Keys that a query sees at most; 0 for all. */
  readonly window: number;
}

export interface Work {
  readonly operations: readonly Quantity[];
  /** Bytes read, and bytes written: memory takes both at once. */
  readonly reads: readonly Quantity[];
  readonly writes: readonly Quantity[];
  /** What it multiplies. */
  readonly shapes: readonly ShapeExtents[];
}

/**
 * The work of one launch.
 * @param accumulates true for an output that is added to what its buffer holds
 * @param storage how each value is stored
 */
export function workOf(kernel: Kernel, accumulates: (node: Node) => boolean, storage: Storage = storedAsFloat): Work {
  const { reads, writes } = movedBytes(kernel, accumulates, storage);
  return {
    operations: merged([...kernel.members.flatMap(operationsOf), ...sharedOperations(kernel)]),
    reads: merged(reads),
    writes: merged(writes),
    shapes: shapesOf(kernel),
  };
}

/** The work of one launch after another. */
export const addWork = (a: Work, b: Work): Work => ({
  operations: merged([...a.operations, ...b.operations]),
  reads: merged([...a.reads, ...b.reads]),
  writes: merged([...a.writes, ...b.writes]),
  shapes: [...a.shapes, ...b.shapes],
});

/** Elements that are read and written, and added to what was there where `accumulate` says so. */
export const workOfCopy = ({ dimensions }: Node, accumulate: boolean): Work => ({
  operations: accumulate ? [elements(dimensions)] : [],
  reads: [inBytes(elements(dimensions, accumulate ? 2 : 1))],
  writes: [inBytes(elements(dimensions))],
  shapes: [],
});

/**
 * The number that quantities come to.
 * @param sizes `batch`, `time` and, for decoding, `context`: positions in the cache once the call is done
 */
export function amount(quantities: readonly Quantity[], sizes: Sizes): number {
  const size = (name: string): number => {
    const value = sizes[name];
    if (value === undefined) throw new Error(`the run-time dimension ${name} has no size`);
    return value;
  };
  return quantities.reduce((sum, { runtime, count, pairs }) => {
    const positions = runtime.reduce((product, name) => product * size(name), 1);
    return sum + count * positions * (pairs ? countPairs(pairs, size('time'), size(pairs.keys)) : 1);
  }, 0);
}

/** Pairs of the last `queries` positions of a text with its `keys` positions: of causal attention t (t + 1) / 2. */
export function countPairs({ causal, window }: Omit<Pairs, 'keys'>, queries: number, keys: number): number {
  const future = causal ? (queries * (queries - 1)) / 2 : 0;
  // What lies before the windows of the first n positions.
  const past = (n: number) => (window > 0 && n > window ? ((n - window) * (n - window + 1)) / 2 : 0);
  return queries * keys - future - (past(keys) - past(keys - queries));
}

/** float32 and int32; bfloat16 numbers are two to a float. */
const bytesPerElement = 4;

const times = (quantity: Quantity, factor: number): Quantity => ({ ...quantity, count: quantity.count * factor });
const inBytes = (quantity: Quantity): Quantity => times(quantity, bytesPerElement);
const elements = (dims: readonly Dimension[], factor = 1): Quantity => times(extentOf(dims), factor);

/** What one node adds to a kernel's operations, whatever the others are. */
function operationsOf(node: Node): Quantity[] {
  const { inputs, dimensions } = node;
  const [first, second, third] = inputs as [Node, Node, Node];
  switch (node.primitive!.name) {
    case 'map':
      return [elements(dimensions, countFunctions((node.attributes as MapAttributes).expression))];
    case 'reduce':
      return [elements(first.dimensions)];
    case 'contract': {
      const summed = first.dimensions.filter(dim => !hasDimension(dimensions, dim.name));
      return [elements([...dimensions, ...summed], 2)];
    }
    case 'contract-each': {
      const { rows, heads, inner, outer } = eachShape(first, second);
      return [elements([...rows, heads, inner, outer], 2)];
    }
    case 'grouped':
      return [groupedOperations(first, second, third)];
    case 'grouped-gradient':
      return [groupedOperations(first, node, third)];
    case 'convolution':
      return [elements([...dimensions, second.dimensions[1]!], 2)];
    case 'convolution-gradient':
      return [elements([...first.dimensions, dimensions[1]!], 2)];
    case 'scatter-add':
      return [elements(second.dimensions)];
    case 'attention': {
      const { result, value_dim: valueDim } = node.attributes as AttentionAttributes;
      return result === 'output' ? [pairOperations(node, headDim(first) + valueDim)] : [];
    }
    case 'attention-gradient': {
      // One product each; what several of them need is counted by sharedOperations.
      const { of, value_dim: valueDim } = node.attributes as AttentionGradientAttributes;
      return of === 'slope' ? [] : [pairOperations(node, of === 'value' ? valueDim : headDim(first))];
    }
    case 'scan':
      return (node.attributes as ScanAttributes).result === 'output' ? [scanOperations(node, 7)] : [];
    default:
      return [];
  }
}

/** What the members of a kernel need together and compute once. */
function sharedOperations({ kind, members }: Kernel): Quantity[] {
  const [first] = members as [Node];
  // The scores again, and the gradient of each probability.
  if (kind === 'attention-gradient') {
    const { value_dim: valueDim } = first.attributes as AttentionGradientAttributes;
    return [pairOperations(first, headDim(first.inputs[0]!) + valueDim)];
  }
  return kind === 'scan-gradient' ? [scanOperations(first, 2 * 7)] : [];
}

const headDim = (query: Type): number => query.dimensions[3]!.size!;

/** A multiply-add for each of `width` elements of every pair. A mask as a formula is counted as if it showed all. */
function pairOperations({ inputs, attributes }: Node, width: number): Quantity {
  const [query, key] = inputs as [Node, Node];
  const { causal, window } = attributes as AttentionAttributes;
  const [sequences, , heads] = query.dimensions as [Dimension, Dimension, Dimension];
  const keys = hasDimension(key.dimensions, 'context') ? 'context' : 'time';
  return { ...elements([sequences, heads], 2 * width), pairs: { keys, causal, window } };
}

/**
 * A scan does for each number of its state exp(delta a) h + (delta b) x and the sum of c h, 7 operations; twice as many
 * for the gradients, without what is computed again.
 */
function scanOperations({ inputs }: Node, each: number): Quantity {
  const [x, , a] = inputs as [Node, Node, Node];
  return elements([...x.dimensions, a.dimensions[1]!], each);
}

function groupedOperations(left: Type, weights: Type, index: Type): Quantity {
  const { rows, chosen, inner, outer } = groupedShape(left, weights, index);
  return elements([...rows, chosen, ...inner, ...outer], 2);
}

/** Distinct functions in an expression. */
function countFunctions(expression: Scalar): number {
  const seen = new Set<string>();
  const visit = (scalar: Scalar): number => {
    if (scalar.kind !== 'apply' || seen.has(show(scalar))) return 0;
    seen.add(show(scalar));
    // It only says that no gradient flows.
    const own = scalar.name === 'detach' ? 0 : 1;
    return scalar.args.reduce((sum, arg) => sum + visit(arg), own);
  };
  return visit(expression);
}

/** Bytes that a launch must read and write. */
function movedBytes(
  { kind, members, inputs, outputs }: Kernel,
  accumulates: (node: Node) => boolean,
  storage: Storage,
) {
  const all = (nodes: readonly Node[]) => nodes.map(node => inBytes(storedExtent(node, storage(node))));
  const [first] = members as [Node];
  const [, second] = first.inputs as [Node, Node];
  switch (kind) {
    // Of a table, the rows that are picked.
    case 'gather':
      return { reads: all([second, first]), writes: all([first]) };
    // The rows at hand are read, changed and written; a table that is not added to is cleared.
    case 'scatter':
      return { reads: all([...first.inputs, second]), writes: all(accumulates(first) ? [second] : [second, first]) };
    // A cache is changed in place.
    case 'append':
      return { reads: all([second]), writes: all([second]) };
    case 'recent':
      return { reads: all([first]), writes: all([first]) };
    default:
      return { reads: all([...inputs, ...outputs.filter(accumulates)]), writes: all(outputs) };
  }
}

/** Adds up what grows alike. */
function merged(quantities: readonly Quantity[]): Quantity[] {
  const byGrowth = new Map<string, Quantity>();
  for (const quantity of quantities) {
    const growth = JSON.stringify([quantity.runtime, quantity.pairs ?? null]);
    const known = byGrowth.get(growth);
    byGrowth.set(growth, known ? { ...known, count: known.count + quantity.count } : quantity);
  }
  return [...byGrowth.values()].filter(({ count }) => count > 0);
}
