// Says in words and formulas what a kernel does and which MAL line it came from: the comment above it in the source.
import type { Node } from '../graph/graph.ts';
import { type AttentionAttributes, extraInputs } from '../ops/attention.ts';
import type { AttentionGradientAttributes } from '../ops/attention-gradient.ts';
import type { MapAttributes } from '../ops/map.ts';
import type { PadAttributes } from '../ops/pad.ts';
import type { PairAttributes } from '../ops/pair.ts';
import type { ReduceAttributes } from '../ops/reduce.ts';
import { type ScanAttributes, scanOperands } from '../ops/scan.ts';
import type { ScanGradientAttributes } from '../ops/scan-gradient.ts';
import type { SliceAttributes } from '../ops/slice.ts';
import type { TopKAttributes } from '../ops/top-k.ts';
import { formula } from '../scalar/formula.ts';
import type { Kernel } from './kernel.ts';

const longest = 110;
/** Of a formula that is longer than these lines, the rest adds nothing that the source does not say. */
const mostLines = 12;

/** The places in MAL that a kernel came from: `llama.mal:12`. */
export const originsOf = (kernel: Kernel): string[] => [
  ...new Set(kernel.members.map(node => node.origin).filter(origin => origin !== '')),
];

/** Lines for a comment; values are called as `nameOf` says. */
export function explainKernel(kernel: Kernel, nameOf: (node: Node) => string): string[] {
  const origins = originsOf(kernel);
  const outputs = [...new Set(kernel.outputs.map(nameOf))];
  const head = listLines([`${outputs.join(', ')}${origins.length > 0 ? `: ${origins.join(', ')}` : ''}`]);
  const explained = [...new Set(kernel.members.flatMap(node => [...node.inputs.filter(isInline), node]))];
  const lines = explained.flatMap(node => explainNode(node, nameOf)).flatMap(breakFormula);
  return [...head, ...lines.map(line => `  ${line}`)];
}

/** Breaks the last line after commas until it is short enough. */
function listLines(lines: readonly string[]): string[] {
  const last = lines.at(-1)!;
  const at = last.lastIndexOf(', ', longest) + 1;
  if (last.length <= longest || at === 0) return [...lines];
  return listLines([...lines.slice(0, -1), last.slice(0, at), `  ${last.slice(at).trimStart()}`]);
}

/** Breaks a formula before an operator, or else at a space, where it is too long for a line; what goes on is indented. */
function breakFormula(line: string): string[] {
  if (line.length <= longest) return [line];
  const lines: string[] = [];
  for (let rest = line; rest !== ''; ) {
    const part = rest.length <= room ? rest : breakable.exec(rest)![0];
    lines.push((lines.length === 0 ? '' : indent) + part);
    rest = rest.slice(part.length).trimStart();
  }
  return lines.length > mostLines ? [...lines.slice(0, mostLines), `${indent}...`] : lines;
}

const indent = '    ';
const room = longest - indent.length;
/** In the first half of a line no operator ends it: it would be ragged. */
const breakable = new RegExp(`^.{${room >> 1},${room}}(?= [-+*/?:<=|&]+ )|^.{1,${room}}(?= )|^\\S+`);

const isInline = (node: Node) => node.primitive?.kernel === 'inline';

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
      const attributes = node.attributes as AttentionAttributes;
      const { scale, causal, window, score, mask, value_dim: valueDim, dropout, result: what } = attributes;
      if (what !== 'output') return [`${result} = the logarithm of the softmax's sum`];
      const { sinks, slopes, documents } = extraInputs(inputs.slice(3), attributes.extras);
      const within = documents ? `, within ${documents}` : '';
      const seen = `${causal ? ', causal' : ''}${window > 0 ? `, window ${window}` : ''}${mask ? ', where seen' : ''}${within}`;
      const product = `${scale.toPrecision(4)} ${inputs[0]} ${inputs[1]}ᵀ`;
      const weights = `softmax(${score ? 'score' : product}${seen}${sinks ? `, beside ${sinks}` : ''})`;
      const isPart = node.inputs[2]!.dimensions[3]!.size !== valueDim;
      return [
        `${result} = ${weights} ${isPart ? `the first ${valueDim} of ` : ''}${inputs[2]}`,
        ...(score ? [`score(s = ${product}) = ${formula(score, ['s', slopes ?? ''])}`] : []),
        ...(mask ? [`seen = ${formula(mask, [])}`] : []),
        ...(dropout > 0 ? [`in training, ${dropout} of the softmax is dropped`] : []),
      ];
    }
    case 'attention-gradient': {
      const { of } = node.attributes as AttentionGradientAttributes;
      const operands = { query: inputs[0], key: inputs[1], value: inputs[2], slope: 'the slopes' };
      return [`${result} = the gradient of ${operands[of]} in the attention`];
    }
    case 'pair': {
      const { dimension, interleaved } = node.attributes as PairAttributes;
      return [
        `${result} = ${inputs[0]}, with the two ${interleaved ? 'of each pair' : 'halves'} of ${dimension} exchanged`,
      ];
    }
    case 'pad': {
      const { from, to } = node.attributes as PadAttributes;
      return [`${result} = ${inputs[0]} from ${from} on of ${to.name}, among zeros`];
    }
    case 'slice': {
      const { dimension, from, to } = node.attributes as SliceAttributes;
      return [`${result} = ${inputs[0]}, ${from} to ${from + to.size! - 1} of ${dimension}`];
    }
    case 'random':
      return [`${result} is uniform in [0, 1)`];
    case 'convolution':
      return [`${result} = ${inputs[0]} filtered along time by ${inputs[1]}${inputs[2] ? `, after ${inputs[2]}` : ''}`];
    case 'convolution-gradient':
      return [`${result} = ${inputs[0]} and ${inputs[1]} multiplied along time, at each distance of the filter`];
    case 'recent':
      return [`${result} = the last positions of ${inputs[1]} followed by ${inputs[0]}`];
    case 'scan': {
      const [x, delta, a, b, c, start] = inputs;
      const state = `h[t] = exp(${delta}[t] ${a}) h[t-1] + ${delta}[t] ${b}[t] ${x}[t]${start ? `, from ${start} on` : ''}`;
      return (node.attributes as ScanAttributes).result === 'output'
        ? [`${result}[t] = ${c}[t] h[t], summed over the state`, state]
        : [`${result} = h after the last position of the scan of ${x}`];
    }
    case 'scan-gradient':
      return [
        `${result} = the gradient of ${inputs[scanOperands.indexOf((node.attributes as ScanGradientAttributes).of)]} in the scan`,
      ];
    case 'top-k': {
      const { chosen, groups, top_groups, group_score } = node.attributes as TopKAttributes;
      const score = group_score === 'top2' ? 'the sum of their two greatest' : 'their greatest';
      return [
        `${result} = where the ${chosen.size} greatest of ${inputs[0]} are`,
        ...(groups > 1 ? [`within the ${top_groups} of ${groups} groups that lead by ${score}`] : []),
      ];
    }
    case 'grouped':
      return [`${result} = ${inputs[0]} x ${inputs[1]} of each expert in ${inputs[2]}`];
    case 'grouped-gradient':
      return [`${result} = ${inputs[1]} x ${inputs[0]}, summed over the rows of each expert in ${inputs[2]}`];
    case 'contract-each':
      return [`${result} = ${inputs[0]} x ${inputs[1]} of each head`];
    case 'within-capacity':
      return [`${result} = 1 while the expert of ${inputs[0]} has room, then 0`];
    case 'gather':
      return [`${result} = rows of ${inputs[0]} at ${inputs[1]}`];
    case 'append':
      return [`${result} holds ${inputs[1]}, of each text from its position in ${inputs[2]} on`];
    case 'scatter-add':
      return [`${result} = ${inputs[1]} added to the rows at ${inputs[0]}`];
    default:
      return [];
  }
}
