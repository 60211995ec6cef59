// Emits a graph as one C++ function that queues its kernels in order, and the kernels with their launchers, each distinct
// one once.
import { type EmittedFunction, emitLoweredFunction } from '../../emission/functions.ts';
import { unusedParameters } from '../../emission/homes.ts';
import type { KernelLibrary } from '../../emission/kernel-library.ts';
import type { Homes } from '../../emission/places.ts';
import type { Node } from '../../graph/graph.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { emitAttention } from './attention.ts';
import {
  type Argument,
  type CudaProductType,
  elementType,
  type KernelSource,
  type Surroundings,
} from './kernel-source.ts';
import { emitLauncher, type Launcher, launcherName } from './launcher.ts';
import { emitMatmul } from './matmul.ts';
import { emitRow } from './row.ts';
import { emitSimple } from './simple.ts';

/** A kernel, and the function that queues it. */
type QueuedKernel = KernelSource & Launcher;
export type FunctionSource = EmittedFunction<QueuedKernel>;

/** Emits one function of a stage. */
export function emitFunction(
  lowered: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  dtype: CudaProductType,
): FunctionSource {
  const noted = (call: string, place: string) => `malc_note(run->status, ${call}, "${place}");`;
  return emitLoweredFunction<QueuedKernel>(lowered, stage, parameters, homes, kernels, {
    typeOf: elementType,
    emitKernel(kernel, surroundings) {
      const source = emitKernel(kernel, { ...surroundings, dtype });
      const launcher = emitLauncher(source, surroundings.storageOf);
      return { ...source, ...launcher, text: `${withUnused(source.text)}\n${launcher.text}` };
    },
    callText(name, source, places) {
      const given = ['run->queue', ...source.arguments.map(argument => argumentText(argument, places))];
      return noted(`${launcherName(name)}(${given.join(', ')})`, name);
    },
    copyText: (to, from, count, accumulate) =>
      noted(`malc_copy(${to}, ${from}, ${count}, ${accumulate}, run->queue)`, lowered.graph.name),
  });
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
    case 'gather':
    case 'scatter':
    case 'append':
      return emitSimple(kernel, surroundings);
    default:
      throw new Error(`there is no kernel for ${kernel.kind}`);
  }
}

function argumentText(argument: Argument, places: ReadonlyMap<Node, string>): string {
  switch (argument.kind) {
    case 'size':
      return `run->${argument.name}`;
    case 'input':
    case 'output':
      return places.get(argument.node)!;
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
