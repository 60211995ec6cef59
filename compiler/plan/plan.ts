// The memory plan of one function: where each intermediate value lies. Values whose lifetimes do not meet share memory.
import { discarded, type Graph, type Node } from '../graph/graph.ts';
import type { Schedule } from '../kernels/kernel.ts';
import { aligned, growthOf } from './extent.ts';
import { type Storage, storedAsFloat, storedExtent } from './storage.ts';

/** A place among the buffers of one growth: floats from the start, for each combination of run-time positions. */
export interface Placement {
  readonly growth: string;
  readonly offset: number;
}

export interface Plan {
  readonly placements: ReadonlyMap<Node, Placement>;
  /** For each growth, the floats that the function's intermediate values need. */
  readonly totals: ReadonlyMap<string, number>;
}

interface Lifetime {
  readonly node: Node;
  readonly growth: string;
  readonly count: number;
  /** First and last kernel, by number, that touches it. */
  readonly from: number;
  readonly to: number;
}

/** A function ready to be emitted: what it computes, in which launches, in which memory. */
export interface LoweredFunction {
  readonly graph: Graph;
  readonly schedule: Schedule;
  readonly plan: Plan;
  /** How each value is stored. */
  readonly storage: Storage;
}

/**
 * Places every value that passes between kernels, except inputs, caches and outputs in place, which have a home outside the
 * function. Largest first, each at the lowest offset where no live value is in the way.
 */
export function planMemory(graph: Graph, schedule: Schedule, storage: Storage = storedAsFloat): Plan {
  const bound = outputsInPlace(graph);
  // A cache is written in place: the whole cache lies where the cache lay.
  for (const node of graph.nodes) if (node.primitive === null || node.primitive.name === 'append') bound.add(node);
  const placed: (Lifetime & { offset: number })[] = [];
  const lifetimes = lifetimesOf(graph, schedule, storage).filter(({ node }) => !bound.has(node));
  for (const lifetime of lifetimes.sort((a, b) => b.count - a.count || a.node.id - b.node.id)) {
    const inTheWay = placed
      .filter(other => other.growth === lifetime.growth && other.from <= lifetime.to && lifetime.from <= other.to)
      .sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const other of inTheWay) {
      if (offset + lifetime.count <= other.offset) break;
      offset = Math.max(offset, other.offset + other.count);
    }
    placed.push({ ...lifetime, offset });
  }
  const totals = new Map<string, number>();
  for (const { growth, offset, count } of placed) totals.set(growth, Math.max(totals.get(growth) ?? 0, offset + count));
  return { placements: new Map(placed.map(({ node, growth, offset }) => [node, { growth, offset }])), totals };
}

/**
 * Outputs that are computed right where the caller wants them. One that is added to a buffer and wanted elsewhere too is
 * not: it needs a place of its own, from which both are served in the end.
 */
export function outputsInPlace({ outputs }: Graph): Set<Node> {
  const inPlace = outputs.filter(({ name, node }) => {
    if (name.startsWith(discarded)) return false;
    const same = outputs.filter(output => output.node === node);
    return same.length === 1 || same.every(output => !output.accumulate);
  });
  return new Set(inPlace.map(output => output.node));
}

function lifetimesOf(graph: Graph, schedule: Schedule, storage: Storage): Lifetime[] {
  const last = new Map<Node, number>();
  schedule.kernels.forEach((kernel, index) => {
    for (const node of [...kernel.inputs, ...kernel.outputs]) last.set(node, index);
  });
  for (const { name, node } of graph.outputs) if (!name.startsWith(discarded)) last.set(node, schedule.kernels.length);
  return schedule.kernels.flatMap((kernel, from) =>
    kernel.outputs.map(node => {
      const extent = storedExtent(node, storage(node));
      return { node, growth: growthOf(extent), count: aligned(extent.count), from, to: last.get(node)! };
    }),
  );
}
