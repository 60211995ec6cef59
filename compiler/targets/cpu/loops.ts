// Loops of the CPU's kernels: rows that threads divide, and columns that are vectorised.
import { coordinateName } from '../../emission/index-text.ts';
import type { Writer } from '../../emission/writer.ts';
import type { Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type PairAttributes, type PairSegment, pairSegments } from '../../ops/pair.ts';

/** The pragma of a loop of `count` runs, each of some `work` operations, that threads divide where they are worth waking. */
export const parallelFor = (writer: Writer, count: string, work: string): void =>
  writer.line(`#pragma omp parallel for schedule(static) if (malc_is_worth(${count}, ${work}))`);

/**
 * Nested loops over `columns`, the innermost vectorised. Where a node pairs elements along the last dimension, that loop
 * is cut into runs with a fixed distance to the partner.
 * @param pragma the simd pragma of the innermost loop
 */
export function columnLoops(
  writer: Writer,
  columns: readonly Dimension[],
  bounds: (dim: Dimension, axis: number) => readonly [from: string, to: string],
  members: Iterable<Node>,
  pragma: string,
  body: (at: Map<string, string>, segment: ReadonlyMap<string, number>) => void,
): void {
  const pairs = [...members]
    .filter(node => node.primitive?.name === 'pair')
    .map(node => node.attributes as PairAttributes);
  const at = new Map<string, string>();
  const visit = (axis: number): void => {
    const dim = columns[axis];
    if (!dim) {
      body(at, new Map());
      return;
    }
    const name = coordinateName(dim);
    at.set(dim.name, name);
    const [from, to] = bounds(dim, axis);
    if (axis < columns.length - 1) {
      writer.loop(name, from, to, () => visit(axis + 1));
      return;
    }
    for (const segment of segmentsOf(pairs, dim)) {
      const run = segment ?? { from, to, step: 1 };
      const distances = new Map(segment ? [[dim.name, segment.distance]] : []);
      writer.line(pragma);
      writer.loop(name, `${run.from}`, `${run.to}`, () => body(at, distances), run.step);
    }
  };
  visit(0);
}

function segmentsOf(pairs: readonly PairAttributes[], dim: Dimension): (PairSegment | null)[] {
  const [first, ...others] = pairs;
  if (!first) return [null];
  if (first.dimension !== dim.name || others.some(other => JSON.stringify(other) !== JSON.stringify(first)))
    throw new Error(`pairs along ${pairs.map(pair => pair.dimension).join(', ')} in one loop over ${dim.name}`);
  return pairSegments(first, dim.size!);
}
