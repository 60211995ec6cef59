// A graph as text, one line a node: for `--dump`, golden tests and bug reports.
import { showDimensions } from './dimension.ts';
import type { Graph, Node } from './graph.ts';

const reference = (node: Node) => `%${node.id}`;

/** The whole graph: inputs, nodes, outputs. */
export function printGraph(graph: Graph): string {
  const lines = [`graph ${graph.name}`];
  for (const node of graph.nodes) {
    const what =
      node.primitive === null
        ? `input ${node.label}`
        : `${node.primitive.name}(${node.inputs.map(reference).join(', ')}) ${JSON.stringify(node.attributes)}`;
    lines.push(`  ${reference(node)} ${node.dtype}${showDimensions(node.dimensions)} = ${what}   # ${node.label}`);
  }
  for (const { name, node, accumulate } of graph.outputs)
    lines.push(`  output ${name} ${accumulate ? '+=' : '='} ${reference(node)}`);
  return `${lines.join('\n')}\n`;
}
