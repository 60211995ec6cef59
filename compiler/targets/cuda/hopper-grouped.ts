// Grouped products on Hopper GPUs (templates/cuda/grouped_sm90.h): which can have them, by which schedules, and how they are
// launched: as many blocks as the GPU runs at once, which find on the device how many tiles there are.
import type { Runs } from './grouped-operands.ts';
import { leastBoxes, shapeType } from './hopper-products.ts';
import { type Circumstances, type HopperSchedule, type RankedSchedule, rankSchedules } from './hopper-schedule.ts';
import type { HopperSource, Launch, Surroundings, TensorMap } from './kernel-source.ts';

/** Sizes of a product for each of some experts. */
export interface GroupedWork {
  readonly rows: number;
  readonly columns: number;
  readonly inner: number;
  readonly experts: number;
}

/** Rows of a block's tile. */
const blockRows = 128;

/** What bounds the kernels: threads of a block, and blocks of a multiprocessor. */
export const hopperBounds = '384, 1';

/** Whether operands can be brought: they are bfloat16, in whole pieces of 16 bytes. */
const areBrought = ({ dtype }: Surroundings, operands: readonly Runs[]): boolean =>
  dtype === 'bf16' && operands.every(({ storage, aligned }) => storage === 'bf16' && aligned === 8);

/** The schedules of a product whose rows are slots, best first; none where other GPUs' kernel stays. */
export function rankSlots(
  surroundings: Surroundings,
  operands: readonly Runs[],
  work: GroupedWork,
  circumstances: Circumstances,
): readonly RankedSchedule[] {
  if (!areBrought(surroundings, operands)) return [];
  // Experts have more slots or fewer: on average, half of the last tile of each is empty.
  const ranked = ([1, 2] as const).flatMap(cluster =>
    rankInClusters({ ...work, rows: work.rows + (cluster * blockRows) / 2 }, cluster, circumstances),
  );
  return ranked.sort((a, b) => a.cycles - b.cycles);
}

/** The same of one whose inner positions are slots. What is gathered is not shared: a block is a cluster. */
export const rankGradient = (
  surroundings: Surroundings,
  operands: readonly Runs[],
  work: GroupedWork,
  circumstances: Circumstances,
): readonly RankedSchedule[] => (areBrought(surroundings, operands) ? rankInClusters(work, 1, circumstances) : []);

/** The schedules in clusters of so many blocks. */
function rankInClusters(
  { experts, ...work }: GroupedWork,
  cluster: HopperSchedule['cluster'],
  circumstances: Circumstances,
): RankedSchedule[] {
  const alone = { ...work, kind: 'bf16', results: experts, beside: 1, step: 1, isDivisible: false } as const;
  return rankSchedules([alone], { least: leastBoxes, best: leastBoxes }, circumstances).filter(
    ({ schedule }) => schedule.cluster === cluster,
  );
}

/** What says to a template how it multiplies. */
export const scheduleText = (schedule: HopperSchedule): string => `${shapeType(schedule)}, ${schedule.band}`;

/** Rows of a tile: those of all blocks of a cluster. */
export const tileRows = ({ cluster }: HopperSchedule): number => cluster * blockRows;

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
      overlaps: true,
      maps: maps.map(({ name }) => name),
    },
  ],
});
