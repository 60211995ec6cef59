// Emits a graph as one C++ function that queues its kernels in order, and the kernels, each distinct one once.
import { unusedParameters } from '../../emission/homes.ts';
import { countText } from '../../emission/index-text.ts';
import type { KernelLibrary } from '../../emission/kernel-library.ts';
import { canStore } from '../../emission/kernel-outputs.ts';
import type { FunctionNeeds } from '../../emission/memory-needs.ts';
import { kernelName, nameValues } from '../../emission/naming.ts';
import { declareValues, type Homes, placeValues } from '../../emission/places.ts';
import { ownName, Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import { explainKernel } from '../../kernels/explain.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { Extent } from '../../plan/extent.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { workOf, workOfCopy } from '../../plan/work.ts';
import { emitAttention } from './attention.ts';
import { emitGrouped } from './grouped.ts';
import {
  type Argument,
  type CudaProductType,
  elementType,
  type KernelSource,
  type Surroundings,
} from './kernel-source.ts';
import { emitMatmul } from './matmul.ts';
import { emitRow } from './row.ts';
import { emitSimple } from './simple.ts';

export interface FunctionSource extends FunctionNeeds {
  readonly text: string;
  /** Names of the kernels that it launches, in order. */
  readonly launches: readonly string[];
  /** Names of outputs that are added to their buffers, and stored there instead where the call says so. */
  readonly stored: readonly string[];
}

/** Sizes that the text of a launch may name. */
const sizes = ['batch', 'time', 'sequences', 'context'] as const;

/** Emits one function of a stage. */
export function emitFunction(
  { graph, schedule, plan, storage }: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  dtype: CudaProductType,
): FunctionSource {
  const values = placeValues(graph, homes);
  const { places, outputNames, isGradient } = values;
  const writer = new Writer();
  const launches: string[] = [];
  const workspaces: (readonly Extent[])[] = [];
  const stored: string[] = [];
  writer.block(`static void ${graph.name}(${parameters})`, () => {
    declareValues(writer, values, plan, parameters, node => elementType(node, storage(node)));
    const body = writer.inside();
    for (const kernel of schedule.kernels) {
      const names = nameValues(kernel, outputNames);
      const nameOf = (node: Node) => names.get(node)!;
      const surroundings: Surroundings = {
        nameOf,
        accumulates: values.accumulates,
        isGradient,
        comment: explainKernel(kernel, nameOf),
        dtype,
        storageOf: storage,
      };
      const source = emitKernel(kernel, surroundings);
      const text = withUnused(source.text);
      const wanted = `${stage}_${kernelName(kernel, outputNames)}`;
      const name = kernels.add({ text }, wanted, kernel.kind, surroundings.comment);
      launches.push(name);
      if (canStore.has(kernel.kind) || kernel.kind === 'grouped-gradient')
        stored.push(...kernel.outputs.filter(isGradient).map(node => outputNames.get(node)!));
      for (const argument of source.arguments) if (argument.kind === 'workspace') workspaces.push(argument.extents);
      const given = source.arguments.map(argument => argumentText(argument, places)).join(', ');
      for (const { kernel: own, grid, block, shared } of source.launches) {
        const launch = `malc_launch(${own}, ${grid}, ${block}, ${shared}, run->queue, ${given})`;
        body.line(`malc_note(run->status, ${launch}, "${own}");`.replaceAll(ownName, name));
      }
      kernels.launch(graph.name, name, workOf(kernel, surroundings.accumulates, storage));
    }
    for (const { from, to, accumulate } of values.copies) {
      const copy = `malc_copy(${to}, ${places.get(from)}, ${countText(from.dimensions)}, ${accumulate}, run->queue)`;
      body.line(`malc_note(run->status, ${copy}, "${graph.name}");`);
      kernels.launch(graph.name, 'copies', workOfCopy(from, accumulate));
    }
    // The names of sizes, beside the run's own members.
    const used = sizes.filter(name => new RegExp(`(?<!->)\\b${name}\\b`).test(body.toString()));
    if (used.length > 0) writer.line(`const int64_t ${used.map(name => `${name} = run->${name}`).join(', ')};`);
    writer.append(body);
  });
  return { name: graph.name, text: writer.toString(), launches, workspaces, scratch: 0, stored };
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
    case 'top-k':
    case 'within-capacity':
      return emitSimple(kernel, surroundings);
    case 'grouped':
    case 'grouped-gradient':
    case 'contract-each':
      return emitGrouped(kernel, surroundings);
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
