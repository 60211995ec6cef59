// Products on Hopper GPUs (templates/cuda/product_sm90.h): which kernels can have them, in which tiles; the tensor maps of
// their operands; and how their device code is called.
import { countText } from '../../emission/index-text.ts';
import type { Names } from '../../emission/writer.ts';
import type { Node } from '../../graph/graph.ts';
import type { MatmulKernel } from '../../kernels/kernel.ts';
import { pairedColumns } from './finish.ts';
import { boxesFor, isBoxed, type Passing, passingMap, passingOf, passingType } from './hopper-finish.ts';
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
/** Boxes that a warpgroup has in any case: what it finishes through memory takes as much. */
export const leastBoxes = 2;
/** Parameters of a kernel have 4 KiB, and a map 128 bytes. */
const mostMaps = 24;

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
  const works = plans.map(({ work }) => work);
  // A group that others finish later, may here be finished in place.
  const passing = plans.map(plan => passingOf({ ...plan, way: 'added' }, surroundings) ?? []);
  if (new Set(operands.map(mapKey)).size + passing.flat().length > mostMaps) return [];
  const needs = passing.map(boxesFor);
  const [least, best] = (['least', 'best'] as const).map(which =>
    Math.max(leastBoxes, ...needs.map(need => need[which])),
  ) as [number, number];
  return rankSchedules(works, { least, best }, circumstances).filter(({ schedule }) =>
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
  const plans = groups.map((group, n) => {
    const plan = planGroup(group, surroundings, work => {
      const tiling = tilingFor(work, schedule, schedule.parts[n]!);
      return tiling && { ...tiling, band: schedule.band };
    });
    return { ...plan, passing: passingOf(plan, surroundings) };
  });
  return { groups: plans, schedule };
}

/** The C++ type of a schedule: malc_hopper_shape of templates/cuda/product_sm90.h. */
export const shapeType = ({ columns, cluster, stages, boxes }: HopperSchedule): string =>
  `malc_hopper_shape<${[columns, cluster, stages, boxes].join(', ')}>`;

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
  /** The maps of tensors that pass through shared memory, and what two of their elements are called. */
  private readonly passing = new Map<Passing, { readonly map: TensorMap | null; readonly two: string }>();
  private readonly partsAt: (passing: Passing, plan: GroupPlan) => string;

  /**
   * @param nameOf the argument that an operand is
   * @param nameOfNode the argument that an input or output is
   * @param partsAt where the parts are that a total, or statistics, are made of: a C++ pointer
   */
  constructor(
    plans: readonly GroupPlan[],
    names: Names,
    nameOf: (operand: Operand) => string,
    nameOfNode: (node: Node) => string,
    partsAt: (passing: Passing, plan: GroupPlan) => string,
  ) {
    this.partsAt = partsAt;
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
    for (const { group, passing } of plans)
      for (const each of passing ?? []) {
        const base = nameOfNode(each.node);
        const map = isBoxed(each) ? passingMap(each, group, names.unique(`${base}_boxes`), base) : null;
        this.passing.set(each, { map, two: names.unique(`${base}_${each.way === 'measured' ? 'measured' : 'two'}`) });
      }
  }

  get maps(): readonly TensorMap[] {
    return [...this.byKey.values(), ...[...this.passing.values()].flatMap(({ map }) => map ?? [])];
  }

  operand(name: string, operands: readonly Operand[], parts: number): string {
    const [{ run }] = operands as [Operand];
    const maps = Array.from({ length: parts }, (_, n) => this.byKey.get(mapKey(operands[n] ?? operands.at(-1)!))!.name);
    const shape = [`malc_side::${run}`, ...(parts > 1 ? [parts] : [])].join(', ');
    return `const malc_mapped<${shape}> ${name}{{${maps.map(map => `&${map}`).join(', ')}}};`;
  }

  begin(plan: GroupPlan, _product: Product, place: string): readonly string[] {
    const from = (each: Passing) => {
      const { map } = this.passing.get(each)!;
      const parts = [this.partsAt(each, plan), countText(plan.group.columns)];
      if (each.way === 'measured') parts.push(String(plan.tiling.width));
      return map ? `&${map.name}` : parts.join(', ');
    };
    const declared = tensorsOf(plan).map((each, n) => `${passingType(each, plan.group)} passing_${n}(${from(each)});`);
    const isBrought = tensorsOf(plan).some(({ way }) => way === 'brought');
    const prepared = `tile.template prepare<${partsOf(plan)}>(${passingNames(plan).join(', ')});`;
    return [...declared, `tile.begin(${place});`, ...(isBrought ? [prepared] : [])];
  }

  several({ atOnce, passing }: GroupPlan): 1 | 2 | 4 {
    return passing ? 2 : atOnce;
  }

  finisher(plan: GroupPlan, usesInside: boolean): string {
    if (!plan.passing) return 'const auto &sums, int64_t row, int64_t column';
    const twos = tensorsOf(plan).map(each => `${each.way === 'brought' ? 'const ' : ''}auto &${this.twoOf(each)}`);
    return ['const auto &sums, int64_t row, int64_t column', usesInside ? 'bool inside' : 'bool', ...twos].join(', ');
  }

  twoOf(passing: Passing): string {
    return this.passing.get(passing)!.two;
  }

  finish(plan: GroupPlan): string {
    const parts = partsOf(plan);
    if (plan.passing)
      return `tile.template finish_in_place<${parts}>(${['finish', ...passingNames(plan)].join(', ')});`;
    return `tile.template finish_through_memory<${[parts, plan.atOnce, chunkOf(plan)].join(', ')}>(finish);`;
  }
}

const tensorsOf = ({ passing }: GroupPlan): readonly Passing[] => passing ?? [];
const passingNames = (plan: GroupPlan): string[] => tensorsOf(plan).map((_, n) => `passing_${n}`);
