// Recompute: blocks whose forward pass runs again just before their backward pass, so that they need not keep what it reads
// meanwhile (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016).
//
// The blocks that come first do it. They leave what they keep in one place, each over what the one before left, so that of
// the last among them it is still there when the backward pass begins: of n such blocks n - 1 run again, and n - 1 fewer
// places are needed. What a block reads, the residual stream, is kept of every block anyway.
import type { Graph } from '../graph/graph.ts';
import { type LoweredFunction, planMemory } from './plan.ts';

/** `none`; `block` for every block; or the share of blocks, from 0 to 1, whose place is saved. */
export type Recompute = 'none' | 'block' | number;

/**
 * How many of a model's blocks, the first ones, run again; the one after them shares their place besides.
 * @throws Error for a share that is not from 0 to 1
 */
export function recomputedBlocks(recompute: Recompute, blocks: number): number {
  const share = recompute === 'none' ? 0 : recompute === 'block' ? 1 : recompute;
  if (!(share >= 0 && share <= 1)) throw new Error(`recompute is ${recompute}, no share from 0 to 1`);
  return Math.min(blocks - 1, Math.round(share * blocks));
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

const isKept = ({ name }: Graph['outputs'][number]): boolean => name.startsWith('saved.');
