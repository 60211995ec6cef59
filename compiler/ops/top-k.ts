// top-k: the places of the greatest scores of each row: which experts a token is sent to.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, dimension, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';

export interface TopKAttributes {
  /** The result's last dimension: as many places as it has positions. */
  readonly chosen: Dimension;
  /** The scores lie in so many groups of equal size, and only those of the best `top_groups` can be chosen; 1 and 1 for all. */
  readonly groups: number;
  readonly top_groups: number;
  /** What groups are compared by: the greatest score of each, or the sum of its two greatest. */
  readonly group_score: 'max' | 'top2';
}

const rows = dimension('rows', 7);
const experts = dimension('experts', 12);
const scores = { dimensions: [rows, experts], dtype: 'f32' } as const;
const ungrouped = { groups: 1, top_groups: 1, group_score: 'max' } as const;

export const topK: Primitive<TopKAttributes> = {
  name: 'top-k',
  doc: 'The places of the greatest scores of each row, in ascending order; of equal scores the earlier one is greater.',
  kernel: 'top-k',
  type([input], { chosen, groups, top_groups }) {
    const size = input!.dimensions.at(-1)?.size ?? 0;
    if (input!.dtype !== 'f32' || size === 0 || size % groups !== 0 || top_groups > groups)
      throw new Error(`top-k: ${showDimensions(input!.dimensions)} in ${groups} groups, ${top_groups} of them open`);
    if (!chosen.size || chosen.size > (size / groups) * top_groups)
      throw new Error(`top-k: ${chosen.size} of the ${(size / groups) * top_groups} scores that can be chosen`);
    return { dimensions: [...input!.dimensions.slice(0, -1), chosen], dtype: 'i32' };
  },
  // Places are whole numbers: nothing flows back through them.
  gradient: () => [null],
  reference([input], { chosen, groups, top_groups, group_score }, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const count = input!.shape.at(-1)!;
    const size = count / groups;
    for (let row = 0; row * count < input!.data.length; row++) {
      const own = input!.data.subarray(row * count, (row + 1) * count);
      const groupScores = Array.from({ length: groups }, (_, group) => {
        const [greatest, second] = own.slice(group * size, (group + 1) * size).sort((a, b) => b - a);
        return group_score === 'top2' ? greatest! + (second ?? 0) : greatest!;
      });
      const open = greatestOf([...groupScores.keys()], groupScores, top_groups);
      const candidates = [...own.keys()].filter(place => open.includes(Math.floor(place / size)));
      output.data.set(
        greatestOf(candidates, own, chosen.size!).sort((a, b) => a - b),
        row * chosen.size!,
      );
    }
    return output;
  },
  cases: [
    { inputs: [scores], attributes: { chosen: dimension('chosen', 3), ...ungrouped } },
    { inputs: [scores], attributes: { chosen: dimension('chosen', 12), ...ungrouped } },
    // Few values, so that many are equal.
    { inputs: [{ ...scores, range: [0, 1e-45] }], attributes: { chosen: dimension('chosen', 4), ...ungrouped } },
    {
      inputs: [scores],
      attributes: { chosen: dimension('chosen', 4), groups: 4, top_groups: 2, group_score: 'max' },
    },
    {
      inputs: [scores],
      attributes: { chosen: dimension('chosen', 5), groups: 3, top_groups: 2, group_score: 'top2' },
    },
    {
      inputs: [{ dimensions: [experts], dtype: 'f32' }],
      attributes: { chosen: dimension('chosen', 1), groups: 12, top_groups: 5, group_score: 'top2' },
    },
  ],
};

/** The `count` places with the greatest scores, greatest first; sorting is stable, so that ties go to the earlier one. */
const greatestOf = (places: readonly number[], scores: ArrayLike<number>, count: number): number[] =>
  [...places].sort((a, b) => scores[b]! - scores[a]!).slice(0, count);

/** The places of the greatest scores along the last dimension. */
export const chooseGreatest = (builder: Builder, scores: Node, attributes: TopKAttributes): Node =>
  builder.apply(topK, [scores], attributes);
