// Emits a graph as one C function that launches its kernels in order, and the kernels, each distinct one once.

import { countText } from '../../emission/index-text.ts';
import type { KernelLibrary } from '../../emission/kernel-library.ts';
import { canStore } from '../../emission/kernel-outputs.ts';
import { kernelName, nameValues } from '../../emission/naming.ts';
import { declareValues, type Homes, placeValues } from '../../emission/places.ts';
import { Writer } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import { explainKernel } from '../../kernels/explain.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { Extent } from '../../plan/extent.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
import { type Work, workOf, workOfCopy } from '../../plan/work.ts';
import { emitAttention } from './attention.ts';
import { emitConvolution } from './convolution.ts';
import { emitGrouped } from './grouped.ts';
import { type Argument, elementType, type KernelSource, type ProductType, type Surroundings } from './kernel-source.ts';
import { emitMatmul } from './matmul.ts';
import { formName, type PreparedForm } from './prepared.ts';
import { emitRow } from './row.ts';
import { emitScan } from './scan.ts';
import { chooseSchedule, type ScheduleOf } from './schedule.ts';
import { emitSimple } from './simple.ts';

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
  const values = placeValues(graph, homes);
  const { places, outputNames, isGradient } = values;
  const writer = new Writer();
  const launches: string[] = [];
  const workspaces: (readonly Extent[])[] = [];
  const prepared: PreparedForm[] = [];
  let scratch = 0;
  const stored: string[] = [];
  /** Says whose the time since the last lap is. */
  const lap = (kernel: string, work: Work) => {
    const number = kernels.launch(graph.name, kernel, work);
    if (kernels.profile) writer.line(`malc_lap(run->watch, ${number});`);
  };
  writer.block(`static void ${graph.name}(${parameters})`, () => {
    declareValues(writer, values, plan, parameters, node => elementType(node, storage(node)));
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
    for (const { from, to, accumulate } of values.copies) {
      const count = countText(from.dimensions).replace(/\b(batch|time)\b/g, 'run->$1');
      if (accumulate) writer.line(`for (int64_t i = 0; i < ${count}; i++) ${to}[i] += ${places.get(from)}[i];`);
      else writer.line(`memcpy(${to}, ${places.get(from)}, (size_t)(${count}) * sizeof(float));`);
      lap('copies', workOfCopy(from, accumulate));
    }
  });
  return { name: graph.name, text: writer.toString(), launches, workspaces, scratch, prepared, stored };
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
