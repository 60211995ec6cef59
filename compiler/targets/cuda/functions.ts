// Emits a graph as one C++ function that queues its kernels in order, and the kernels with their launchers, each distinct
// one once.
import { type EmittedFunction, emitLoweredFunction } from '../../emission/functions.ts';
import type { KernelLibrary } from '../../emission/kernel-library.ts';
import type { Homes } from '../../emission/places.ts';
import type { Node } from '../../graph/graph.ts';
import { originsOf } from '../../kernels/explain.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { emitAttention } from './attention.ts';
import { emitConvolution } from './convolution.ts';
import { emitGrouped } from './grouped.ts';
import {
  type Argument,
  type CudaProductType,
  elementType,
  type KernelSource,
  type Surroundings,
} from './kernel-source.ts';
import { launcherName } from './launcher.ts';
import { emitMatmul } from './matmul.ts';
import { type QueuedKernel, queuedKernel } from './queued-kernel.ts';
import { emitRow } from './row.ts';
import { emitScan } from './scan.ts';
import { emitSimple } from './simple.ts';
import { type ChoiceOf, tunableOf } from './tunable.ts';
import { copyName, type WeightCopy } from './weight-copies.ts';

export interface FunctionSource extends EmittedFunction<QueuedKernel> {
  /** Parameters of which its products read copies. */
  readonly copies: readonly WeightCopy[];
}

/**
 * Emits one function of a stage.
 * @param isParameter true for inputs of which programs of bfloat16 products keep copies
 * @param choices what is chosen for launches that there are several ways for, and how many positions it has at most where it
 * has a part of a step's; the cost model chooses where it is not given
 */
export function emitFunction(
  lowered: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  dtype: CudaProductType,
  isParameter: (label: string) => boolean,
  choices?: { readonly choiceOf: ChoiceOf; readonly part: number | null },
): FunctionSource {
  const noted = (call: string, place: string) => `malc_note(run->status, ${call}, "${place}");`;
  const emitted = emitLoweredFunction<QueuedKernel>(lowered, stage, parameters, homes, kernels, {
    typeOf: elementType,
    emitKernel(kernel, surroundings) {
      const hasCopy = (node: Node) => dtype === 'bf16' && node.primitive === null && isParameter(node.label);
      const own = { ...surroundings, dtype, hasCopy };
      const tunable = choices && tunableOf(kernel, own, lowered.graph.name, choices.part);
      const choice = tunable && choices.choiceOf(tunable);
      if (choice) return tunable.emit(choice);
      return queuedKernel(emitKernel(kernel, own), surroundings.storageOf);
    },
    callText(name, source, places, kernel) {
      const given = ['run->queue', ...source.arguments.map(argument => argumentText(argument, places))];
      return noted(`${launcherName(name)}(${given.join(', ')})`, placeText(name, kernel));
    },
    copyText: (to, from, count, accumulate) =>
      noted(`malc_copy(${to}, ${from}, ${count}, ${accumulate}, run->queue)`, lowered.graph.name),
    // The copy of a parameter is read, and not the parameter.
    readAs(source, storage) {
      const copied = new Set(source.arguments.flatMap(argument => (argument.kind === 'copy' ? [argument.node] : [])));
      return node => (copied.has(node) ? 'bf16' : storage(node));
    },
  });
  const all = emitted.sources.flatMap(source => source.arguments);
  return { ...emitted, copies: all.flatMap(argument => (argument.kind === 'copy' ? [argument.copy] : [])) };
}

/** What fits into a line of the program beside quotes and brackets. */
const longestPlace = 100;

/** What a failed launch is called by: its kernel, and the first lines of MAL that this came from, as far as there is room. */
function placeText(name: string, kernel: Kernel): string {
  const [first, second] = originsOf(kernel);
  if (first === undefined) return name;
  const both = `${name} (${first} and ${second})`;
  return second !== undefined && both.length <= longestPlace ? both : `${name} (${first})`;
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
    case 'gather':
    case 'scatter':
    case 'append':
    case 'recent':
    case 'top-k':
    case 'within-capacity':
      return emitSimple(kernel, surroundings);
    case 'grouped':
    case 'grouped-gradient':
    case 'contract-each':
      return emitGrouped(kernel, surroundings);
  }
}

function argumentText(argument: Argument, places: ReadonlyMap<Node, string>): string {
  switch (argument.kind) {
    case 'size':
      return `run->${argument.name}`;
    case 'input':
    case 'output':
      return places.get(argument.node)!;
    case 'copy':
      return copyName(places.get(argument.node)!);
    case 'adds':
      return 'run->adds';
    case 'workspace':
      return 'run->workspace';
    case 'text':
      return argument.text;
  }
}
