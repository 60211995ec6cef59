// Splits a stage that was differentiated as a whole into its forward and its backward function, and decides which
// values the forward function keeps for the backward one.
import type { Builder } from '../graph/builder.ts';
import { consumers, discarded, type Graph, makeGraph, type Node, type Output } from '../graph/graph.ts';
import { cut } from './cut.ts';
import { differentiate } from './differentiate.ts';

export interface Split {
  readonly forward: Graph;
  readonly backward: Graph;
  /** Labels of what forward keeps: outputs of the one, inputs of the other. */
  readonly saved: readonly { readonly label: string; readonly node: Node }[];
}

export interface SplitRequest {
  readonly name: string;
  readonly builder: Builder;
  /** What the forward function leaves, each with the input that holds the gradient of the loss with respect to it. */
  readonly results: readonly { readonly output: Output; readonly gradient: Node }[];
  /** What a gradient is wanted of; outputs of the backward function are called `gradient.<label>`. */
  readonly wanted: readonly Node[];
  /** What the backward function leaves besides. */
  readonly further: readonly Output[];
  /** Those of the wanted whose gradients add up over calls. */
  readonly accumulated: ReadonlySet<Node>;
}

/** Differentiates a stage and cuts it in two. */
export function splitStage({ name, builder, results, wanted, further, accumulated }: SplitRequest): Split {
  const seeds = results.map(({ output, gradient }) => ({ node: output.node, gradient }));
  const outputs = results.map(({ output }) => output);
  const gradients = differentiate(builder, seeds, wanted);
  const wantedOutputs = [...gradientsAsOutputs(gradients, accumulated), ...further];
  const backwardOutputs = [...wantedOutputs, ...byProducts(builder, wantedOutputs)];
  const whole = makeGraph(name, [...outputs, ...backwardOutputs]);
  const isBackward = dependantsOf(
    whole,
    seeds.map(({ gradient }) => gradient),
  );
  const forwardNodes = new Set(makeGraph(name, outputs).nodes);

  // A value is kept where it crosses from forward to backward. What only the backward function asks for is computed
  // there, from kept values, unless it is a by-product of a forward kernel (attention's log-sum-exp).
  const kept = new Map<Node, string>();
  const keep = (node: Node) => {
    if (node.primitive === null || kept.has(node)) return;
    const { kernel } = node.primitive;
    const isStored = kernel !== 'inline' && (forwardNodes.has(node) || kernel !== 'row');
    if (isStored) kept.set(node, uniqueLabel(node, kept));
    else for (const input of node.inputs) keep(input);
  };
  for (const node of whole.nodes)
    if (isBackward.has(node)) for (const input of node.inputs) if (!isBackward.has(input)) keep(input);
  for (const { node } of further) keep(node);
  for (const node of recomputable(whole, kept, isBackward)) kept.delete(node);

  const saved = [...kept].map(([node, label]) => ({ label, node }));
  const forwardOutputs = [
    ...outputs,
    ...saved.map(({ label, node }) => ({ name: `saved.${label}`, node, accumulate: false })),
  ];
  return {
    forward: cut(`${name}_forward`, forwardOutputs, new Map()),
    backward: cut(
      `${name}_backward`,
      backwardOutputs,
      new Map(saved.map(({ label, node }) => [node, `saved.${label}`])),
    ),
    saved,
  };
}

/**
 * Kept maps that cost less to compute again than to keep: all that they read is kept anyway, and only maps, reductions and
 * products read them. Maps and reductions have what they read at hand; for products the map is computed beside the
 * gradient of what it reads, which visits that anyway (kernels/fuse.ts). A row's statistic is small and stays.
 */
function recomputable(whole: Graph, kept: ReadonlyMap<Node, string>, isBackward: ReadonlySet<Node>): Node[] {
  const readers = consumers(whole);
  return [...kept.keys()].filter(
    node =>
      node.primitive?.name === 'map' &&
      node.inputs.every(input => input.primitive === null || kept.has(input)) &&
      node.inputs.some(input => input.dimensions.length >= node.dimensions.length) &&
      readers.get(node)!.every(reader => !isBackward.has(reader) || computesFrom(reader)),
  );
}

const computesFrom = ({ primitive }: Node): boolean => primitive!.kernel === 'row' || primitive!.kernel === 'matmul';

/** What attention's backward kernel makes the gradients of, whichever are wanted. */
const madeTogether = ['query', 'key', 'value'];

/** The gradients that attention makes besides the wanted ones, where not all are: what is frozen wants none. */
function byProducts(builder: Builder, wanted: readonly Output[]): Output[] {
  const { nodes } = makeGraph('', wanted);
  const others: Output[] = [];
  const seen: Node[] = [];
  for (const node of nodes) {
    const isTwin = (other: Node) =>
      other.primitive === node.primitive && other.inputs.every((input, n) => input === node.inputs[n]);
    if (node.primitive?.name !== 'attention-gradient' || seen.some(isTwin)) continue;
    seen.push(node);
    const made = nodes.filter(isTwin).map(({ attributes }) => (attributes as { of: string }).of);
    for (const of of madeTogether.filter(each => !made.includes(each))) {
      const attributes = { ...(node.attributes as object), of };
      const label = `${of}_gradient`;
      const other = builder.within(label, node.origin, () => builder.apply(node.primitive!, node.inputs, attributes));
      others.push({ name: `${discarded}${label}_${other.id}`, node: other, accumulate: false });
    }
  }
  return others;
}

/** Gradients as outputs of a graph, called `gradient.<label>`. */
export const gradientsAsOutputs = (gradients: ReadonlyMap<Node, Node>, accumulated: ReadonlySet<Node>): Output[] =>
  [...gradients].map(([of, node]) => ({ name: `gradient.${of.label}`, node, accumulate: accumulated.has(of) }));

function dependantsOf(graph: Graph, sources: readonly Node[]): Set<Node> {
  const result = new Set<Node>(sources);
  for (const node of graph.nodes) if (node.inputs.some(input => result.has(input))) result.add(node);
  return result;
}

function uniqueLabel(node: Node, kept: ReadonlyMap<Node, string>): string {
  const taken = new Set(kept.values());
  if (!taken.has(node.label)) return node.label;
  let n = 2;
  while (taken.has(`${node.label}_${n}`)) n++;
  return `${node.label}_${n}`;
}
