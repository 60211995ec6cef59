// Emits a graph as one C function that launches its kernels in order, and the kernels, each distinct one once.
import { type EmittedFunction, emitLoweredFunction } from '../../emission/functions.ts';
import type { KernelLibrary } from '../../emission/kernel-library.ts';
import type { Homes } from '../../emission/places.ts';
import type { Node } from '../../graph/graph.ts';
import type { Kernel } from '../../kernels/kernel.ts';
import type { LoweredFunction } from '../../plan/plan.ts';
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

export interface FunctionSource extends EmittedFunction<KernelSource> {
  /** The most floats that a launch needs for each thread. */
  readonly scratch: number;
  /** Parameters that its products read prepared. */
  readonly prepared: readonly PreparedForm[];
}

/**
 * Emits one function of a stage.
 * @param isParameter true for inputs that are kept prepared for products; in float32 nothing is
 */
export function emitFunction(
  lowered: LoweredFunction,
  stage: string,
  parameters: string,
  homes: Homes,
  kernels: KernelLibrary,
  dtype: ProductType = 'f32',
  isParameter: (label: string) => boolean = () => false,
  scheduleOf: ScheduleOf = chooseSchedule,
): FunctionSource {
  const emitted = emitLoweredFunction(lowered, stage, parameters, homes, kernels, {
    typeOf: elementType,
    emitKernel: (kernel, surroundings) =>
      emitKernel(kernel, {
        ...surroundings,
        dtype,
        isParameter: node => node.primitive === null && isParameter(node.label),
        scheduleOf,
      }),
    callText: (name, source, places) =>
      `${name}(${source.arguments.flatMap(argument => argumentText(argument, places)).join(', ')});`,
    copyText: (to, from, count, accumulate) =>
      accumulate
        ? `for (int64_t i = 0; i < ${count}; i++) ${to}[i] += ${from}[i];`
        : `memcpy(${to}, ${from}, (size_t)(${count}) * sizeof(float));`,
    // A prepared parameter is read, and no other form of it.
    readAs(source, storage) {
      const packed = new Set(
        source.arguments.flatMap(argument => (argument.kind === 'prepared' ? [argument.node] : [])),
      );
      return node => (packed.has(node) && dtype === 'bf16' ? 'bf16' : storage(node));
    },
  });
  const all = emitted.sources.flatMap(source => source.arguments);
  return {
    ...emitted,
    scratch: Math.max(0, ...all.map(argument => (argument.kind === 'scratch' ? argument.floats : 0))),
    prepared: all.flatMap(argument => (argument.kind === 'prepared' ? [argument.form] : [])),
  };
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
