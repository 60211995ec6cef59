// A graph as text, one line a node: for `--dump`, golden tests and bug reports.

import { formula } from '../scalar/formula.ts';
import { showDimensions } from './dimension.ts';
import type { Graph, Node } from './graph.ts';

const reference = (node: Node) => `%${node.id}`;

function attributesText({ attributes, inputs }: Node): string {
  if (attributes === null) return '';
  const shown = Object.entries(attributes as object)
    .filter(([name, value]) => name !== 'dimensions' && value !== null && !(Array.isArray(value) && value.length === 0))
    .map(([name, value]) => {
      if (name === 'expression') return `${name}: ${formula(value, inputs.map(reference))}`;
      // Attention's formulas of a pair; s is the scaled score.
      if (name === 'score' || name === 'mask') return `${name}: ${formula(value, ['s', 'slope'])}`;
      return `${name}: ${showValue(value)}`;
    });
  return shown.length === 0 ? '' : ` { ${shown.join(', ')} }`;
}

const showValue = (value: unknown): string =>
  Array.isArray(value) ? value.join(' ') : typeof value === 'object' ? JSON.stringify(value) : String(value);

/** The whole graph: inputs, nodes, outputs. */
export function printGraph(graph: Graph): string {
  const lines = [`graph ${graph.name}`];
  for (const node of graph.nodes) {
    const what =
      node.primitive === null
        ? `input ${node.label}`
        : `${node.primitive.name}(${node.inputs.map(reference).join(', ')})${attributesText(node)}`;
    lines.push(`  ${reference(node)} ${node.dtype}${showDimensions(node.dimensions)} = ${what}   # ${node.label}`);
  }
  for (const { name, node, accumulate } of graph.outputs)
    lines.push(`  output ${name} ${accumulate ? '+=' : '='} ${reference(node)}`);
  return `${lines.join('\n')}\n`;
}
