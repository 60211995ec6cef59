// Grouped products on Hopper GPUs (templates/cuda/grouped_sm90.h): which can have them, in which tiles, and how they are
// launched: by as many blocks as the GPU runs at once, which find on the device how many tiles there are.
import type { ElementStorage } from '../../plan/storage.ts';
import type { HopperSource, Launch, Surroundings, TensorMap } from './kernel-source.ts';
import { chooseTiling, hopperShapes, type ProductWork, type TileShape } from './product-tiles.ts';

/** How the runs of an operand lie in memory. */
export interface Runs {
  readonly storage: ElementStorage;
  /** Elements from run to run, and the largest power of two up to 8 that divides them. */
  readonly stride: number;
  readonly aligned: number;
}

/** Columns, and rows or inner positions, of the boxes that TMA brings. */
const side = 64;

/** What bounds the kernels: threads of a block, and blocks of a multiprocessor. */
export const hopperBounds = '384, 1';

/**
 * The tiles of a product, each of a cluster of two blocks; null where it has none: only bfloat16 is multiplied, and whole
 * pieces of 16 bytes are gathered.
 */
export function tileOnHopper(
  { dtype }: Surroundings,
  operands: readonly Runs[],
  work: Pick<ProductWork, 'rows' | 'columns' | 'inner' | 'results'>,
): TileShape | null {
  if (!operands.every(({ storage, aligned }) => storage === 'bf16' && aligned === 8) || dtype !== 'bf16') return null;
  return chooseTiling({ ...work, kind: dtype, beside: 1, step: 1, isDivisible: false }, hopperShapes)!.shape;
}

/** The map of all experts' matrices, each of `rows` runs of `width` elements. */
export const matricesMap = (
  name: string,
  base: string,
  { width, rows, experts }: { readonly width: number; readonly rows: number; readonly experts: number },
  { stride }: Runs,
): TensorMap => ({
  name,
  base,
  sizes: [width, rows, experts].map(String) as [string, string, string],
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
  { columns }: TileShape,
  tiles: string,
): HopperSource => ({
  maps,
  launches: [
    ...before.map(launch => ({ ...launch, maps: [] })),
    {
      kernel,
      grid: `malc_hopper_grid(${tiles})`,
      block: '384',
      shared: `malc_hopper_shape<${columns}>::shared_bytes`,
      maps: maps.map(({ name }) => name),
    },
  ],
});
