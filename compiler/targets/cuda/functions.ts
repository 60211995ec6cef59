// Emits a graph as one C++ function that queues its kernels in order, and the kernels with their launchers, each distinct
// one once.
import { unusedParameters } from '../../emission/homes.ts';
import { countText } from '../../emission/index-text.ts';
import type { KernelLibrary } from '../../emission/kernel-library.ts';
import { canStore } from '../../emission/kernel-outputs.ts';
import type { FunctionNeeds } from '../../emission/memory-needs.ts';
import { kernelName, nameValues } from '../../emission/naming.ts';
import { declareValues, type Homes, placeValues } from '../../emission/places.ts';
import { Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import { explainKernel, originsOf } from '../../kernels/explain.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { Extent } from '../../plan/extent.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { type Work, workOf, workOfCopy } from '../../plan/work.ts';
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
import { emitLauncher, launcherName } from './launcher.ts';
import { emitMatmul } from './matmul.ts';
import { emitRow } from './row.ts';
import { emitScan } from './scan.ts';
import { emitSimple } from './simple.ts';
import { copyName, type WeightCopy } from './weight-copies.ts';

export interface FunctionSource extends FunctionNeeds {
  readonly text: string;
  /** Names of the kernels that it launches, in order. */
  readonly launches: readonly string[];
  /** Names of outputs that are added to their buffers, and stored there instead where the call says so. */
  readonly stored: readonly string[];
  /** Parameters of which its products read copies. */
  readonly copies: readonly WeightCopy[];
}

/**
 * Emits one function of a stage.
 * @param isParameter true for inputs of which programs of bfloat16 products keep copies
 */
export function emitFunction(
  { graph, schedule, plan, storage }: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  dtype: CudaProductType,
  isParameter: (label: string) => boolean,
): FunctionSource {
  const values = placeValues(graph, homes);
  const { places, outputNames, isGradient } = values;
  const writer = new Writer();
  const launches: string[] = [];
  const workspaces: (readonly Extent[])[] = [];
  const stored: string[] = [];
  const copies: WeightCopy[] = [];
  writer.block(`static void ${graph.name}(${parameters})`, () => {
    declareValues(writer, values, plan, parameters, node => elementType(node, storage(node)));
    /** Says whose the time since the last lap is. */
    const lap = (kernel: string, work: Work) => {
      const number = kernels.launch(graph.name, kernel, work);
      if (kernels.profile) writer.line(`malc_lap(run->watch, ${number});`);
    };
    if (kernels.profile) writer.line('malc_start(run->watch);');
    for (const kernel of schedule.kernels) {
      const names = nameValues(kernel, outputNames);
      const nameOf = (node: Node) => names.get(node)!;
      const surroundings: Surroundings = {
        nameOf,
        accumulates: values.accumulates,
        isGradient,
        comment: explainKernel(kernel, nameOf),
        dtype,
        hasCopy: node => dtype === 'bf16' && node.primitive === null && isParameter(node.label),
        storageOf: storage,
      };
      const source = emitKernel(kernel, surroundings);
      const launcher = emitLauncher(source, storage);
      const text = `${withUnused(source.text)}\n${launcher.text}`;
      const wanted = `${stage}_${kernelName(kernel, outputNames)}`;
      const name = kernels.add({ ...launcher, text }, wanted, kernel.kind, surroundings.comment);
      launches.push(name);
      if (canStore.has(kernel.kind) || kernel.kind === 'grouped-gradient')
        stored.push(...kernel.outputs.filter(isGradient).map(node => outputNames.get(node)!));
      const copied = new Set<Node>();
      for (const argument of source.arguments) {
        if (argument.kind === 'workspace') workspaces.push(argument.extents);
        if (argument.kind !== 'copy') continue;
        copies.push(argument.copy);
        copied.add(argument.node);
      }
      const given = ['run->queue', ...source.arguments.map(argument => argumentText(argument, places))].join(', ');
      writer.line(`malc_note(run->status, ${launcherName(name)}(${given}), "${name}${placeText(kernel)}");`);
      const readAs = (node: Node) => (copied.has(node) ? 'bf16' : storage(node));
      lap(name, workOf(kernel, surroundings.accumulates, readAs));
    }
    for (const { from, to, accumulate } of values.copies) {
      const count = countText(from.dimensions).replace(/\b(batch|time|sequences|context)\b/g, 'run->$1');
      const copy = `malc_copy(${to}, ${places.get(from)}, ${count}, ${accumulate}, run->queue)`;
      writer.line(`malc_note(run->status, ${copy}, "${graph.name}");`);
      lap('copies', workOfCopy(from, accumulate));
    }
  });
  return { name: graph.name, text: writer.toString(), launches, workspaces, scratch: 0, stored, copies };
}

/** What a failed launch is called by, beside its kernel: the first lines of MAL that the kernel came from. */
function placeText(kernel: Kernel): string {
  const origins = originsOf(kernel).slice(0, 2);
  return origins.length === 0 ? '' : ` (${origins.join(' and ')})`;
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

/** All launches of a kernel get the same arguments: each __global__ function names those that it does not use. */
function withUnused(text: string): string {
  const parts = text.split(/^(?=static __global__ void )/m);
  return parts
    .map(part => {
      if (!part.startsWith('static __global__ void ')) return part;
      const end = part.indexOf('\n}\n') + 3;
      // What bounds the launch is no parameter.
      const [bounds = ''] = /__launch_bounds__\([^)]*\)\s*/.exec(part) ?? [];
      return (
        unusedParameters(part.slice(0, end).replace(bounds, '')).replace('void ', `void ${bounds}`) + part.slice(end)
      );
    })
    .join('');
}
