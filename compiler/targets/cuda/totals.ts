// Sums over all rows of what products make (gradients of biases), by templates/cuda/totals.h: of sums over a few rows, which
// Hopper's tiles leave while they are finished in place, or else of what the products have stored.
import { countText, plus, times } from '../../emission/index-text.ts';
import { constantCount } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { storedDimensions } from '../../plan/storage.ts';
import type { Job } from './jobs.ts';
import type { Surroundings } from './kernel-source.ts';
import { type GroupPlan, workspaceAt } from './product-plan.ts';

/** Rows that a warp sums up: malc_summed_rows of templates/cuda/product_sm90_finish.h. */
const summedRows = 16;
/** Columns of a block: malc_totals_columns. */
const blockColumns = 32;

/** Whether a group's totals are begun while it is finished in place. */
export const sumsInPlace = ({ passing }: GroupPlan): boolean => passing?.some(({ way }) => way === 'summed') ?? false;

/** What sums over a few rows take of the workspace: a sum of extents. */
export const sumsExtents = (plans: readonly GroupPlan[]): Extent[] =>
  plans.filter(sumsInPlace).flatMap(({ group: { rows, columns, totals } }) => {
    const { runtime, count } = extentOf(rows);
    const width = constantCount(columns);
    return totals.flatMap(() => [
      { runtime, count: Math.ceil((count * width) / summedRows) },
      { runtime: [], count: width },
    ]);
  });

/**
 * C++ text: where the sums over a few rows are of which a total is made, after all sums that are finished later; or what
 * follows all, for null.
 */
export function sumsAt(plans: readonly GroupPlan[], total: Node | null): string {
  const all = plans.filter(sumsInPlace).flatMap(({ group }) => group.totals.map(each => ({ each, group })));
  const before = all.slice(0, total ? all.findIndex(({ each }) => each === total) : all.length);
  const sizes = before.map(({ group: { rows, columns } }) =>
    times(`malc_ceil_divide(${countText(rows)}, malc_summed_rows)`, countText(columns)),
  );
  return plus(['workspace', workspaceAt(plans, null), ...sizes]);
}

/** What the blocks do that add up a total of a group. */
export function totalJob(
  plans: readonly GroupPlan[],
  plan: GroupPlan,
  total: Node,
  named: ReadonlyMap<Node, string>,
  surroundings: Surroundings,
): Job {
  const { rows, columns } = plan.group;
  const stored = total.inputs[0]!;
  const run = storedDimensions(stored, surroundings.storageOf(stored)).slice(rows.length);
  const from = sumsInPlace(plan)
    ? [sumsAt(plans, total), `malc_ceil_divide(${countText(rows)}, malc_summed_rows)`, countText(columns)]
    : [named.get(stored)!, countText(rows), countText(run)];
  const adds = surroundings.isGradient(total) ? 'adds' : String(surroundings.accumulates(total));
  const place = ['block * malc_totals_columns', countText(columns)];
  return {
    count: String(Math.ceil(constantCount(columns) / blockColumns)),
    print: body => body.line(`malc_column_totals(${[...from, ...place, named.get(total)!, adds].join(', ')});`),
  };
}
