// What a block does for one product of a group that is finished later: it leaves its sums, or those of a part of the inner
// positions, in the workspace.
import { countText, plus, times } from '../../emission/index-text.ts';
import type { Writer } from '../../emission/writer.ts';
import { columnCount, type GroupPlan, workspaceAt } from './product-plan.ts';
import { type TileText, tilesText } from './tile-text.ts';

/**
 * Prints what a block does for a product.
 * @param plans those of the launch
 * @param number of the product in its group
 */
export function leaveSums(
  writer: Writer,
  plans: readonly GroupPlan[],
  plan: GroupPlan,
  number: number,
  tiles: TileText,
): void {
  const { group, products, tiling } = plan;
  const product = products[number]!;
  const inner = countText(product.inner);
  const columns = columnCount(group);
  writer.line(tiles.operand('left', [product.left], 1));
  writer.line(tiles.operand('right', [product.right], 1));
  writer.line(`const malc_tiles tiles(${tilesText(plan)});`);
  writer.line(`const malc_part part(${inner}, ${tiling.parts}, block / tiles.count());`);
  const before = number === 0 ? 'part.number' : `(${number * tiling.parts} + part.number)`;
  const start = plus([workspaceAt(plans, plan), times(before, countText([...group.rows, ...group.columns]))]);
  writer.line(`float *const part_sums = workspace + ${start};`);
  const several = tiles.several(plan);
  writer.line(`const auto finish = [&](${tiles.finisher(plan, true)}) {`);
  writer.inner(() => {
    if (several === 1) writer.line(`part_sums[row * ${columns} + column] = sums(0, row, column);`);
    else {
      const word = several === 2 ? 'two' : 'four';
      writer.line(`float ${word}[${several}];`);
      writer.line(`sums.${word}(${word}, 0, row, column);`);
      const condition = several === 2 ? 'if (inside) ' : '';
      writer.line(`${condition}malc_store_${several}(part_sums + row * ${columns} + column, ${word});`);
    }
  });
  writer.line('};');
  for (const line of tiles.begin(plan, product, 'tiles.place(block % tiles.count())')) writer.line(line);
  writer.line('tile.multiply(left, right, part.from, part.to);');
  writer.line(tiles.finish(plan));
}
