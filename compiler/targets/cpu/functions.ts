// Emits a graph as one C function that launches its kernels in order, and the kernels, each distinct one once.
import type { Graph, Node } from '../../graph/graph.ts';
import { printGraph } from '../../graph/print.ts';
import { explainKernel } from '../../kernels/explain.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { Extent } from '../../plan/extent.ts';
import { type LoweredFunction, outputsInPlace } from '../../plan/plan.ts';
import { addWork, type Work, workOf, workOfCopy } from '../../plan/work.ts';
import { emitAttention } from './attention.ts';
import { emitConvolution } from './convolution.ts';
import { emitGrouped } from './grouped.ts';
import { countText } from './index-text.ts';
import {
  type Argument,
  canStore,
  elementType,
  type KernelSource,
  type ProductType,
  type Surroundings,
} from './kernel-source.ts';
import { emitMatmul } from './matmul.ts';
import { formName, type PreparedForm } from './prepared.ts';
import { emitRow } from './row.ts';
import { emitScan } from './scan.ts';
import { chooseSchedule, type ScheduleOf } from './schedule.ts';
import { emitSimple } from './simple.ts';
import { Names, Writer, withName } from './writer.ts';

/** Where a function finds its inputs and leaves its outputs, as C text, by label; null for a value it keeps to itself. */
export type Homes = (label: string, isOutput: boolean) => string | null;

export interface FunctionSource {
  readonly name: string;
  readonly text: string;
  /** Names of the kernels that it launches, in order. */
  readonly launches: readonly string[];
  /** Workspace of each launch that needs one. */
  readonly workspaces: readonly (readonly Extent[])[];
  /** The most floats that a launch needs for each thread. */
  readonly scratch: number;
  /** Parameters that its products read prepared. */
  readonly prepared: readonly PreparedForm[];
  /** Names of outputs that are added to their buffers, and stored there instead where the call says so. */
  readonly stored: readonly string[];
}

/** How the growth of a group of buffers is spelt: its pointer in malc_run, and its count of positions. */
const growths: Readonly<Record<string, { pointer: string; positions: string }>> = {
  '': { pointer: 'run->fixed', positions: '1' },
  batch: { pointer: 'run->per_sequence', positions: 'run->batch' },
  time: { pointer: 'run->per_position', positions: 'run->time' },
  'batch*time': { pointer: 'run->per_token', positions: 'run->batch * run->time' },
};

/** A kernel of the generated program, for `malc explain`. */
export interface KernelReport {
  readonly name: string;
  readonly kind: Kernel['kind'];
  /** What it computes and where that was written, a line each. */
  readonly explanation: readonly string[];
  readonly source: string;
}

/** A kernel in a function that launches it: what a profile has a line for, and `malc bench` knows the work of. */
export interface LaunchReport {
  /** `FUNCTION/KERNEL`. */
  readonly name: string;
  readonly function: string;
  readonly kernel: string;
  /** How often one run of the function launches it, and the work of all these launches together. */
  readonly count: number;
  readonly work: Work;
}

/** Collects the kernels of a program's functions, and who launches them. */
export class KernelLibrary {
  private readonly reserved: ReadonlySet<string>;
  private readonly names = new Names();
  private readonly byText = new Map<string, KernelReport>();
  private readonly launched = new Map<string, LaunchReport>();
  /** Whether the program takes the time of its launches. */
  readonly profile: boolean;

  /** @param reserved names of functions that no kernel may take */
  constructor(reserved: readonly string[], profile = false) {
    this.reserved = new Set(reserved);
    this.profile = profile;
  }

  /** The name of this kernel's function; an equal kernel of an earlier function serves again. */
  add({ text }: KernelSource, wanted: string, kind: Kernel['kind'], explanation: readonly string[]): string {
    const known = this.byText.get(text);
    if (known) return known.name;
    const name = this.names.unique(this.reserved.has(wanted) ? `${wanted}_kernel` : wanted);
    this.byText.set(text, { name, kind, explanation, source: withName(text, name) });
    return name;
  }

  /** Notes a launch; returns its number in the profile, the same for all launches of a kernel in one function. */
  launch(functionName: string, kernel: string, work: Work): number {
    const name = `${functionName}/${kernel}`;
    const known = this.launched.get(name);
    const count = (known?.count ?? 0) + 1;
    this.launched.set(name, {
      name,
      function: functionName,
      kernel,
      count,
      work: known ? addWork(known.work, work) : work,
    });
    return [...this.launched.keys()].indexOf(name);
  }

  get launches(): LaunchReport[] {
    return [...this.launched.values()];
  }

  get reports(): KernelReport[] {
    return [...this.byText.values()];
  }

  toString(): string {
    return this.reports.map(({ source }) => source).join('\n');
  }
}

/**
 * Emits one function of a stage.
 * @param isParameter true for inputs that are kept prepared for products; in float32 nothing is
 */
export function emitFunction(
  { graph, schedule, plan, storage }: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  dtype: ProductType = 'f32',
  isParameter: (label: string) => boolean = () => false,
  scheduleOf: ScheduleOf = chooseSchedule,
): FunctionSource {
  const places = new Map<Node, string>();
  for (const node of graph.inputs) places.set(node, required(homes(node.label, false), graph, node.label));
  const copies: { from: Node; to: string; accumulate: boolean }[] = [];
  const outputNames = new Map<Node, string>();
  const accumulated = new Set<Node>();
  const inPlace = outputsInPlace(graph);
  for (const { name, node, accumulate } of graph.outputs) {
    const home = required(homes(name, true), graph, name);
    if (places.has(node) || !inPlace.has(node)) copies.push({ from: node, to: home, accumulate });
    else {
      places.set(node, home);
      outputNames.set(node, name);
      if (accumulate) accumulated.add(node);
    }
  }
  // A cache is written in place: the whole cache lies where the cache lay.
  for (const node of graph.nodes) if (node.primitive?.name === 'append') places.set(node, places.get(node.inputs[0]!)!);
  const isGradient = (node: Node) => accumulated.has(node) && outputNames.get(node)!.startsWith('gradient.');
  const writer = new Writer();
  const launches: string[] = [];
  const workspaces: (readonly Extent[])[] = [];
  const prepared: PreparedForm[] = [];
  let scratch = 0;
  const stored: string[] = [];
  const locals = new Names();
  for (const [name] of parameters.matchAll(/\w+(?=,|$)/g)) locals.unique(name);
  /** Says whose the time since the last lap is. */
  const lap = (kernel: string, work: Work) => {
    const number = kernels.launch(graph.name, kernel, work);
    if (kernels.profile) writer.line(`malc_lap(run->watch, ${number});`);
  };
  writer.block(`static void ${graph.name}(${parameters})`, () => {
    for (const [node, { growth, offset }] of plan.placements) {
      const { pointer, positions } = growths[growth]!;
      const name = locals.unique(valueName(node, outputNames));
      const shift = offset === 0 ? '' : positions === '1' ? ` + ${offset}` : ` + ${offset} * ${positions}`;
      const type = elementType(node, storage(node));
      const cast = type === 'float' ? '' : `(${type} *)`;
      writer.line(`${type} *const ${name} = ${cast}${cast === '' ? pointer + shift : `(${pointer}${shift})`};`);
      places.set(node, name);
    }
    if (kernels.profile) writer.line('malc_start(run->watch);');
    for (const kernel of schedule.kernels) {
      const names = nameValues(kernel, outputNames);
      const nameOf = (node: Node) => names.get(node)!;
      const surroundings: Surroundings = {
        nameOf,
        accumulates: node => accumulated.has(node),
        isGradient,
        comment: explainKernel(kernel, nameOf),
        dtype,
        isParameter: node => node.primitive === null && isParameter(node.label),
        storageOf: storage,
        scheduleOf,
      };
      const source = emitKernel(kernel, surroundings);
      const wanted = `${stage}_${kernelName(kernel, outputNames)}`;
      const name = kernels.add(source, wanted, kernel.kind, surroundings.comment);
      launches.push(name);
      if (canStore.has(kernel.kind))
        stored.push(...kernel.outputs.filter(isGradient).map(node => outputNames.get(node)!));
      for (const argument of source.arguments) {
        if (argument.kind === 'workspace') workspaces.push(argument.extents);
        if (argument.kind === 'prepared') prepared.push(argument.form);
        if (argument.kind === 'scratch') scratch = Math.max(scratch, argument.floats);
      }
      writer.line(`${name}(${source.arguments.flatMap(argument => argumentText(argument, places)).join(', ')});`);
      // A prepared parameter is read, and no other form of it.
      const packed = new Set(
        source.arguments.flatMap(argument => (argument.kind === 'prepared' ? [argument.node] : [])),
      );
      const readAs = (node: Node) => (packed.has(node) && dtype === 'bf16' ? 'bf16' : storage(node));
      lap(name, workOf(kernel, surroundings.accumulates, readAs));
    }
    for (const { from, to, accumulate } of copies) {
      const count = countText(from.dimensions).replace(/\b(batch|time)\b/g, 'run->$1');
      if (accumulate) writer.line(`for (int64_t i = 0; i < ${count}; i++) ${to}[i] += ${places.get(from)}[i];`);
      else writer.line(`memcpy(${to}, ${places.get(from)}, (size_t)(${count}) * sizeof(float));`);
      lap('copies', workOfCopy(from, accumulate));
    }
  });
  return { name: graph.name, text: writer.toString(), launches, workspaces, scratch, prepared, stored };
}

function required(home: string | null, graph: Graph, label: string): string {
  if (home === null) throw new Error(`${graph.name}: ${label} has no home\n${printGraph(graph)}`);
  return home;
}

function emitKernel(kernel: Kernel, surroundings: Surroundings): KernelSource {
  switch (kernel.kind) {
    case 'row':
      return emitRow(kernel, surroundings);
    case 'matmul':
      return emitMatmul(kernel, surroundings);
    case 'attention':
    case 'attention-gradient':
      return emitAttention(kernel, surroundings);
    case 'scan':
    case 'scan-gradient':
      return emitScan(kernel, surroundings);
    case 'convolution':
    case 'convolution-gradient':
      return emitConvolution(kernel, surroundings);
    case 'grouped':
    case 'grouped-gradient':
    case 'contract-each':
      return emitGrouped(kernel, surroundings);
    default:
      return emitSimple(kernel, surroundings);
  }
}

function argumentText(argument: Argument, places: ReadonlyMap<Node, string>): string[] {
  switch (argument.kind) {
    case 'size':
      return [`run->${argument.name}`];
    case 'input':
    case 'output':
      return [places.get(argument.node)!];
    case 'prepared':
      return [formName(places.get(argument.node)!, argument.form.way)];
    case 'adds':
      return ['run->adds'];
    case 'workspace':
      return ['run->workspace'];
    case 'scratch':
      return ['run->scratch', 'run->scratch_stride'];
    case 'text':
      return [argument.text];
  }
}

/** A name of its own for each value that a kernel reads or makes; what it reads and leaves goes first. */
function nameValues(kernel: Kernel, outputNames: ReadonlyMap<Node, string>): Map<Node, string> {
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
function valueName(node: Node, outputNames: ReadonlyMap<Node, string> = new Map()): string {
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
function kernelName(kernel: Kernel, outputNames: ReadonlyMap<Node, string>): string {
  const isWeight = (node: Node) =>
    outputNames.get(node)?.startsWith('gradient.') && outputNames.get(node) !== 'gradient.x';
  const values = kernel.outputs.filter(node => !isWeight(node)).map(node => valueName(node, outputNames));
  const weights = kernel.outputs.filter(isWeight).map(node => valueName(node, outputNames).replace('_weight_', '_'));
  // A statistic that is kept beside a value says nothing new.
  const main = values.filter(name => !/_(sum|max|factor)$|^log_sum_exp$/.test(name));
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
