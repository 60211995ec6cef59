// What the emitter of a kernel form returns: CUDA kernels, how they are launched, and what a call must hand them.
import type { Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { Extent } from '../../plan/extent.ts';
import { type ElementStorage, type Storage, storedAsFloat } from '../../plan/storage.ts';

export type Argument =
  | { readonly kind: 'size'; readonly name: string }
  | { readonly kind: 'input'; readonly node: Node; readonly name: string }
  | { readonly kind: 'output'; readonly node: Node; readonly name: string }
  /** Memory that is the kernel's own while it runs: the sum of these extents, in floats. */
  | { readonly kind: 'workspace'; readonly extents: readonly Extent[] }
  /** Whether gradients are added to what their buffers hold, or stored: a call's first micro-batch stores them. */
  | { readonly kind: 'adds' }
  /** An expression of the call (over `run->...`), and the parameter that takes it. */
  | { readonly kind: 'text'; readonly text: string; readonly declaration: string };

/** One launch: C++ expressions over the names of the kernel's `size` arguments, which are int64_t. */
export interface Launch {
  /** A __global__ function of the text: @NAME@, or @NAME@_second for a second stage. */
  readonly kernel: string;
  /** Blocks: a number, or `dim3(x, y, z)`. */
  readonly grid: string;
  /** Threads of a block, likewise. */
  readonly block: string;
  /** Bytes of dynamic shared memory. */
  readonly shared: string;
}

export interface KernelSource {
  /** The __global__ functions and what is theirs alone, the kernel's own name as @NAME@: equal kernels are recognised by it. */
  readonly text: string;
  /** All launches get these. */
  readonly arguments: readonly Argument[];
  /** In order, on one stream. */
  readonly launches: readonly Launch[];
}

/** What products multiply. */
export const cudaProductTypes = ['f32', 'bf16'] as const;
export type CudaProductType = (typeof cudaProductTypes)[number];

/** What an emitter needs to know about the function that a kernel belongs to. */
export interface Surroundings {
  /** What a value is called. */
  nameOf(node: Node): string;
  /** True where an output is added to what its buffer holds. */
  accumulates(node: Node): boolean;
  /** True for such an output that is a gradient: a kernel that has the argument `adds` stores it where that is false. */
  isGradient(node: Node): boolean;
  /** The comment above the kernel. */
  comment: readonly string[];
  dtype: CudaProductType;
  /** How a value that the kernel reads or leaves is stored. */
  storageOf: Storage;
}

/** The argument of a kernel that adds gradients to their buffers, and that can store them as well. */
export const addsArgument = (outputs: readonly Node[], { isGradient }: Surroundings): Argument[] =>
  outputs.some(isGradient) ? [{ kind: 'adds' }] : [];

/** Kernels that have that argument where they add. */
export const canStore: ReadonlySet<string> = new Set(['matmul', 'row']);

/** Stores an element of an output, or adds it. */
export function assigned(target: string, value: string, node: Node, surroundings: Surroundings): string {
  if (surroundings.isGradient(node)) return `${target} = (adds ? ${target} : 0.0f) + ${value};`;
  return `${target} ${surroundings.accumulates(node) ? '+=' : '='} ${value};`;
}

/** The run-time sizes that a list of tensors needs, in a fixed order. */
export function sizeArguments(tensors: readonly (readonly Dimension[])[]): Argument[] {
  const used = new Set(
    tensors
      .flat()
      .filter(dim => dim.size === null)
      .map(dim => dim.name),
  );
  return ['batch', 'time', 'sequences', 'context']
    .filter(name => used.has(name))
    .map(name => ({ kind: 'size', name }) as const);
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

function declaration(argument: Argument, storageOf: Storage): string {
  switch (argument.kind) {
    case 'size':
      return `int64_t ${argument.name}`;
    case 'input':
      return `const ${elementType(argument.node, storageOf(argument.node))} *__restrict__ ${argument.name}`;
    case 'output':
      return `${elementType(argument.node, storageOf(argument.node))} *__restrict__ ${argument.name}`;
    case 'adds':
      return 'bool adds';
    case 'workspace':
      return 'float *__restrict__ workspace';
    case 'text':
      return argument.declaration;
  }
}
