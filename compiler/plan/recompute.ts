// Recompute: blocks whose forward pass runs again just before their backward pass, so that they need not keep what it reads
// meanwhile (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016).
//
// Of the blocks that have a backward pass the first n + 1 leave what they keep in one place, each over what the one before
// left. That of the last among them is still there when its backward pass begins, so that n run again, and n fewer places
// are needed. What a block reads, the residual stream, is kept of every such block anyway.
import type { Sizes } from '../graph/dimension.ts';
import type { Graph } from '../graph/graph.ts';
import { growthOf } from './extent.ts';
import { type LoweredFunction, planMemory } from './plan.ts';
import { storedExtent } from './storage.ts';

/** `none`; `block` for every block; or the share of blocks, from 0 to 1, whose place is saved. */
export type Recompute = 'none' | 'block' | number;

/**
 * How many of the blocks that have a backward pass run again: the first of them. The one after shares their place.
 * @throws Error for a share that is not from 0 to 1
 */
export function recomputedBlocks(recompute: Recompute, blocks: number): number {
  const share = recompute === 'none' ? 0 : recompute === 'block' ? 1 : recompute;
  if (!(share >= 0 && share <= 1)) throw new Error(`recompute is ${recompute}, no share from 0 to 1`);
  return Math.max(0, Math.min(blocks - 1, share > 0 ? Math.max(1, Math.round(share * blocks)) : 0));
}

/** What the function of a stage is called that runs its forward pass again. */
export const againName = (stage: string): string => `${stage}_again`;

/**
 * The launches of a forward function that make what it keeps, as a function of their own: the same kernels, and so the same
 * bits. What only the stream after the block needs is left out, and with it what the block adds to the loss besides, which
 * counts once.
 */
export function forwardAgain({ graph, schedule, storage }: LoweredFunction, name: string): LoweredFunction {
  const needed = new Set(graph.outputs.filter(isKept).map(({ node }) => node));
  const kernels = schedule.kernels
    .toReversed()
    .filter(kernel => {
      const runs = kernel.outputs.some(node => needed.has(node));
      if (runs) for (const input of kernel.inputs) needed.add(input);
      return runs;
    })
    .reverse();
  const made = new Set(kernels.flatMap(kernel => kernel.outputs));
  // The stream comes out again where a kernel makes it beside what is kept: the same bits in the same place.
  const outputs = graph.outputs.filter(output => isKept(output) || (output.name === 'y' && made.has(output.node)));
  const again: Graph = { ...graph, name, outputs };
  return { graph: again, schedule: { kernels }, storage, plan: planMemory(again, { kernels }, storage) };
}

/** What the forward passes of a program's blocks keep for their backward passes. */
export interface Kept {
  /** The stage of each block that has a backward pass, in the order of the forward pass. */
  readonly blocks: readonly string[];
  /** How many of the first run again; these and the one after them keep in one place. */
  readonly recomputed: number;
  /** Bytes of which every value's place is a multiple. */
  readonly alignment: number;
  /** By stage and name, the floats of each value that a block keeps, and what they grow with: '' (fixed), batch*time. */
  readonly values: Readonly<
    Record<string, Readonly<Record<string, { readonly floats: number; readonly growth: string }>>>
  >;
}

/** What one forward function keeps, by name. */
export function valuesKept({ graph, storage }: LoweredFunction): Kept['values'][string] {
  return Object.fromEntries(
    graph.outputs.filter(isKept).map(({ name, node }) => {
      const extent = storedExtent(node, storage(node));
      return [name.slice('saved.'.length), { floats: extent.count, growth: growthOf(extent) }];
    }),
  );
}

/**
 * Bytes of the memory for what is kept, exactly.
 * @param sizes `batch` and `time`
 * @param recomputed how many of the first blocks run again; those of the program where it is not given
 */
export function bytesKept(kept: Kept, sizes: Sizes, recomputed = kept.recomputed): number {
  const { blocks, alignment, values } = kept;
  const positions = (growth: string) =>
    growth === '' ? 1 : growth.split('*').reduce((product, name) => product * sizes[name]!, 1);
  const aligned = (bytes: number) => Math.ceil(bytes / alignment) * alignment;
  const bytes = blocks.map(stage =>
    Object.values(values[stage]!).reduce((sum, { floats, growth }) => sum + aligned(4 * floats * positions(growth)), 0),
  );
  const shared = Math.max(0, ...bytes.slice(0, recomputed + 1));
  return bytes.slice(recomputed + 1).reduce((sum, each) => sum + each, shared);
}

const isKept = ({ name }: Graph['outputs'][number]): boolean => name.startsWith('saved.');
