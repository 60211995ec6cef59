// Schedules of a launch of products on Hopper GPUs, as plain data, and the cost model that ranks those that serve: clock
// cycles of the multiprocessor that ends last, from what it multiplies, what shared memory and the second-level cache hand it,
// and how evenly jobs fall on the multiprocessors. All figures are predictions; runtime/autotune-cuda.ts measures the first few.
import type { ProductWork, Tiling } from './product-tiles.ts';

/** How the products of a launch are computed: templates/cuda/product_sm90.h is a template over it. */
export interface HopperSchedule {
  /** Columns of a tile. A block has 128 of its rows. */
  readonly columns: 256 | 192 | 128;
  /** Blocks whose tiles lie one below the other, and which share the right operand's slices. */
  readonly cluster: 1 | 2;
  /** Slices of 64 inner positions in shared memory. */
  readonly stages: number;
  /** Boxes of 8 KB in which each of two warpgroups finishes its elements. */
  readonly boxes: number;
  /** Tiles' rows, of a whole cluster each, in a band: jobs go down a band before they go right. */
  readonly band: number;
  /** Of each group of the kernel, how many parts its inner positions are divided into at most. */
  readonly parts: readonly number[];
}

/** A schedule and what it costs, in cycles. */
export interface RankedSchedule {
  readonly schedule: HopperSchedule;
  readonly cycles: number;
}

/** What a call is assumed to have, and the GPU. */
export interface Circumstances {
  /** Sequences times their length. */
  readonly tokens: number;
  readonly multiprocessors: number;
}

/** A training step's micro-batch, on an H100 or H200. */
export const usualCircumstances: Circumstances = { tokens: 32_768, multiprocessors: 132 };

/** Rows of a block's tile, and inner positions of a slice. */
const [blockRows, slice] = [128, 64];
/** Columns of a box, which TMA brings: of a product, no tile has less. */
const boxColumns = 64;
const boxBytes = 8192;
/** What a block may have of shared memory, of which barriers take some. */
const sharedBytes = 232_448 - 512;
/** Fewer stages than this are not worth having boxes for more than one slot. */
const fewStages = 3;
const mostStages = 6;
const mostParts = 16;

/** Bytes that shared memory hands over in a cycle, and the second-level cache to each of 132 multiprocessors. */
const [bytesOfShared, bytesOfCache] = [128, 46.6];
/** Bytes that memory moves in a cycle: 4.3 TB/s at 1.755 GHz. */
const bytesOfMemory = 2450;
/** Cycles of finishing a tile of 256 columns that nothing hides. */
const finishing = 2000;
/** Cycles of a launch more. */
const launching = 4000;

/** Bytes of a stage: a slice of the left and of the right operand. */
const stageBytes = (columns: number): number => (blockRows + columns) * slice * 2;

/**
 * The schedules that serve a launch, best first.
 * @param groups one for each group of the kernel
 * @param slots boxes that finishing needs, and that it is best with
 */
export function rankSchedules(
  groups: readonly ProductWork[],
  slots: { readonly least: number; readonly best: number },
  circumstances: Circumstances = usualCircumstances,
): RankedSchedule[] {
  const ranked: (RankedSchedule & { read: number })[] = [];
  for (const columns of [256, 192, 128] as const)
    for (const cluster of [2, 1] as const) {
      const stagesWith = (boxes: number) =>
        Math.min(mostStages, Math.floor((sharedBytes - 2 * boxes * boxBytes) / stageBytes(columns)));
      const boxes = stagesWith(slots.best) >= fewStages ? slots.best : slots.least;
      const stages = stagesWith(boxes);
      const shape = { columns, cluster, stages, boxes };
      if (stages < 2 || groups.some(group => tilingFor(group, shape, 1) === null)) continue;
      const parts = chooseParts(groups, shape, circumstances);
      const cycles = launchCycles(groups, shape, parts, circumstances);
      for (const band of [8, 16, 4]) {
        const read = readTogether(shape, band, circumstances);
        ranked.push({ schedule: { ...shape, band, parts }, cycles, read });
      }
    }
  ranked.sort((a, b) => a.cycles - b.cycles || a.read - b.read);
  return ranked.map(({ schedule, cycles }) => ({ schedule, cycles }));
}

type Shape = Pick<HopperSchedule, 'columns' | 'cluster'>;

/** The tiling of a group that a schedule means; null where its tiles cannot hold what may not be cut, or share boxes. */
export function tilingFor({ beside, step, isDivisible }: ProductWork, shape: Shape, parts: number): Tiling | null {
  const { columns, cluster } = shape;
  const own = columns / beside;
  const width = Math.floor(own / step) * step;
  if (own % boxColumns !== 0 || width === 0) return null;
  return { shape: { rows: blockRows * cluster, columns }, width, parts: isDivisible ? parts : 1 };
}

/**
 * Parts of all groups together: from one each, the group is divided that the launch gains most by, until none gains. What
 * one group's parts leave idle, another's may fill, so that each by itself would be divided too much.
 */
function chooseParts(groups: readonly ProductWork[], shape: Shape, circumstances: Circumstances): readonly number[] {
  let best = groups.map(() => 1);
  let least = launchCycles(groups, shape, best, circumstances);
  for (let gains = true; gains; ) {
    gains = false;
    const before = best;
    groups.forEach(({ isDivisible }, which) => {
      if (!isDivisible) return;
      for (let count = 1; count <= mostParts; count++) {
        const parts = before.map((own, n) => (n === which ? count : own));
        const cycles = launchCycles(groups, shape, parts, circumstances);
        if (cycles >= least) continue;
        [best, least, gains] = [parts, cycles, true];
      }
    });
  }
  return best;
}

/** Cycles of a launch, and of the one that adds up parts. */
function launchCycles(
  groups: readonly ProductWork[],
  shape: Shape,
  parts: readonly number[],
  { tokens, multiprocessors }: Circumstances,
): number {
  const clusters = Math.floor(multiprocessors / shape.cluster);
  const busy = new Array<number>(clusters).fill(0);
  let [next, adding] = [0, 0];
  groups.forEach((work, n) => {
    const rows = work.rows ?? tokens;
    const inner = work.inner ?? tokens;
    const { width } = tilingFor(work, shape, 1)!;
    const tiles = Math.ceil(rows / (blockRows * shape.cluster)) * Math.ceil(work.columns / width);
    const jobs = tiles * work.results * parts[n]!;
    const cycles = jobCycles(shape, Math.ceil(inner / parts[n]!));
    // Cluster after cluster takes a job: all have as many, and the first few one more.
    const [each, more] = [Math.floor(jobs / clusters), jobs % clusters];
    for (let index = 0; index < clusters; index++)
      busy[(next + index) % clusters]! += (each + (index < more ? 1 : 0)) * cycles;
    next = (next + more) % clusters;
    const elements = work.results * rows * work.columns;
    if (parts[n]! > 1) adding += (elements * (4 * parts[n]! + 8)) / bytesOfMemory;
  });
  return Math.max(...busy) + (adding > 0 ? adding + launching : 0);
}

/** Cycles of a job: what multiplies, reads shared memory (two warpgroups) and fills it goes on at the same time. */
function jobCycles({ columns, cluster }: Shape, inner: number): number {
  const multiplying = (blockRows * columns * slice) / 2048;
  const read = 2 * (blockRows / 2 + columns) * slice * 2;
  const shared = (read + stageBytes(columns)) / bytesOfShared;
  const brought = ((blockRows + columns / cluster) * slice * 2) / bytesOfCache;
  return Math.ceil(inner / slice) * Math.max(multiplying, shared, brought) + (finishing * columns) / 256;
}

/** Rows of left and right operands that the jobs of one round read: the fewer, the more the second-level cache has. */
function readTogether({ columns, cluster }: Shape, band: number, { multiprocessors }: Circumstances): number {
  const clusters = Math.floor(multiprocessors / cluster);
  return band * blockRows * cluster + Math.ceil(clusters / band) * columns;
}

/** Shapes of tiles that are measured besides the most promising one. */
const shapesMeasured = 3;

/**
 * The first of ranked schedules, and what the cost model may be wrong about: the order of tiles, the parts of sums, and the
 * shape of tiles. Nothing of nothing.
 */
export function worthMeasuring(ranked: readonly HopperSchedule[]): readonly HopperSchedule[] {
  const [first] = ranked;
  if (first === undefined) return [];
  const shapeOf = ({ columns, cluster }: HopperSchedule) => `${columns} ${cluster}`;
  const shapes = [...new Map(ranked.toReversed().map(schedule => [shapeOf(schedule), schedule])).values()].reverse();
  const reordered = ranked.slice(1).filter(schedule => shapeOf(schedule) === shapeOf(first));
  const most = Math.max(...first.parts);
  const counts = most === 1 ? [2, 4] : [0.5 * most, 2 * most].map(count => Math.min(mostParts, Math.ceil(count)));
  const divided = counts.map(count => ({
    ...first,
    parts: first.parts.map(own => (own === most ? count : own)),
  }));
  return [
    first,
    ...reordered.slice(0, 1),
    ...divided,
    ...shapes.filter(schedule => schedule !== first).slice(0, shapesMeasured),
  ];
}

/** A schedule in words. */
export function describeSchedule({ columns, cluster, stages, band, parts }: HopperSchedule): string {
  const divided = parts.some(count => count > 1) ? `, parts ${parts.join(' + ')}` : '';
  return `128 x ${columns}, ${cluster === 1 ? 'no cluster' : 'clusters of 2'}, ${stages} stages, bands of ${band}${divided}`;
}
