// Products on Hopper GPUs (templates/cuda/product_sm90.h): which kernels can have them, in which tiles; the tensor maps of
// their operands; and how their device code is called.
import { countText } from '../../emission/index-text.ts';
import type { Names } from '../../emission/writer.ts';
import type { MatmulKernel } from '../../kernels/kernel.ts';
import { pairedColumns } from './finish.ts';
import {
  type HopperSchedule,
  type RankedSchedule,
  rankSchedules,
  tilingFor,
  usualCircumstances,
} from './hopper-schedule.ts';
import type { Surroundings, TensorMap } from './kernel-source.ts';
import { type GroupPlan, type Operand, type Product, partsOf, planGroup } from './product-plan.ts';
import type { TileText } from './tile-text.ts';

/** Columns that a warp finishes at a time, of all products side by side. */
const chunkColumns = 128;
/** Columns, and rows or inner positions, of the boxes that TMA brings. */
const side = 64;
/** Bytes of shared memory that a block finishes its sums in: malc_hopper_shape::chunk_bytes for each of eight warps. */
export const stagingBytes = 8 * 8 * (chunkColumns + 8) * 4;
/** Parameters of a kernel have 4 KiB, and a map 128 bytes. */
const mostMaps = 16;

/** How a kernel's groups are computed on Hopper GPUs. */
export interface HopperPlan {
  readonly groups: readonly GroupPlan[];
  readonly schedule: HopperSchedule;
}

/**
 * The schedules that serve a kernel, best first; none where TMA cannot bring its operands, which are bfloat16 in runs that
 * begin at multiples of 16 bytes, or where a warp would have to cut heads that may not be cut.
 * @param plans those for other GPUs
 */
export function schedulesForHopper(
  kernel: MatmulKernel,
  plans: readonly GroupPlan[],
  surroundings: Surroundings,
  circumstances = usualCircumstances,
): readonly RankedSchedule[] {
  const operands = plans.flatMap(({ products }) => products.flatMap(({ left, right }) => [left, right]));
  const areBrought = operands.every(({ storage, aligned }) => storage === 'bf16' && aligned === 8);
  if (!areBrought || plans.some(({ products }) => products.some(({ kind }) => kind !== 'bf16'))) return [];
  if (new Set(operands.map(mapKey)).size > mostMaps) return [];
  const works = plans.map(({ work }) => work);
  return rankSchedules(works, stagingBytes, circumstances).filter(({ schedule }) =>
    planForHopper(kernel, schedule, surroundings).groups.every((plan, n) => {
      const isForced = plan.way === 'later' && plan.tiling.parts === 1 && plans[n]!.way !== 'later';
      return !isForced && chunkOf(plan) > 0;
    }),
  );
}

/** The plans of a kernel's groups that follow a schedule. */
export function planForHopper(
  { groups }: MatmulKernel,
  schedule: HopperSchedule,
  surroundings: Surroundings,
): HopperPlan {
  const plans = groups.map((group, n) =>
    planGroup(group, surroundings, work => {
      const tiling = tilingFor(work, schedule, schedule.parts[n]!);
      return tiling && { ...tiling, band: schedule.band };
    }),
  );
  return { groups: plans, schedule };
}

/** The C++ type of a schedule: malc_hopper_shape of templates/cuda/product_sm90.h. */
export const shapeType = ({ columns, cluster, stages }: HopperSchedule): string =>
  `malc_hopper_shape<${[columns, cluster, stages].join(', ')}>`;

/** Columns of each product that a warp finishes at a time: whole heads, and whole fragments of 8; 0 where none fits. */
function chunkOf(plan: GroupPlan): number {
  const most = chunkColumns / partsOf(plan);
  const step = plan.way === 'later' ? 1 : pairedColumns(plan.group.columns, plan.group.epilogue);
  if (step === 1) return most;
  return step % 8 === 0 ? Math.floor(most / step) * step : 0;
}

/** Says what is the same matrix in memory, read along its rows or across them. */
const mapKey = ({ node, copy, stride }: Operand): string => `${node.id} ${copy ? 'copy' : 'itself'} ${stride}`;

/** The text of Hopper's tiles, and the tensor maps that it names. */
export class HopperTiles implements TileText {
  private readonly byKey: ReadonlyMap<string, TensorMap>;

  /** @param nameOf the argument that an operand is */
  constructor(plans: readonly GroupPlan[], names: Names, nameOf: (operand: Operand) => string) {
    const byKey = new Map<string, TensorMap>();
    for (const { left, right, inner } of plans.flatMap(({ products }) => products))
      for (const operand of [left, right]) {
        const key = mapKey(operand);
        if (byKey.has(key)) continue;
        const { run, outer, stride } = operand;
        const base = nameOf(operand);
        byKey.set(key, {
          name: names.unique(`${base}_map`),
          base,
          sizes: run === 'inner' ? [countText(inner), outer] : [outer, countText(inner)],
          strides: [stride],
          box: { columns: side, rows: side },
        });
      }
    this.byKey = byKey;
  }

  get maps(): readonly TensorMap[] {
    return [...this.byKey.values()];
  }

  operand(name: string, operands: readonly Operand[], parts: number): string {
    const [{ run }] = operands as [Operand];
    const maps = Array.from({ length: parts }, (_, n) => this.byKey.get(mapKey(operands[n] ?? operands.at(-1)!))!.name);
    const shape = [`malc_side::${run}`, ...(parts > 1 ? [parts] : [])].join(', ');
    return `const malc_mapped<${shape}> ${name}{{${maps.map(map => `&${map}`).join(', ')}}};`;
  }

  begin(_plan: GroupPlan, _product: Product, place: string): string {
    return `tile.begin(${place});`;
  }

  finish(plan: GroupPlan): string {
    return `tile.template finish<${[partsOf(plan), plan.atOnce, chunkOf(plan)].join(', ')}>`;
  }
}
