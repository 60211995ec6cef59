// How kernels of every target are told of their sizes, and how they leave their outputs: stored, or added to what is there.
import type { Dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import type { Storage } from '../plan/storage.ts';

/** What an emitter needs to know about the function that a kernel belongs to, whatever the target. */
export interface KernelSurroundings {
  /** What a value is called. */
  nameOf(node: Node): string;
  /** True where an output is added to what its buffer holds. */
  accumulates(node: Node): boolean;
  /** True for such an output that is a gradient: a kernel that has the argument `adds` stores it where that is false. */
  isGradient(node: Node): boolean;
  /** The comment above the kernel. */
  comment: readonly string[];
  /** How a value that the kernel reads or leaves is stored. */
  storageOf: Storage;
}

/** The argument of a kernel that adds gradients to their buffers, and that can store them as well. */
export const addsArgument = (outputs: readonly Node[], { isGradient }: KernelSurroundings) =>
  outputs.some(isGradient) ? [{ kind: 'adds' } as const] : [];

/** Stores an element of an output, or adds it. */
export function assigned(target: string, value: string, node: Node, surroundings: KernelSurroundings): string {
  if (surroundings.isGradient(node)) return `${target} = (adds ? ${target} : 0.0f) + ${value};`;
  return `${target} ${surroundings.accumulates(node) ? '+=' : '='} ${value};`;
}

/** The run-time sizes that a list of tensors needs, in a fixed order. */
export function sizeArguments(tensors: readonly (readonly Dimension[])[]) {
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
