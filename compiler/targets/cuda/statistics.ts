// Statistics of the rows that products make (templates/cuda/statistics.h), which norms ask for: of the parts that Hopper's
// tiles leave while they are finished in place, or else of what the products have stored.
import { Elements } from '../../emission/elements.ts';
import { countText, offsetText, plus, times } from '../../emission/index-text.ts';
import { assigned } from '../../emission/kernel-outputs.ts';
import type { Writer } from '../../emission/writer.ts';
import { constantCount } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { MatmulGroup } from '../../kernels/kernel.ts';
import { rowSum } from '../../ops/statistics.ts';
import { type Extent, extentOf } from '../../plan/extent.ts';
import { storedDimensions } from '../../plan/storage.ts';
import type { Job } from './jobs.ts';
import type { Surroundings } from './kernel-source.ts';
import type { GroupPlan } from './product-plan.ts';
import { sumsAt } from './totals.ts';

/** Threads of a block that completes statistics. */
export const statisticsThreads = 256;

/** Whether a group's statistics are begun while it is finished in place. */
const measuresInPlace = ({ passing }: GroupPlan): boolean => passing?.some(({ way }) => way === 'measured') ?? false;

/** The C++ type of a group's: malc_squares, or malc_moments. */
export const statisticType = ({ statistics }: MatmulGroup): string =>
  statistics!.members.every(node => (rowSum(node)?.kind ?? 'squares') === 'squares') ? 'malc_squares' : 'malc_moments';

/** What a group's parts take of the workspace. */
function partsExtent({ group, tiling }: GroupPlan): Extent {
  const { runtime, count } = extentOf(group.rows);
  const words = statisticType(group) === 'malc_squares' ? 1 : 2;
  return { runtime, count: count * words * Math.ceil(constantCount(group.columns) / tiling.width) };
}

/** What parts of statistics take of the workspace: a sum of extents. */
export const statisticsExtents = (plans: readonly GroupPlan[]): Extent[] =>
  plans.filter(measuresInPlace).map(partsExtent);

/** C++ text: where the parts of a group's statistics are, after all sums. */
export function statisticsAt(plans: readonly GroupPlan[], plan: GroupPlan): string {
  const before = plans.slice(0, plans.indexOf(plan)).filter(measuresInPlace);
  const sizes = before.map(each => times(countText(each.group.rows), String(wordsOfRow(each))));
  return plus([sumsAt(plans, null), ...sizes]);
}

const wordsOfRow = (plan: GroupPlan): number => partsExtent(plan).count / extentOf(plan.group.rows).count;

/**
 * What the blocks do that complete a group's statistics; none where it has none.
 * @param outputs the kernel's
 */
export function statisticsJobs(
  plans: readonly GroupPlan[],
  plan: GroupPlan,
  outputs: readonly Node[],
  named: ReadonlyMap<Node, string>,
  surroundings: Surroundings,
): Job[] {
  const { group, tiling } = plan;
  if (!group.statistics) return [];
  const { of } = group.statistics;
  const [rows, columns] = [countText(group.rows), countText(group.columns)];
  const type = statisticType(group);
  const own = group.statistics.members.filter(node => outputs.includes(node));
  if (measuresInPlace(plan)) {
    const from = [statisticsAt(plans, plan), 'row', columns, String(tiling.width)].join(', ');
    return [
      {
        count: `malc_ceil_divide(${rows}, ${statisticsThreads})`,
        print(body) {
          body.line(`const int64_t row = (int64_t)block * ${statisticsThreads} + threadIdx.x;`);
          body.line(`if (row >= ${rows}) return;`);
          body.line(`const ${type} of_row = malc_joined_parts<${type}>(${from});`);
          storeOfRow(body, own, group, named, surroundings);
        },
      },
    ];
  }
  const run = storedDimensions(of, surroundings.storageOf(of)).slice(group.rows.length);
  const warps = statisticsThreads / 32;
  return [
    {
      count: `malc_ceil_divide(${rows}, ${warps})`,
      print(body) {
        body.line(`const int64_t row = (int64_t)block * ${warps} + threadIdx.x / 32;`);
        body.line(`if (row >= ${rows}) return;`);
        const from = `${named.get(of)} + ${times('row', countText(run))}, ${columns}`;
        body.line(`const ${type} of_row = malc_measured_row<${type}>(${from});`);
        body.line('if (threadIdx.x % 32 > 0) return;');
        storeOfRow(body, own, group, named, surroundings);
      },
    },
  ];
}

/** Stores what is made of a row's statistics, which are `of_row`. */
function storeOfRow(
  body: Writer,
  outputs: readonly Node[],
  { statistics }: MatmulGroup,
  named: ReadonlyMap<Node, string>,
  surroundings: Surroundings,
): void {
  const { members } = statistics!;
  const value = (node: Node) => `${named.get(node)}_value`;
  for (const node of members) {
    const sum = rowSum(node);
    if (sum) body.line(`const float ${value(node)} = of_row.${sum.kind}();`);
  }
  const elements = new Elements(body, {
    inside: new Set(members.filter(node => rowSum(node) === null)),
    read: (node, at) =>
      members.includes(node) ? value(node) : `${named.get(node)}[${offsetText(node.dimensions, at)}]`,
    nameOf: value,
    bufferOf: node => named.get(node)!,
    segment: new Map(),
  });
  for (const node of outputs)
    body.line(assigned(`${named.get(node)}[row]`, elements.value(node, new Map()), node, surroundings));
}
