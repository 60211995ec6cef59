// What the emitter of a kernel form returns: CUDA kernels, how they are launched, and what a call must hand them.
import type { KernelSurroundings } from '../../emission/kernel-outputs.ts';
import type { Node } from '../../graph/graph.ts';
import type { Extent } from '../../plan/extent.ts';
import { type ElementStorage, type Storage, type StoringKernels, storedAsFloat } from '../../plan/storage.ts';
import type { WeightCopy } from './weight-copies.ts';

/** What a kernel is handed. The declaration of a text ends with the parameter's name. */
export type Argument =
  | { readonly kind: 'size'; readonly name: string }
  | { readonly kind: 'input'; readonly node: Node; readonly name: string }
  | { readonly kind: 'output'; readonly node: Node; readonly name: string }
  /** A parameter's copy in bfloat16. */
  | { readonly kind: 'copy'; readonly node: Node; readonly name: string; readonly copy: WeightCopy }
  /** Memory that is the kernel's own while it runs: the sum of these extents, in floats. */
  | { readonly kind: 'workspace'; readonly extents: readonly Extent[] }
  /** Whether gradients are added to what their buffers hold, or stored: a call's first micro-batch stores them. */
  | { readonly kind: 'adds' }
  /** An expression of the call (over `run->...`), and the parameter that takes it. */
  | { readonly kind: 'text'; readonly text: string; readonly declaration: string };

/** What a call leaves out. */
export const absent = (declaration: string): Argument => ({ kind: 'text', text: 'nullptr', declaration });

/** One launch: C++ expressions over a call's sizes (batch, time, sequences, context), which are int64_t. */
export interface Launch {
  /** A __global__ function of the text: @NAME@, or @NAME@_second for a second stage. */
  readonly kernel: string;
  /** Blocks: a number, or `dim3(x, y, z)`. */
  readonly grid: string;
  /** Threads of a block, likewise. */
  readonly block: string;
  /** Bytes of dynamic shared memory. */
  readonly shared: string;
  /**
   * Whether it may start before the launch before it has ended: its kernel begins with malc_follow of launch.h, or with
   * what waits as that does once barriers are ready (malc_begin_jobs, attention_follow_sm90).
   */
  readonly overlaps?: boolean;
}

/** A tensor map, for TMA: encode_tensor_map of templates/cuda/launch.h. Counts are C++ text, as a launch's. */
export interface TensorMap {
  readonly name: string;
  /** The argument (its name) that is the tensor. */
  readonly base: string;
  /** Elements: columns, rows, and of up to two more dimensions. */
  readonly sizes: readonly [columns: string, rows: string, ...further: string[]];
  /** Elements from row to row, and from one to the next of each further dimension. */
  readonly strides: readonly [row: string, ...further: string[]];
  readonly box: { readonly columns: number; readonly rows: number | string };
}

/** What is launched on Hopper GPUs. */
export interface HopperLaunch extends Launch {
  /** What the kernel takes first, each as `const __grid_constant__ CUtensorMap`: names of maps. */
  readonly maps: readonly string[];
}

export interface HopperSource {
  readonly maps: readonly TensorMap[];
  readonly launches: readonly HopperLaunch[];
}

/** An operand that cuBLASLt reads: malc_cublas_operand of templates/cuda/cublas.h. */
export interface LibraryOperand {
  /** The argument (its name) that it is. */
  readonly base: string;
  /** C++ text: elements from run to run. */
  readonly stride: string;
  readonly run: 'inner' | 'outer';
}

/** A product that cuBLASLt multiplies: malc_cublas_product of templates/cuda/cublas.h. Sizes and strides are C++ text. */
export interface LibraryProduct {
  readonly sizes: readonly [rows: string, columns: string, inner: string];
  readonly left: LibraryOperand;
  readonly right: LibraryOperand;
  readonly result: {
    /** The argument (its name) that it is; null for sums in the workspace. */
    readonly output: string | null;
    /** Elements before it there. */
    readonly offset: string;
    readonly stride: string;
    /** Whether it is of bfloat16. */
    readonly narrow: boolean;
    /** C++ text: whether it is added to what is there. */
    readonly adds: string;
  };
}

/** What stands in for all launches where cuBLASLt is there and has the products' shapes. */
export interface LibrarySource {
  readonly products: readonly LibraryProduct[];
  /** Launches after it, for which the workspace begins with the sums. */
  readonly launches: readonly Launch[];
}

export interface KernelSource {
  /** The __global__ functions and what is theirs alone, the kernel's own name as @NAME@: equal kernels are recognised by it. */
  readonly text: string;
  /** All launches get these. */
  readonly arguments: readonly Argument[];
  /** In order, on one stream. */
  readonly launches: readonly Launch[];
  /** What stands in for them on Hopper GPUs, where there is something. */
  readonly hopper?: HopperSource;
  readonly library?: LibrarySource;
  /** How its products are divided, in words, where that was chosen among several ways. */
  readonly schedule?: string | null;
}

/** What products multiply. */
export const cudaProductTypes = ['f32', 'bf16'] as const;
export type CudaProductType = (typeof cudaProductTypes)[number];

/** What programs of bfloat16 products store as bfloat16; all of a launch's operands should be. */
export const cudaStoring: StoringKernels = {
  kinds: new Set([
    ...(['matmul', 'row', 'attention', 'attention-gradient'] as const),
    ...(['grouped', 'grouped-gradient', 'convolution', 'convolution-gradient'] as const),
  ]),
  leastWidth: 8,
};

/** What an emitter needs to know about the function that a kernel belongs to. */
export interface Surroundings extends KernelSurroundings {
  dtype: CudaProductType;
  /** True for a parameter of a program of bfloat16 products, of which these read a copy. */
  hasCopy(node: Node): boolean;
}

/** The C++ type of a tensor's elements. */
export const elementType = ({ dtype }: Node, storage: ElementStorage): string =>
  dtype === 'i32' ? 'int32_t' : storage === 'bf16' ? '__nv_bfloat16' : 'float';

/** An element as a float. */
export const widened = (element: string, { dtype }: Node, storage: ElementStorage): string =>
  dtype === 'i32' ? `(float)${element}` : storage === 'bf16' ? `__bfloat162float(${element})` : element;

/** A float as it is stored. */
export const narrowed = (value: string, storage: ElementStorage): string =>
  storage === 'bf16' ? `__float2bfloat16_rn(${value})` : value;

/** The parameter list of a kernel. */
export const parameterList = (list: readonly Argument[], storageOf: Storage = storedAsFloat): string =>
  list.map(argument => declaration(argument, storageOf)).join(', ');

/**
 * That of a kernel whose launches overlap the one before, which may still write its inputs when it begins: nvcc must not
 * read them as what never changes while a kernel runs (ld.global.nc), as it does what is __restrict__ and not written.
 * @param readsOutputs whether it reads what is an output of the launches before it, and so leaves some as they are
 */
export const overlappingParameterList = (
  list: readonly Argument[],
  storageOf: Storage = storedAsFloat,
  readsOutputs = false,
): string =>
  list
    .map(argument => {
      const text = declaration(argument, storageOf);
      return argument.kind === 'output' && !readsOutputs ? text : text.replace('__restrict__ ', '');
    })
    .join(', ');

function declaration(argument: Argument, storageOf: Storage): string {
  switch (argument.kind) {
    case 'size':
      return `int64_t ${argument.name}`;
    case 'input':
      return `const ${elementType(argument.node, storageOf(argument.node))} *__restrict__ ${argument.name}`;
    case 'output':
      return `${elementType(argument.node, storageOf(argument.node))} *__restrict__ ${argument.name}`;
    case 'copy':
      return `const __nv_bfloat16 *__restrict__ ${argument.name}`;
    case 'adds':
      return 'bool adds';
    case 'workspace':
      return 'float *__restrict__ workspace';
    case 'text':
      return argument.declaration;
  }
}
