// What a legal graph is. Run between stages in the tests and after every rewriting pass.
import { sameDimensions, showDimensions } from './dimension.ts';
import type { Graph } from './graph.ts';

/** @throws an internal error that names the node and the rule that it breaks */
export function verify(graph: Graph): void {
  const seen = new Set<unknown>();
  const fail = (rule: string): never => {
    throw new Error(`graph ${graph.name}: ${rule}`);
  };
  for (const node of graph.nodes) {
    for (const input of node.inputs)
      if (!seen.has(input)) fail(`${node.label} (%${node.id}) reads %${input.id}, which is not computed before it`);
    seen.add(node);
    const names = node.dimensions.map(dim => dim.name);
    if (new Set(names).size !== names.length)
      fail(`${node.label} (%${node.id}) has a dimension twice: ${showDimensions(node.dimensions)}`);
    if (node.primitive === null) continue;
    const type = node.primitive.type(node.inputs, node.attributes);
    if (type.dtype !== node.dtype || !sameDimensions(type.dimensions, node.dimensions))
      fail(
        `${node.label} (%${node.id}) is ${showDimensions(node.dimensions)}, its primitive gives ${showDimensions(type.dimensions)}`,
      );
  }
  for (const output of graph.outputs) if (!seen.has(output.node)) fail(`output ${output.name} is not computed`);
  const names = graph.outputs.map(output => output.name);
  if (new Set(names).size !== names.length) fail(`two outputs have one name: ${names.join(', ')}`);
}
