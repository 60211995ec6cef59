// Float64 evaluation of a graph by each primitive's reference: the oracle.
import type { Sizes } from './dimension.ts';
import type { Graph, Node } from './graph.ts';
import type { Tensor } from './tensor.ts';

/**
 * Evaluates every output, by name.
 * @param given the graph's inputs, by label
 * @throws where an input is missing
 */
export function evaluate(graph: Graph, given: ReadonlyMap<string, Tensor>, sizes: Sizes): Map<string, Tensor> {
  const values = new Map<Node, Tensor>();
  for (const node of graph.nodes) {
    if (node.primitive === null) {
      const value = given.get(node.label);
      if (!value) throw new Error(`${graph.name}: the input ${node.label} was not given`);
      values.set(node, value);
    } else {
      const inputs = node.inputs.map(input => values.get(input)!);
      values.set(node, node.primitive.reference(inputs, node.attributes, node, sizes));
    }
  }
  return new Map(graph.outputs.map(output => [output.name, values.get(output.node)!]));
}
