// How the device code of a kind of tiles is called: what generated kernels differ in between GPUs.
import { countText } from '../../emission/index-text.ts';
import type { Passing } from './hopper-finish.ts';
import { columnCount, type GroupPlan, type Operand, type Product, partsOf } from './product-plan.ts';
import { tileType } from './product-tiles.ts';

export interface TileText {
  /**
   * Declares operands of a product, or of several side by side that are read alike, as one. Where a part of the tile is left
   * over, the last is repeated.
   */
  operand(name: string, operands: readonly Operand[], parts: number): string;
  /** Begins a tile at a place: statements. */
  begin(plan: GroupPlan, product: Product, place: string): readonly string[];
  /** Elements that are finished at once. */
  several(plan: GroupPlan): 1 | 2 | 4;
  /** The parameters of a function that finishes them: `sums`, `row` and `column` are among them, and `inside` if used. */
  finisher(plan: GroupPlan, usesInside: boolean): string;
  /** What two elements of a tensor that passes through shared memory are called among them. */
  twoOf(passing: Passing): string;
  /** Finishes all elements by `finish`. */
  finish(plan: GroupPlan): string;
}

/** Of tiles whose blocks bring and multiply alike: templates/cuda/product_bf16.h and product_f32.h. */
export class BlockTiles implements TileText {
  private readonly threads: number;
  private readonly nameOf: (operand: Operand) => string;

  /**
   * @param threads of a block
   * @param nameOf the argument that an operand is
   */
  constructor(threads: number, nameOf: (operand: Operand) => string) {
    this.threads = threads;
    this.nameOf = nameOf;
  }

  type({ tiling }: GroupPlan, { kind }: Product): string {
    return tileType(tiling.shape, kind, this.threads);
  }

  operand(name: string, operands: readonly Operand[], parts: number): string {
    const [{ storage, run, aligned, stride }] = operands as [Operand];
    const data = Array.from({ length: parts }, (_, n) => this.nameOf(operands[n] ?? operands.at(-1)!));
    const type = storage === 'bf16' ? '__nv_bfloat16' : 'float';
    const shape = [type, `malc_side::${run}`, aligned, ...(parts > 1 ? [parts] : [])].join(', ');
    return `const malc_operand<${shape}> ${name}{{${data.join(', ')}}, ${stride}};`;
  }

  begin(plan: GroupPlan, product: Product, place: string): readonly string[] {
    return [`${this.type(plan, product)} tile(${place});`];
  }

  several({ atOnce }: GroupPlan): 1 | 4 {
    return atOnce;
  }

  finisher(): string {
    return 'const auto &sums, int64_t row, int64_t column';
  }

  twoOf(): string {
    throw new Error('nothing passes through the shared memory of these tiles');
  }

  finish(plan: GroupPlan): string {
    return `tile.finish<${partsOf(plan)}, ${plan.atOnce}>(finish);`;
  }
}

/** What malc_tiles is made of. */
export const tilesText = ({ group, tiling: { shape, width, band } }: GroupPlan): string =>
  [countText(group.rows), columnCount(group), shape.rows, width, ...(band ? [band] : [])].join(', ');

/** Blocks for one product of a group that is finished later. */
export const blocksOfProduct = (plan: GroupPlan, { inner }: Product): string =>
  `malc_tiles(${tilesText(plan)}).count() * malc_part_count(${countText(inner)}, ${plan.tiling.parts})`;

/** Blocks for a group that is finished where it is computed. */
export function blocksHere(plan: GroupPlan): string {
  const { group, fewColumns } = plan;
  const tiles = `malc_tiles(${tilesText(plan)}).count()`;
  if (fewColumns === null) return tiles;
  return `(${countText(group.rows)} <= malc_few_rows ? ${Math.ceil(columnCount(group) / fewColumns)} : ${tiles})`;
}
