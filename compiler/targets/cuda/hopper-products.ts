// Products on Hopper GPUs (templates/cuda/product_sm90.h): which kernels can have them, in which tiles; the tensor maps of
// their operands; and how their device code is called.
import { countText } from '../../emission/index-text.ts';
import type { Names } from '../../emission/writer.ts';
import type { MatmulKernel } from '../../kernels/kernel.ts';
import { pairedColumns } from './finish.ts';
import type { Surroundings, TensorMap } from './kernel-source.ts';
import { columnCount, type GroupPlan, type Operand, type Product, partsOf, planGroup } from './product-plan.ts';
import { hopperShapes } from './product-tiles.ts';
import type { TileText } from './tile-text.ts';

/** Columns that a warp finishes at a time, of all products side by side. */
const chunkColumns = 128;
/** Columns, and rows or inner positions, of the boxes that TMA brings. */
const side = 64;
/** Parameters of a kernel have 4 KiB, and a map 128 bytes. */
const mostMaps = 16;

/**
 * Plans of a kernel's groups for Hopper GPUs, with tiles that are all of one shape; null where these would not serve: TMA
 * brings bfloat16 in runs that begin at multiples of 16 bytes, and a warp has whole heads where they may not be cut.
 * @param plans those for other GPUs
 */
export function planForHopper(
  { groups }: MatmulKernel,
  plans: readonly GroupPlan[],
  surroundings: Surroundings,
): readonly GroupPlan[] | null {
  const operands = plans.flatMap(({ products }) => products.flatMap(({ left, right }) => [left, right]));
  const areBrought = operands.every(({ storage, aligned }) => storage === 'bf16' && aligned === 8);
  if (!areBrought || plans.some(({ products }) => products.some(({ kind }) => kind !== 'bf16'))) return null;
  if (new Set(operands.map(mapKey)).size > mostMaps) return null;
  // The widest group decides for all of them.
  const free = groups.map(group => planGroup(group, surroundings, hopperShapes));
  const widest = free.reduce((most, plan) => (columnCount(plan.group) > columnCount(most.group) ? plan : most));
  const all = groups.map(group => planGroup(group, surroundings, [widest.tiling.shape]));
  const serve = all.every((plan, n) => {
    const isForced = plan.way === 'later' && plan.tiling.parts === 1 && plans[n]!.way !== 'later';
    return !isForced && chunkOf(plan) > 0;
  });
  return serve ? all : null;
}

/** Columns of each product that a warp finishes at a time: whole heads, and whole fragments of 8; 0 where none fits. */
function chunkOf(plan: GroupPlan): number {
  const most = chunkColumns / partsOf(plan);
  const step = plan.way === 'later' ? 1 : pairedColumns(plan.group.columns, plan.group.epilogue);
  if (step === 1) return most;
  return step % 8 === 0 ? Math.floor(most / step) * step : 0;
}

/** Says what is the same matrix in memory, read along its rows or across them. */
const mapKey = ({ node, copy }: Operand): string => `${node.id}${copy ? ' copy' : ''}`;

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
