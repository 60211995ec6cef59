// Cuts a graph in two: rebuilds what some outputs need on top of values that are given instead of computed.
import { Builder } from '../graph/builder.ts';
import { type Graph, makeGraph, type Node, type Output } from '../graph/graph.ts';

/**
 * The graph that computes `outputs` from the nodes in `given`, each of which becomes an input with the label beside it.
 * Inputs of the original graph stay inputs.
 */
export function cut(name: string, outputs: readonly Output[], given: ReadonlyMap<Node, string>): Graph {
  const builder = new Builder();
  const copies = new Map<Node, Node>();
  const asInput = (label: string, node: Node): Node => builder.input(label, node.dimensions, node.dtype);
  const make = (node: Node): Node => {
    const label = given.get(node);
    if (label !== undefined) return asInput(label, node);
    const { primitive } = node;
    if (primitive === null) return asInput(node.label, node);
    return builder.within(node.label, node.origin, () =>
      builder.apply(primitive, node.inputs.map(copy), node.attributes),
    );
  };
  const copy = (node: Node): Node => {
    const known = copies.get(node);
    if (known) return known;
    const made = make(node);
    copies.set(node, made);
    return made;
  };
  const rebuilt = outputs.map(output => ({ ...output, node: copy(output.node) }));
  return makeGraph(name, rebuilt);
}
