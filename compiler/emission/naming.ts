// What values and kernels are called in generated source.
import type { Node } from '../graph/graph.ts';
import type { Kernel } from '../kernels/kernel.ts';
import { Names } from './writer.ts';

/** A name of its own for each value that a kernel reads or makes; what it reads and leaves goes first. */
export function nameValues(kernel: Kernel, outputNames: ReadonlyMap<Node, string>): Map<Node, string> {
  const names = new Names();
  const named = new Map<Node, string>();
  const inline = kernel.members.flatMap(node => node.inputs.flatMap(inlineIn));
  for (const node of [...kernel.inputs, ...kernel.outputs, ...kernel.members, ...inline]) {
    if (named.has(node)) continue;
    const wanted = valueName(node, outputNames);
    // What is appended to keeps its name.
    const same = node.primitive?.name === 'append' ? named.get(node.inputs[0]!) : undefined;
    const suffix = kernel.outputs.includes(node) ? '' : suffixOf(node, kernel);
    named.set(node, same ?? names.unique(wanted + suffix));
  }
  return named;
}

/** What of an input is computed where it is read. */
const inlineIn = (node: Node): Node[] =>
  node.primitive?.kernel === 'inline' ? [node, ...node.inputs.flatMap(inlineIn)] : [];

/** Tells an intermediate value from the output that bears the same label. */
function suffixOf(node: Node, kernel: Kernel): string {
  if (!kernel.members.includes(node)) return '';
  switch (node.primitive!.name) {
    case 'contract':
      return '_product';
    case 'pair':
      return '_partner';
    default:
      return kernel.members.every(reader => reader.primitive!.name === 'reduce' || !reader.inputs.includes(node))
        ? '_term'
        : '';
  }
}

/** `saved.query` is query, `gradient.y` is y_gradient, `self_attn.q_proj.weight` is q_proj_weight. */
export function valueName(node: Node, outputNames: ReadonlyMap<Node, string> = new Map()): string {
  const label = outputNames.get(node) ?? node.label;
  if (label.startsWith('saved.')) return label.slice('saved.'.length);
  if (label.startsWith('gradient.')) return `${shortName(label.slice('gradient.'.length))}_gradient`;
  return shortName(label);
}

/** A parameter's name without what it is a part of, `self_attn` or `mlp`: enough inside one stage. */
export function shortName(label: string): string {
  const parts = label.split('.');
  return (parts.length > 2 ? parts.slice(1) : parts).join('_');
}

/** Named by what it makes: its outputs, and `weights` for gradients of parameters. */
export function kernelName(kernel: Kernel, outputNames: ReadonlyMap<Node, string>): string {
  const isWeight = (node: Node) =>
    outputNames.get(node)?.startsWith('gradient.') && outputNames.get(node) !== 'gradient.x';
  const values = kernel.outputs.filter(node => !isWeight(node)).map(node => valueName(node, outputNames));
  const weights = kernel.outputs.filter(isWeight).map(node => valueName(node, outputNames).replace('_weight_', '_'));
  // A statistic that is kept beside a value says nothing new, nor does its copy.
  const main = values.filter(name => !/_(sum|max|factor|rounded)$|^log_sum_exp$/.test(name));
  const named = [...new Set(main.length > 0 ? main : values)];
  if (named.length === 0) return fewOf(weights);
  if (kernel.kind === 'attention-gradient') return 'attention_gradient';
  if (kernel.kind === 'scan-gradient') return 'scan_gradient';
  return `${fewOf(named)}${weights.length > 0 ? '_and_weights' : ''}`;
}

/** The first names, as many as make a name of bearable length. */
function fewOf(names: readonly string[]): string {
  const few = names.slice(0, 3);
  while (few.length > 1 && few.join('_').length > 64) few.pop();
  return few.join('_');
}
