// Fusion: starts with a kernel for each node and merges kernels as long as the result has a legal form (forms.ts) and
// the launches can still be put in order. Each merge keeps a tensor in registers or cache that would go through memory.
import { consumers, type Graph, type KernelClass, type Node } from '../graph/graph.ts';
import { isExact } from '../ops/contract.ts';
import { statisticsOf } from '../ops/statistics.ts';
import { isTotal, matmulForm, rowForm } from './forms.ts';
import { type Kernel, type Schedule, stored } from './kernel.ts';

export interface FuseOptions {
  /** False for a kernel for each node (`--no-fuse`): slower, the same result within rounding. */
  readonly fuse: boolean;
  /** True where launches of exact products are their own: what rounds its operands has tiles and threads unlike theirs. */
  readonly exactApart?: boolean;
  /** True where products sum up the columns of what they make while it is at hand. */
  readonly totals?: boolean;
  /** True where products begin what norms ask of each row of what they make while it is at hand. */
  readonly statistics?: boolean;
}

/** Partitions a graph's nodes into kernels and orders them. */
export function fuse(graph: Graph, options: FuseOptions): Schedule {
  const partition = new Partition(graph, options);
  // Attention's output and log-sum-exp, a scan's output and state, and the gradients of either are by-products of one
  // another: one launch.
  mergeSiblings(graph, partition, 'attention');
  mergeSiblings(graph, partition, 'attention-gradient');
  mergeSiblings(graph, partition, 'scan');
  mergeSiblings(graph, partition, 'scan-gradient');
  if (options.fuse) {
    mergeEpilogues(graph, partition, options);
    if (options.totals) mergeTotals(graph, partition);
    if (options.statistics) mergeStatistics(graph, partition);
    mergeBesideEpilogues(graph, partition);
    mergeRows(graph, partition);
    mergeRowSiblings(graph, partition);
    mergeMatmulSiblings(graph, partition);
    mergeEnds(graph, partition);
  }
  return { kernels: partition.order().map(group => describe(graph, group)) };
}

/** Maps that follow a product finish its elements in the product's epilogue. */
function mergeEpilogues(graph: Graph, partition: Partition, options: FuseOptions): void {
  const readers = consumers(graph);
  for (const node of graph.nodes) {
    if (node.primitive?.name !== 'map' && node.primitive?.name !== 'pair') continue;
    // What a reduction reads belongs to the reduction's own pass over the row; and where that pass reads the product
    // anyway, the other maps of the same row cost nothing there, but a tensor more if the epilogue stored them.
    const feedsReduction = (other: Node) => readers.get(other)!.some(reader => reader.primitive?.name === 'reduce');
    const isSummedHere =
      (options.totals && isSummedOnly(graph, node, readers.get(node)!)) ||
      (options.statistics && isMeasuredOnly(graph, node, readers));
    const staysForReduction = feedsReduction(node) && !isSummedHere;
    const readsProductInRow = node.inputs.some(
      input =>
        partition.holds(input, 'matmul') &&
        readers.get(input)!.some(reader => reader !== node && feedsReduction(reader)),
    );
    const onlyForRows =
      readers.get(node)!.length > 0 && readers.get(node)!.every(reader => reader.primitive?.kernel === 'row');
    const matmuls = node.inputs.filter(input => partition.holds(input, 'matmul'));
    if (matmuls.length === 0) continue;
    // Several products become one tensor in any case.
    if (matmuls.length === 1 && (staysForReduction || (readsProductInRow && onlyForRows))) continue;
    if (partition.merge([node, ...matmuls])) continue;
    const rounding = matmuls.filter(matmul => !partition.groupWith(matmul).some(isExact));
    if (options.exactApart && rounding.length > 0 && partition.merge([node, ...rounding])) continue;
    for (const matmul of matmuls.reverse()) if (partition.merge([node, matmul])) break;
  }
}

/** Whether all passes over the rows of a value sum it up over all of them, and it is stored for others anyway. */
function isSummedOnly(graph: Graph, node: Node, readers: readonly Node[]): boolean {
  const rows = node.dimensions.filter(dim => dim.size === null);
  const inRows = readers.filter(reader => reader.primitive?.kernel === 'row');
  const isStored = inRows.length < readers.length || graph.outputs.some(output => output.node === node);
  return isStored && inRows.every(reader => isTotal(reader, rows));
}

/** Sums over all rows of what an epilogue makes are begun in it, where no pass over the rows reads that anyway. */
function mergeTotals(graph: Graph, partition: Partition): void {
  const readers = consumers(graph);
  for (const node of graph.nodes) {
    const [input] = node.inputs;
    if (node.primitive?.name !== 'reduce' || input!.primitive?.name !== 'map') continue;
    if (partition.holds(input!, 'matmul') && isSummedOnly(graph, input!, readers.get(input!)!))
      partition.merge([node, input!]);
  }
}

/**
 * Whether all reductions of a value, which is stored anyway, are sums over its columns that a norm asks for, and nothing else
 * reads what these add up.
 */
function isMeasuredOnly(graph: Graph, node: Node, readers: ReadonlyMap<Node, readonly Node[]>): boolean {
  const measuring = statisticsOf(node, graph.nodes)?.members ?? [];
  const isOutput = (other: Node) => graph.outputs.some(output => output.node === other);
  const areMeasuring = (others: readonly Node[]) => others.every(other => measuring.includes(other));
  const terms = measuring.filter(({ dimensions }) => dimensions.length === node.dimensions.length);
  const reductions = readers.get(node)!.filter(reader => reader.primitive?.name === 'reduce');
  const areOwn = terms.every(term => !isOutput(term) && areMeasuring(readers.get(term)!));
  return isOutput(node) && measuring.length > 0 && areMeasuring(reductions) && areOwn;
}

/**
 * Statistics of the rows of what an epilogue makes are begun in it, where a pass over the rows is saved: the one that would
 * have made the value, as it sums it up, or one that nothing else needs.
 */
function mergeStatistics(graph: Graph, partition: Partition): void {
  const readers = consumers(graph);
  for (const node of graph.nodes) {
    if (node.primitive?.name !== 'map' || !partition.holds(node, 'matmul')) continue;
    const own = readers.get(node)!;
    if (!isMeasuredOnly(graph, node, readers)) continue;
    const { members } = statisticsOf(node, graph.nodes)!;
    const isSummed = own.some(reader => reader.primitive?.name === 'reduce');
    const areOthersElsewhere = own.every(reader => members.includes(reader) || !partition.holds(reader, 'row'));
    if (isSummed || areOthersElsewhere) partition.merge([node, ...members]);
  }
}

/** Maps that an epilogue reads, or that read what it reads, are computed in it. */
function mergeBesideEpilogues(graph: Graph, partition: Partition): void {
  const readers = consumers(graph);
  for (const node of graph.nodes) {
    if (node.primitive?.name !== 'map' || !partition.holds(node, 'row')) continue;
    const near = [node, ...node.inputs].flatMap(value => readers.get(value)!);
    const finishes = (other: Node) => other.primitive!.name === 'map' && partition.holds(other, 'matmul');
    near.filter(finishes).some(other => partition.merge([node, other]));
  }
}

/** Maps and reductions join the kernels that make what they read. */
function mergeRows(graph: Graph, partition: Partition): void {
  for (const node of graph.nodes) {
    if (!partition.holds(node, 'row')) continue;
    for (const input of [...node.inputs].reverse()) if (partition.holds(input, 'row')) partition.merge([node, input]);
  }
}

/** Row kernels that read the same tensor over the same rows visit it once. */
function mergeRowSiblings(graph: Graph, partition: Partition): void {
  const readers = consumers(graph);
  for (const node of graph.nodes) {
    const rows = readers.get(node)!.filter(reader => partition.holds(reader, 'row') && reader.dimensions.length > 0);
    for (const reader of rows.slice(1)) partition.merge([rows[0]!, reader]);
  }
}

/** Products that share an operand (query, key and value; gate and up) are launched together. */
function mergeMatmulSiblings(graph: Graph, partition: Partition): void {
  const readers = consumers(graph);
  for (const node of graph.nodes) {
    const products = readers.get(node)!.filter(reader => reader.primitive?.name === 'contract');
    for (const product of products.slice(1)) partition.merge([products[0]!, product]);
  }
}

/** What no other kernel reads, as the gradients of weights, is computed in the next launch of its kind. */
function mergeEnds(graph: Graph, partition: Partition): void {
  const readers = consumers(graph);
  for (const [end] of partition.order() as [Node][]) {
    const kernel = ['matmul', 'row'].find(kind => partition.holds(end, kind));
    const group = partition.groupWith(end);
    const isEnd = group.every(node => readers.get(node)!.every(reader => group.includes(reader)));
    if (!kernel || !isEnd) continue;
    const order = partition.order();
    const later = order.slice(order.findIndex(nodes => nodes.includes(end)) + 1);
    later.some(([node]) => partition.holds(node!, kernel) && partition.merge([end, node!]));
  }
}

function mergeSiblings(graph: Graph, partition: Partition, kernel: string): void {
  const nodes = graph.nodes.filter(node => node.primitive?.kernel === kernel);
  for (const node of nodes) {
    const twin = nodes.find(
      other =>
        other.id < node.id &&
        shapeOf(other) === shapeOf(node) &&
        other.inputs.length === node.inputs.length &&
        other.inputs.every((input, n) => input === node.inputs[n]),
    );
    if (twin) partition.merge([twin, node]);
  }
}

/** What two by-products of one attention or scan have in common: everything but which of its results they are. */
function shapeOf(node: Node): string {
  const { result: _, of: __, ...shape } = node.attributes as { result?: string; of?: string };
  return JSON.stringify(shape);
}

/** Disjoint groups of nodes, each of which can be one kernel. */
class Partition {
  private readonly groupOf = new Map<Node, Node[]>();

  private readonly options: FuseOptions;

  constructor(graph: Graph, options: FuseOptions) {
    this.options = options;
    for (const node of graph.nodes) if (isComputed(node)) this.groupOf.set(node, [node]);
  }

  holds(node: Node, kernel: string): boolean {
    const group = this.groupOf.get(node);
    if (!group) return false;
    const isMatmul = group.some(member => member.primitive!.kernel === 'matmul');
    return kernel === 'matmul' ? isMatmul : !isMatmul && group.every(member => member.primitive!.kernel === kernel);
  }

  /** The nodes that are one kernel with this one. */
  groupWith(node: Node): readonly Node[] {
    return this.groupOf.get(node)!;
  }

  /** Merges the nodes' groups if that is legal; says whether it did. */
  merge(nodes: readonly Node[]): boolean {
    const groups = [...new Set(nodes.map(node => this.groupOf.get(node)!))];
    if (groups.length < 2) return true;
    const merged = groups.flat().sort((a, b) => a.id - b.id);
    if (!isLegal(merged, this.options)) return false;
    for (const node of merged) this.groupOf.set(node, merged);
    if (this.tryOrder() !== null) return true;
    for (const group of groups) for (const node of group) this.groupOf.set(node, group);
    return false;
  }

  order(): Node[][] {
    const order = this.tryOrder();
    if (order === null) throw new Error('fusion: the kernels cannot be put in order');
    return this.withEndsFirst(order);
  }

  /** What no other kernel reads is computed as soon as it can be, so that what it reads need not be kept for it. */
  private withEndsFirst(order: readonly Node[][]): Node[][] {
    const producers = (group: readonly Node[]) =>
      group.flatMap(node => node.inputs.flatMap(stored)).map(input => this.groupOf.get(input));
    const read = new Set(order.flatMap(group => producers(group).filter(producer => producer !== group)));
    const placed: Node[][] = order.filter(group => read.has(group));
    for (const group of order.filter(group => !read.has(group)))
      placed.splice(Math.max(-1, ...producers(group).map(producer => placed.indexOf(producer!))) + 1, 0, group);
    return placed;
  }

  /** The groups in an order of computation, earliest first member first; null where they wait for one another. */
  private tryOrder(): Node[][] | null {
    const state = new Map<Node[], 'open' | 'done'>();
    const result: Node[][] = [];
    const visit = (group: Node[]): boolean => {
      const known = state.get(group);
      if (known) return known === 'done';
      state.set(group, 'open');
      for (const node of group)
        for (const input of node.inputs.flatMap(stored)) {
          const producer = this.groupOf.get(input);
          if (producer && producer !== group && !visit(producer)) return false;
        }
      state.set(group, 'done');
      result.push(group);
      return true;
    };
    for (const group of new Set(this.groupOf.values())) if (!visit(group)) return null;
    return result;
  }
}

/** False for inputs and for what is inline: part of every kernel that reads it. */
const isComputed = (node: Node) => node.primitive !== null && node.primitive.kernel !== 'inline';

function isLegal(members: readonly Node[], { exactApart = false }: FuseOptions): boolean {
  const products = members.filter(({ primitive }) => primitive!.kernel === 'matmul');
  if (exactApart && products.some(isExact) && !products.every(isExact)) return false;
  // What is inline reads at other places, which a kernel that makes what is read has not made yet.
  const elsewhere = members.flatMap(node => node.inputs.filter(input => !isComputed(input)).flatMap(stored));
  if (elsewhere.some(node => members.includes(node))) return false;
  const kernels = new Set(members.map(node => node.primitive!.kernel));
  if (kernels.has('matmul'))
    return [...kernels].every(kernel => kernel === 'matmul' || kernel === 'row') && matmulForm(members) !== null;
  if (kernels.size > 1) return false;
  const [kernel] = kernels;
  if (kernel === 'row') return rowForm(members) !== null;
  return ['attention', 'attention-gradient', 'scan', 'scan-gradient'].includes(kernel!);
}

function describe(graph: Graph, members: readonly Node[]): Kernel {
  const inside = new Set(members);
  const read = new Set(members.flatMap(node => node.inputs.flatMap(stored)).filter(input => !inside.has(input)));
  const readOutside = new Set<Node>(graph.outputs.map(output => output.node));
  for (const node of graph.nodes)
    if (!inside.has(node)) for (const input of node.inputs.flatMap(stored)) readOutside.add(input);
  const common = { members, inputs: [...read], outputs: members.filter(node => readOutside.has(node)) };
  const isMatmul = members.some(node => node.primitive!.kernel === 'matmul');
  const kernel = isMatmul ? 'matmul' : (members[0]!.primitive!.kernel as Exclude<KernelClass, 'inline'>);
  switch (kernel) {
    case 'row':
      return { kind: kernel, ...common, ...rowForm(members)! };
    case 'matmul': {
      const groups = matmulForm(members)!.map(group => ({
        ...group,
        outputs: [...group.products, ...group.epilogue].filter(node => readOutside.has(node)),
      }));
      return { kind: kernel, ...common, groups };
    }
    default:
      return { kind: kernel, ...common };
  }
}
