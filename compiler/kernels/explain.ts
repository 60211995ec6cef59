// Says in words and formulas what a kernel does and which MAL line it came from: the comment above it in the source.
import type { Node } from '../graph/graph.ts';
import type { AttentionAttributes } from '../ops/attention.ts';
import type { MapAttributes } from '../ops/map.ts';
import type { ReduceAttributes } from '../ops/reduce.ts';
import { formula } from '../scalar/formula.ts';
import type { Kernel } from './kernel.ts';

const longest = 110;

/** Lines for a comment; values are called as `nameOf` says. */
export function explainKernel(kernel: Kernel, nameOf: (node: Node) => string): string[] {
  const origins = [...new Set(kernel.members.map(node => node.origin).filter(origin => origin !== ''))];
  const outputs = [...new Set(kernel.outputs.map(nameOf))];
  const head = listLines([`${outputs.join(', ')}${origins.length > 0 ? `: ${origins.join(', ')}` : ''}`]);
  const lines = kernel.members.flatMap(node => explainNode(node, nameOf)).filter(line => line.length <= longest);
  return [...head, ...lines.map(line => `  ${line}`)];
}

/** Breaks the last line after commas until it is short enough. */
function listLines(lines: readonly string[]): string[] {
  const last = lines.at(-1)!;
  const at = last.lastIndexOf(', ', longest) + 1;
  if (last.length <= longest || at === 0) return [...lines];
  return listLines([...lines.slice(0, -1), last.slice(0, at), `  ${last.slice(at).trimStart()}`]);
}

function explainNode(node: Node, nameOf: (node: Node) => string): string[] {
  const inputs = node.inputs.map(nameOf);
  const result = nameOf(node);
  switch (node.primitive!.name) {
    case 'map':
      return [`${result} = ${formula((node.attributes as MapAttributes).expression, inputs)}`];
    case 'reduce': {
      const { operation, over } = node.attributes as ReduceAttributes;
      return [`${result} = ${operation} of ${inputs[0]} over ${over.join(', ')}`];
    }
    case 'contract':
      return [`${result} = ${inputs[0]} x ${inputs[1]}`];
    case 'attention': {
      const { scale, causal, window, score, mask, result: what } = node.attributes as AttentionAttributes;
      if (what !== 'output') return [];
      const seen = `${causal ? ', causal' : ''}${window > 0 ? `, window ${window}` : ''}`;
      const product = `${scale.toPrecision(4)} ${inputs[0]} ${inputs[1]}ᵀ`;
      return [
        `${result} = softmax(${score ? 'score' : product}${seen}${mask ? ', where seen' : ''}) ${inputs[2]}`,
        ...(score ? [`score(s = ${product}) = ${formula(score, ['s'])}`] : []),
        ...(mask ? [`seen = ${formula(mask, [])}`] : []),
      ];
    }
    case 'gather':
      return [`${result} = rows of ${inputs[0]} at ${inputs[1]}`];
    case 'append':
      return [`${result} holds ${inputs[1]} from position ${inputs[2]} on`];
    case 'scatter-add':
      return [`${result} = ${inputs[1]} added to the rows at ${inputs[0]}`];
    default:
      return [];
  }
}
