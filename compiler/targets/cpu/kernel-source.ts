// What the emitter of a kernel form returns: a C function, and what a call must hand it.
import type { KernelSurroundings } from '../../emission/kernel-outputs.ts';
import type { Node } from '../../graph/graph.ts';
import type { Extent } from '../../plan/extent.ts';
import { type ElementStorage, type Storage, type StoringKernels, storedAsFloat } from '../../plan/storage.ts';
import type { PreparedForm } from './prepared.ts';
import type { ScheduleOf } from './schedule.ts';

export type Argument =
  | { readonly kind: 'size'; readonly name: string }
  | { readonly kind: 'input'; readonly node: Node; readonly name: string }
  | { readonly kind: 'output'; readonly node: Node; readonly name: string }
  /** A parameter as products read it. */
  | { readonly kind: 'prepared'; readonly node: Node; readonly name: string; readonly form: PreparedForm }
  /** Whether gradients are added to what their buffers hold, or stored: a call's first micro-batch stores them. */
  | { readonly kind: 'adds' }
  /** Memory that is the kernel's own while it runs: the sum of these extents. */
  | { readonly kind: 'workspace'; readonly extents: readonly Extent[] }
  /** Memory of each thread's own: floats a thread. */
  | { readonly kind: 'scratch'; readonly floats: number }
  /** An expression of the call, for a parameter that the function declares itself. */
  | { readonly kind: 'text'; readonly text: string };

export interface KernelSource {
  /** The function, with its own name as @NAME@, so that equal kernels can be recognised. */
  readonly text: string;
  readonly arguments: readonly Argument[];
}

/**
 * What products multiply: int8 are weights of 8 bits, for inference. Everything else is float32 in any case: parameters,
 * their gradients and moments, sums, norms, softmax, losses.
 */
export const productTypes = ['f32', 'bf16', 'int8'] as const;
export type ProductType = (typeof productTypes)[number];
/** Those that a model can be trained with. */
export const trainingTypes = ['f32', 'bf16'] as const satisfies readonly ProductType[];
export type TrainingType = (typeof trainingTypes)[number];

/** What programs of bfloat16 products store as bfloat16. */
export const cpuStoring: StoringKernels = {
  kinds: new Set(['matmul', 'row', 'attention', 'attention-gradient']),
  leastWidth: 32,
};

/** What an emitter needs to know about the function that a kernel belongs to. */
export interface Surroundings extends KernelSurroundings {
  dtype: ProductType;
  /** True for a parameter, which is kept as products read it. */
  isParameter(node: Node): boolean;
  /** How products are divided into tasks. */
  scheduleOf: ScheduleOf;
}

/** The C type of a tensor's elements. */
export const elementType = ({ dtype }: Node, storage: ElementStorage): string =>
  dtype === 'i32' ? 'int32_t' : storage === 'bf16' ? 'malc_bf16' : 'float';

/** An element as a float. */
export const widened = (element: string, { dtype }: Node, storage: ElementStorage): string =>
  dtype === 'i32' ? `(float)${element}` : storage === 'bf16' ? `malc_widen(${element})` : element;

/** A float as it is stored. */
export const narrowed = (value: string, storage: ElementStorage): string =>
  storage === 'bf16' ? `malc_narrow(${value})` : value;

/** The parameter list of a kernel's function. */
export const parameterList = (list: readonly Argument[], storageOf: Storage = storedAsFloat): string =>
  list.flatMap(argument => declarations(argument, storageOf)).join(', ');

function declarations(argument: Argument, storageOf: Storage): string[] {
  const type = (node: Node) => elementType(node, storageOf(node));
  switch (argument.kind) {
    case 'size':
      return [`int64_t ${argument.name}`];
    case 'input':
      return [`const ${type(argument.node)} *restrict ${argument.name}`];
    case 'output':
      return [`${type(argument.node)} *restrict ${argument.name}`];
    case 'prepared':
      return [`const float *restrict ${argument.name}`];
    case 'adds':
      return ['bool adds'];
    case 'workspace':
      return ['float *restrict workspace'];
    case 'scratch':
      return ['float *restrict scratch', 'int64_t scratch_stride'];
    case 'text':
      throw new Error('a kernel with arguments of its own declares its own parameters');
  }
}
