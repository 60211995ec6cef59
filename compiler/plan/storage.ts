// Which values a program of bfloat16 products stores as bfloat16, two to a float: what products and attention read or make,
// for each token. Products round their operands anyway, so what only they read loses nothing. The residual stream and its
// gradient, statistics, routers and whatever is not as wide as a row of a product stay float32.
import { type Dimension, product, sameDimensions } from '../graph/dimension.ts';
import { discarded, type Graph, type Node } from '../graph/graph.ts';
import type { Kernel, Schedule } from '../kernels/kernel.ts';
import { isExact } from '../ops/contract.ts';
import { extentOf } from './extent.ts';

export type ElementStorage = 'f32' | 'bf16';

/** How a value of one graph is stored. */
export type Storage = (node: Node) => ElementStorage;

export const storedAsFloat: Storage = () => 'f32';

/** Elements of bfloat16 that are read at once. */
const piece = 8;

/**
 * The dimensions of a value as it lies in memory. Where each token has one dimension of bfloat16, as logits have, its last
 * places are padded to whole pieces of 16 bytes, so that every token's begin where such a piece does. Nobody may care what
 * the padding holds.
 */
export function storedDimensions({ dimensions }: Node, storage: ElementStorage): readonly Dimension[] {
  const last = dimensions.at(-1);
  const hasOne = dimensions.filter(dim => dim.size !== null).length === 1 && last!.size !== null;
  if (storage !== 'bf16' || !hasOne || last!.size! % piece === 0) return dimensions;
  return [...dimensions.slice(0, -1), { ...last!, size: Math.ceil(last!.size! / piece) * piece }];
}

/** Whether it is padded there. */
export const isPadded = (node: Node, storage: ElementStorage): boolean =>
  storedDimensions(node, storage) !== node.dimensions;

/** Floats of a value, up to the run-time sizes. */
export function storedExtent(node: Node, storage: ElementStorage) {
  const extent = extentOf(storedDimensions(node, storage));
  return storage === 'bf16' ? { ...extent, count: Math.ceil(extent.count / 2) } : extent;
}

/** A function before its memory is planned. */
export interface Scheduled {
  readonly graph: Graph;
  readonly schedule: Schedule;
}

/** What a target stores as bfloat16. */
export interface StoringKernels {
  /** The kinds of kernels that read and write it. */
  readonly kinds: ReadonlySet<Kernel['kind']>;
  /** Elements of a token's row below which nothing is gained. */
  readonly leastWidth: number;
}

/**
 * The storage of values of functions that hand them to one another as outputs and inputs `saved.NAME`: such a value is
 * stored alike in all of them.
 */
export function chooseStorage(functions: readonly Scheduled[], storing: StoringKernels): Storage {
  const found = functions.map(({ graph, schedule }) => ({ graph, ...candidates(graph, schedule, storing) }));
  const gains = new Set(found.flatMap(each => [...each.gains]));
  const refuses = new Set(found.flatMap(each => [...each.refuses]));
  const saved = found.flatMap(({ graph }) => savedValues(graph));
  for (const set of [gains, refuses]) {
    const names = new Set(saved.filter(({ node }) => set.has(node)).map(({ name }) => name));
    for (const { name, node } of saved) if (names.has(name)) set.add(node);
  }
  return node => (gains.has(node) && !refuses.has(node) && isWidePerToken(node, storing) ? 'bf16' : 'f32');
}

/** Whether a product rounds what it reads here: an operand that is worth a copy, with a value for each token. */
export const isRounded = (reader: Node, input: Node, storing: StoringKernels): boolean =>
  reader.primitive !== null &&
  products.has(reader.primitive.kernel) &&
  !isExact(reader) &&
  isWidePerToken(input, storing);

/** What products round of a graph although it is stored as float32: other things read it too, or hand it over. */
export const operandsAsFloat = ({ nodes }: Graph, storage: Storage, storing: StoringKernels): Set<Node> =>
  new Set(
    nodes.flatMap(node => node.inputs.filter(input => isRounded(node, input, storing) && storage(input) === 'f32')),
  );

const isSaved = (name: string) => name.startsWith('saved.');

/** What passes from a forward to a backward function. */
const savedValues = ({ inputs, outputs }: Graph): { name: string; node: Node }[] => [
  ...inputs.filter(node => isSaved(node.label)).map(node => ({ name: node.label, node })),
  ...outputs.filter(({ name }) => isSaved(name)),
];

const grouped = ['grouped', 'grouped-gradient'] as const;

/** Kernels that know of padding. */
const ablePadded: ReadonlySet<string> = new Set(['matmul', 'row', ...grouped]);

/** What one function would gain by, and what it cannot store otherwise than as float32. */
function candidates(graph: Graph, { kernels }: Schedule, { kinds }: StoringKernels) {
  const [gains, refuses] = [new Set<Node>(), streamOf(graph)];
  const add = (set: Set<Node>, nodes: readonly Node[]) => {
    for (const node of nodes) set.add(node);
  };
  for (const kernel of kernels) {
    const passed = [...kernel.inputs, ...kernel.outputs];
    if (!kinds.has(kernel.kind)) add(refuses, passed);
    if (!ablePadded.has(kernel.kind))
      add(
        refuses,
        passed.filter(node => isPadded(node, 'bf16')),
      );
    for (const node of kernel.members) {
      if (isExact(node)) add(refuses, [node, ...node.inputs]);
      else if (multiplies(node)) add(gains, [node, ...node.inputs].filter(isVectors));
    }
    if (kernel.kind === 'matmul') add(gains, kernel.outputs);
  }
  const own = graph.outputs.filter(
    ({ name, node }) => !name.startsWith(discarded) && (!isSaved(name) || isOutputAgain(graph, name, node)),
  );
  add(refuses, [...own.map(({ node }) => node), ...graph.inputs.filter(node => !isSaved(node.label))]);
  return { gains, refuses };
}

const isOutputAgain = ({ outputs }: Graph, name: string, node: Node): boolean =>
  outputs.some(other => other.node === node && other.name !== name);

const products: ReadonlySet<string> = new Set(['matmul', ...grouped]);

const multiplies = ({ primitive }: Node): boolean =>
  products.has(primitive!.kernel) || primitive!.kernel === 'attention' || primitive!.kernel === 'attention-gradient';

/** Of attention, the vectors that are multiplied, and none of its statistics: those have one number for a head. */
const isVectors = ({ dimensions }: Node): boolean => dimensions.at(-1)?.name !== 'heads';

function isWidePerToken({ dimensions, dtype }: Node, { leastWidth }: StoringKernels): boolean {
  const runtime = dimensions.filter(dim => dim.size === null).map(dim => dim.name);
  const width = product(dimensions.map(dim => dim.size ?? 1));
  return dtype === 'f32' && runtime.join() === 'batch,time' && width >= leastWidth;
}

/**
 * What the stream and its gradient are made of by maps, and by sums of as many elements, as those over the experts that a
 * token chose: sums along the residual stream lose no bits.
 */
function streamOf({ outputs }: Graph): Set<Node> {
  const stream = new Set<Node>();
  const visit = (node: Node, width: readonly Dimension[]): void => {
    if (stream.has(node)) return;
    stream.add(node);
    const isSum = node.primitive?.name === 'reduce' && sameDimensions(node.dimensions, width);
    if (isSum || node.primitive?.name === 'map') for (const input of node.inputs) visit(input, width);
  };
  for (const { name, node } of outputs) if (name === 'y' || name === 'gradient.x') visit(node, node.dimensions);
  return stream;
}
