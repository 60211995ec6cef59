// compose: a map that one other map reads, element for element, becomes part of it: one expression, one loop body. What
// only repeats its operand along further dimensions is never written out for maps: they read the operand itself.
import { Builder } from '../graph/builder.ts';
import { sameDimensions } from '../graph/dimension.ts';
import { consumers, type Graph, makeGraph, type Node } from '../graph/graph.ts';
import { type MapAttributes, mapOver } from '../ops/map.ts';
import { operand, type Scalar, substitute } from '../scalar/expression.ts';

/** The same graph with every such map composed into its reader. Values do not change. */
export function compose(graph: Graph): Graph {
  const readers = consumers(graph);
  const outputs = new Set(graph.outputs.map(output => output.node));
  const isMap = (node: Node) => node.primitive?.name === 'map';
  const repeats = (node: Node) =>
    (node.attributes as MapAttributes).expression.kind === 'operand' &&
    node.inputs[0]!.primitive?.kernel !== 'inline' &&
    node.inputs[0]!.dimensions.length < node.dimensions.length;
  const joins = (node: Node, reader: Node) =>
    isMap(node) &&
    isMap(reader) &&
    !outputs.has(node) &&
    (repeats(node) || (readers.get(node)!.length === 1 && sameDimensions(node.dimensions, reader.dimensions)));

  const builder = new Builder();
  const copies = new Map<Node, Node>();
  /** The map's expression over copied operands, with what joins it written out. */
  const expand = (node: Node, operands: Node[]): Scalar =>
    substitute((node.attributes as MapAttributes).expression, index => {
      const input = node.inputs[index]!;
      return joins(input, node) ? expand(input, operands) : operand(operands.push(copies.get(input)!) - 1);
    });
  for (const node of graph.nodes) {
    const own = readers.get(node)!;
    if (own.length > 0 && own.every(reader => joins(node, reader))) continue;
    copies.set(node, copyOf(node));
  }
  function copyOf(node: Node): Node {
    const copied = (input: Node) => copies.get(input)!;
    if (!isMap(node)) return builder.again(node, node.inputs.map(copied));
    return builder.within(node.label, node.origin, () => {
      const operands: Node[] = [];
      const expression = expand(node, operands);
      return mapOver(builder, node.dimensions, expression, operands);
    });
  }
  return makeGraph(
    graph.name,
    graph.outputs.map(output => ({ ...output, node: copies.get(output.node)! })),
  );
}
