// Grouped products on Hopper GPUs (templates/cuda/grouped_sm90.h): which can have them, by which schedule, and how they are
// launched: as many blocks as the GPU runs at once, which find on the device how many tiles there are.
import type { ElementStorage } from '../../plan/storage.ts';
import { shapeType, stagingBytes } from './hopper-products.ts';
import { type HopperSchedule, type RankedSchedule, rankSchedules } from './hopper-schedule.ts';
import type { HopperSource, Launch, Surroundings, TensorMap } from './kernel-source.ts';
import type { ProductWork } from './product-tiles.ts';

/** How the runs of an operand lie in memory. */
export interface Runs {
  readonly storage: ElementStorage;
  /** Elements from run to run, and the largest power of two up to 8 that divides them. */
  readonly stride: number;
  readonly aligned: number;
}

/** A product for each expert. */
export interface GroupedWork extends Pick<ProductWork, 'columns'> {
  readonly rows: number;
  readonly inner: number;
  readonly experts: number;
}

/** Columns, and rows or inner positions, of the boxes that TMA brings. */
const side = 64;

/** Rows of a block's tile. */
const blockRows = 128;

/** What bounds the kernels: threads of a block, and blocks of a multiprocessor. */
export const hopperBounds = '384, 1';

/** Whether operands can be brought: they are bfloat16, in whole pieces of 16 bytes. */
const areBrought = ({ dtype }: Surroundings, operands: readonly Runs[]): boolean =>
  dtype === 'bf16' && operands.every(({ storage, aligned }) => storage === 'bf16' && aligned === 8);

/** The schedule of a product whose rows are slots; null where it has none. */
export function scheduleOfSlots(
  surroundings: Surroundings,
  operands: readonly Runs[],
  work: GroupedWork,
): HopperSchedule | null {
  if (!areBrought(surroundings, operands)) return null;
  // Experts have more slots or fewer: on average, half of the last tile of each is empty.
  const ranked = ([1, 2] as const).map(cluster => rankedFirst({ ...work, rows: work.rows + half(cluster) }, cluster));
  return ranked.reduce((best, next) => (next.cycles < best.cycles ? next : best)).schedule;
}

const half = (cluster: number): number => (cluster * blockRows) / 2;

/** The schedule of a product whose inner positions are slots; null where it has none. Gathered slices are not shared. */
export const scheduleOfGradient = (
  surroundings: Surroundings,
  operands: readonly Runs[],
  work: GroupedWork,
): HopperSchedule | null => (areBrought(surroundings, operands) ? rankedFirst(work, 1).schedule : null);

/** The best schedule in clusters of so many blocks. */
function rankedFirst({ experts, ...work }: GroupedWork, cluster: HopperSchedule['cluster']): RankedSchedule {
  const alone = { ...work, kind: 'bf16', results: experts, beside: 1, step: 1, isDivisible: false } as const;
  return rankSchedules([alone], stagingBytes).find(({ schedule }) => schedule.cluster === cluster)!;
}

/** What says to a template how it multiplies. */
export const scheduleText = (schedule: HopperSchedule): string => `${shapeType(schedule)}, ${schedule.band}`;

/** Rows of a tile: those of all blocks of a cluster. */
export const tileRows = ({ cluster }: HopperSchedule): number => cluster * blockRows;

/** The map of all experts' matrices, each of `rows` runs of `width` elements. */
export const matricesMap = (
  name: string,
  base: string,
  { width, rows, experts }: { readonly width: number; readonly rows: number; readonly experts: number },
  { stride }: Runs,
): TensorMap => ({
  name,
  base,
  sizes: [String(width), String(rows), String(experts)],
  strides: [String(stride), String(stride * rows)],
  box: { columns: side, rows: side },
});

/**
 * What is launched in place of other GPUs' kernels.
 * @param before what sorts the slots, as on every GPU
 * @param tiles C++ text: how many there are at most
 */
export const launchedOnHopper = (
  kernel: string,
  maps: readonly TensorMap[],
  before: readonly Launch[],
  schedule: HopperSchedule,
  tiles: string,
): HopperSource => ({
  maps,
  launches: [
    ...before.map(launch => ({ ...launch, maps: [] })),
    {
      kernel,
      grid: `malc_hopper_grid<${shapeType(schedule)}>(${tiles})`,
      block: '384',
      shared: `${shapeType(schedule)}::shared_bytes`,
      maps: maps.map(({ name }) => name),
    },
  ],
});
