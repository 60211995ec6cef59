// The Graph: tensors with named dimensions over a closed set of primitives. Each node has one result.
// Nodes are immutable and made by a Builder, which gives equal requests the same node.

import type { Builder } from './builder.ts';
import type { Dimension, Sizes } from './dimension.ts';
import type { Tensor } from './tensor.ts';

export type DataType = 'f32' | 'i32';

/**
 * The kernel class that a primitive is lowered to; a target has one emitter for each. What is `inline` is computed again
 * by every map that reads it, and never stored.
 */
export type KernelClass =
  | 'inline'
  | 'row'
  | 'matmul'
  | 'attention'
  | 'attention-gradient'
  | 'scan'
  | 'scan-gradient'
  | 'convolution'
  | 'convolution-gradient'
  | 'recent'
  | 'top-k'
  | 'within-capacity'
  | 'grouped'
  | 'grouped-gradient'
  | 'contract-each'
  | 'gather'
  | 'scatter'
  | 'append';

export interface Type {
  readonly dimensions: readonly Dimension[];
  readonly dtype: DataType;
}

/**
 * What a primitive is: everything that the rest of the compiler knows about one is in this record (compiler/ops, a file
 * each). All else in the language is composition of these.
 */
export interface Primitive<Attributes = unknown> {
  readonly name: string;
  /** One line for the documentation. */
  readonly doc: string;
  readonly kernel: KernelClass;
  /** The result's type, or an internal error that names the dimensions at fault. */
  type(inputs: readonly Type[], attributes: Attributes): Type;
  /** Gradients of the inputs (null where there is none), written with primitives. */
  gradient(request: GradientRequest<Attributes>): (Node | null)[];
  /** Plainly right, in float64: the oracle of every target. */
  reference(inputs: readonly Tensor[], attributes: Attributes, result: Type, sizes: Sizes): Tensor;
  /** What tests draw from. */
  readonly cases: readonly PrimitiveCase<Attributes>[];
}

export interface GradientRequest<Attributes> {
  readonly builder: Builder;
  readonly node: Node;
  readonly inputs: readonly Node[];
  readonly attributes: Attributes;
  /** The gradient of the loss with respect to the node's result. */
  readonly gradient: Node;
}

export interface PrimitiveCase<Attributes> {
  readonly inputs: readonly (Type & {
    /** Values are drawn from this range; default -1 to 1. */ range?: [number, number];
    /** They are these instead. */ values?: readonly number[];
  })[];
  readonly attributes: Attributes;
  readonly sizes?: Sizes;
  /** True where this is what only decoding asks for, which is not differentiated. */
  readonly decoding?: boolean;
}

export interface Node extends Type {
  readonly id: number;
  /** Null for an input of the graph. */
  readonly primitive: Primitive | null;
  readonly inputs: readonly Node[];
  readonly attributes: unknown;
  /** What it is called in generated source and dumps. */
  readonly label: string;
  /** The MAL line and the formula that it came from, for comments; '' where there is none. */
  readonly origin: string;
}

export interface Output {
  readonly name: string;
  readonly node: Node;
  /** True where the result is added to what the buffer holds: gradients of parameters. */
  readonly accumulate: boolean;
}

/** What begins the name of an output that a kernel makes beside what is wanted, and that nobody reads. */
export const discarded = 'discarded.';

/** One function of the program: a block, the embedding, the head; forward, backward or both. */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly Node[];
  readonly outputs: readonly Output[];
  /** Everything that the outputs need, inputs included, in an order in which it can be computed. */
  readonly nodes: readonly Node[];
}

/**
 * Collects what the outputs need, in the order of creation, which is a valid order of computation. Its inputs are all that
 * has no primitive.
 */
export function makeGraph(name: string, outputs: readonly Output[]): Graph {
  const needed = new Set<Node>();
  const visit = (node: Node) => {
    if (needed.has(node)) return;
    needed.add(node);
    for (const input of node.inputs) visit(input);
  };
  for (const output of outputs) visit(output.node);
  const nodes = [...needed].sort((a, b) => a.id - b.id);
  return { name, inputs: nodes.filter(node => node.primitive === null), outputs, nodes };
}

/** The nodes that read each node, in order. */
export function consumers(graph: Graph): Map<Node, Node[]> {
  const result = new Map<Node, Node[]>(graph.nodes.map(node => [node, []]));
  for (const node of graph.nodes) for (const input of new Set(node.inputs)) result.get(input)!.push(node);
  return result;
}
