// What the emitter of a kernel form returns: a C function, and what a call must hand it.
import type { Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { Extent } from '../../plan/extent.ts';

export type Argument =
  | { readonly kind: 'size'; readonly name: string }
  | { readonly kind: 'input'; readonly node: Node; readonly name: string }
  | { readonly kind: 'output'; readonly node: Node; readonly name: string }
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
 * What products multiply. Everything else is float32 in any case: parameters, their gradients and moments, sums, norms,
 * softmax, losses.
 */
export const productTypes = ['f32', 'bf16'] as const;
export type ProductType = (typeof productTypes)[number];

/** What an emitter needs to know about the function that a kernel belongs to. */
export interface Surroundings {
  /** What a value is called. */
  nameOf(node: Node): string;
  /** True where an output is added to what its buffer holds. */
  accumulates(node: Node): boolean;
  /** The comment above the kernel. */
  comment: readonly string[];
  dtype: ProductType;
}

/** The run-time sizes that a list of tensors needs, in a fixed order. */
export function sizeArguments(tensors: readonly (readonly Dimension[])[]): Argument[] {
  const used = new Set(
    tensors
      .flat()
      .filter(dim => dim.size === null)
      .map(dim => dim.name),
  );
  return ['batch', 'time', 'context'].filter(name => used.has(name)).map(name => ({ kind: 'size', name }) as const);
}

/** The C type of a tensor's elements. */
export const elementType = ({ dtype }: Node): string => (dtype === 'i32' ? 'int32_t' : 'float');

/** The parameter list of a kernel's function. */
export const parameterList = (list: readonly Argument[]): string => list.flatMap(declarations).join(', ');

function declarations(argument: Argument): string[] {
  switch (argument.kind) {
    case 'size':
      return [`int64_t ${argument.name}`];
    case 'input':
      return [`const ${elementType(argument.node)} *restrict ${argument.name}`];
    case 'output':
      return [`${elementType(argument.node)} *restrict ${argument.name}`];
    case 'workspace':
      return ['float *restrict workspace'];
    case 'scratch':
      return ['float *restrict scratch', 'int64_t scratch_stride'];
    case 'text':
      throw new Error('a kernel with arguments of its own declares its own parameters');
  }
}
