// Reverse-mode differentiation of a graph: each primitive brings its own rule, and contributions are summed.
import type { Builder } from '../graph/builder.ts';
import type { Node } from '../graph/graph.ts';
import { mapOver } from '../ops/map.ts';
import { add, operand, type Scalar } from '../scalar/expression.ts';

/**
 * Adds to `builder` the nodes that compute the gradient of a loss.
 * @param seeds results of which the loss's gradient is known
 * @param wanted nodes whose gradient is asked for
 * @returns the gradient of each wanted node, of its own shape; a node that no seed depends on is absent
 */
export function differentiate(
  builder: Builder,
  seeds: readonly { node: Node; gradient: Node }[],
  wanted: readonly Node[],
): Map<Node, Node> {
  const useful = dependants(
    seeds.map(seed => seed.node),
    wanted,
  );
  const contributions = new Map<Node, Node[]>();
  const contribute = (node: Node, gradient: Node) =>
    contributions.set(node, [...(contributions.get(node) ?? []), gradient]);
  for (const { node, gradient } of seeds) contribute(node, gradient);

  const gradients = new Map<Node, Node>();
  // Creation order is a valid order of computation, so its reverse meets every consumer before its producer.
  for (const node of [...useful].sort((a, b) => b.id - a.id)) {
    const parts = contributions.get(node);
    if (!parts) continue;
    builder.within(`${node.label}_gradient`, node.origin, () => {
      const gradient = sumOf(builder, node, parts);
      gradients.set(node, gradient);
      if (node.primitive === null) return;
      const { inputs, attributes } = node;
      const before = builder.size;
      node.primitive.gradient({ builder, node, inputs, attributes, gradient }).forEach((part, n) => {
        if (!part || !useful.has(inputs[n]!)) return;
        if (part.id >= before) builder.rename(part, `${inputs[n]!.label}_gradient`);
        contribute(inputs[n]!, part);
      });
    });
  }
  return new Map(wanted.filter(node => gradients.has(node)).map(node => [node, gradients.get(node)!]));
}

/** The nodes between `wanted` and `results`: those that depend on a wanted node. Rules are not asked for the rest. */
function dependants(results: readonly Node[], wanted: readonly Node[]): Set<Node> {
  const known = new Map<Node, boolean>(wanted.map(node => [node, true]));
  const depends = (node: Node): boolean => {
    const found = known.get(node);
    if (found !== undefined) return found;
    // Every input is asked, so that each one's answer is known afterwards.
    const answer = node.inputs.map(depends).some(Boolean);
    known.set(node, answer);
    return answer;
  };
  for (const node of results) depends(node);
  // Inputs of a wanted node that lie deeper are wanted in their own right, or not needed.
  return new Set([...known].filter(([, answer]) => answer).map(([node]) => node));
}

function sumOf(builder: Builder, node: Node, parts: readonly Node[]): Node {
  const [first, ...rest] = parts.map((_, n) => operand(n)) as [Scalar, ...Scalar[]];
  return mapOver(builder, node.dimensions, rest.reduce(add, first), parts);
}
