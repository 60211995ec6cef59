// What products of bfloat16 read, but what must stay float32, gets a copy that they read instead. Only they do, so
// that it is stored as bfloat16: it is rounded once, where it is made, and not by every product in its registers.
import { Builder } from '../graph/builder.ts';
import { type Graph, makeGraph, type Node } from '../graph/graph.ts';
import { type FuseOptions, fuse } from '../kernels/fuse.ts';
import { map } from '../ops/map.ts';
import { operand } from '../scalar/expression.ts';
import { chooseStorage, isRounded, operandsAsFloat, type Scheduled, type StoringKernels } from './storage.ts';

/**
 * The functions that need such copies, each with what stands in for it. What its products compute does not change.
 * @param functions those that hand values to one another, as for `chooseStorage`
 */
export function roundOperands(
  functions: readonly Scheduled[],
  storing: StoringKernels,
  options: FuseOptions,
): Map<Scheduled, Scheduled> {
  const storage = chooseStorage(functions, storing);
  const rounded = new Map<Scheduled, Scheduled>();
  for (const given of functions) {
    const wanted = operandsAsFloat(given.graph, storage, storing);
    if (wanted.size === 0) continue;
    const graph = withCopies(given.graph, wanted, storing);
    rounded.set(given, { graph, schedule: fuse(graph, options) });
  }
  return rounded;
}

function withCopies({ name, nodes, outputs }: Graph, wanted: ReadonlySet<Node>, storing: StoringKernels): Graph {
  const builder = new Builder();
  const same = new Map<Node, Node>();
  const rounded = new Map<Node, Node>();
  for (const node of nodes) {
    const read = (input: Node) => (isRounded(node, input, storing) && rounded.get(input)) || same.get(input)!;
    const own = builder.again(node, node.inputs.map(read));
    same.set(node, own);
    if (wanted.has(node)) rounded.set(node, copyOf(builder, own));
  }
  return makeGraph(
    name,
    outputs.map(output => ({ ...output, node: same.get(output.node)! })),
  );
}

const copyOf = (builder: Builder, node: Node): Node =>
  builder.within(`${node.label}_rounded`, node.origin, () =>
    builder.apply(map, [node], { expression: operand(0), dimensions: node.dimensions }),
  );
