// grouped: each row times the matrices that an integer tensor chose for it: the products of a mixture of experts.
// Dropless, as in MegaBlocks (Gale et al. 2022): whatever the choice, every row meets every matrix that it chose.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, dimension, hasDimension, sameDimensions, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive, Type } from '../graph/graph.ts';
import { type Tensor, zeros } from '../graph/tensor.ts';
import { groupedGradient } from './grouped-gradient.ts';
import { sumTo } from './map.ts';

export interface GroupedAttributes {
  /** The result's dimensions: those of the choice, then those of the weights that the left operand lacks. */
  readonly dimensions: readonly Dimension[];
}

/** How the operands of a grouped product fit together. */
export interface GroupedShape {
  /** Positions that choose, and the matrices that each chooses; together, the slots. */
  readonly rows: readonly Dimension[];
  readonly chosen: Dimension;
  readonly experts: Dimension;
  /** What is summed over, and what the weights add to the result. */
  readonly inner: readonly Dimension[];
  readonly outer: readonly Dimension[];
  /** Whether all slots of a row read the same left operand: it lacks `chosen`. */
  readonly shared: boolean;
  /** Whether the weights are [experts, outer, inner], or else [experts, inner, outer]. */
  readonly outerFirst: boolean;
}

/** @throws an internal error where `left` [rows.., (chosen,) inner..] and `weights` do not fit the choice [rows.., chosen]. */
export function groupedShape(left: Type, weights: Type, index: Type): GroupedShape {
  const fail = (rule: string): never => {
    const shown = [left, weights, index].map(({ dtype, dimensions }) => `${dtype}${showDimensions(dimensions)}`);
    throw new Error(`grouped: ${rule} in ${shown.join(', ')}`);
  };
  const rows = index.dimensions.slice(0, -1);
  const chosen = index.dimensions.at(-1);
  const [experts, ...matrix] = weights.dimensions;
  if (index.dtype !== 'i32' || !chosen?.size) return fail('the choice is no i32 [rows.., chosen]');
  if (!experts?.size) return fail('the weights have no experts');
  const shared = !hasDimension(left.dimensions, chosen.name);
  const inner = left.dimensions.filter(dim => hasDimension(matrix, dim.name));
  const outer = matrix.filter(dim => !hasDimension(inner, dim.name));
  if (!sameDimensions(left.dimensions, [...rows, ...(shared ? [] : [chosen]), ...inner]))
    fail('the left operand is no [rows.., inner..] or [rows.., chosen, inner..]');
  const outerFirst = sameDimensions(matrix, [...outer, ...inner]);
  if (!outerFirst && !sameDimensions(matrix, [...inner, ...outer])) fail('the weights are no matrices');
  return { rows, chosen, experts, inner, outer, shared, outerFirst };
}

const rows = dimension('rows', 5);
const chosen = dimension('chosen', 2);
const experts = dimension('experts', 3);
const hidden = dimension('hidden', 4);
const ffn = dimension('ffn', 3);

const f32 = (...dimensions: Dimension[]): Type => ({ dimensions, dtype: 'f32' });
/** A choice of the experts from the first to the last of these. */
const choice = (range: [number, number], ...dimensions: Dimension[]) => ({ dimensions, dtype: 'i32', range }) as const;

export const grouped: Primitive<GroupedAttributes> = {
  name: 'grouped',
  doc: 'Each row times the matrices chosen for it; inputs left, weights [experts, ..], index [rows.., chosen].',
  kernel: 'grouped',
  type([left, weights, index], { dimensions }) {
    const { rows, chosen, outer } = groupedShape(left!, weights!, index!);
    if (!sameDimensions(dimensions, [...rows, chosen, ...outer]))
      throw new Error(
        `grouped: ${showDimensions(dimensions)} is wanted, ${showDimensions([...rows, chosen, ...outer])} is made`,
      );
    return { dimensions, dtype: 'f32' };
  },
  gradient({ builder, inputs: [left, weights, index], gradient }) {
    const { rows, chosen, inner } = groupedShape(left!, weights!, index!);
    const ofSlots = builder.apply(grouped, [gradient, weights!, index!], { dimensions: [...rows, chosen, ...inner] });
    const ofWeights = builder.apply(groupedGradient, [left!, gradient, index!], { dimensions: weights!.dimensions });
    return [sumTo(builder, ofSlots, left!.dimensions), ofWeights, null];
  },
  reference([left, weights, index], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const { inner, outer, sharing, weightAt } = slotLayout(left!, weights!, index!);
    index!.data.forEach((expert, slot) => {
      const from = Math.floor(slot / sharing) * inner;
      for (let o = 0; o < outer; o++)
        for (let i = 0; i < inner; i++)
          output.data[slot * outer + o]! += left!.data[from + i]! * weights!.data[weightAt(expert, o, i)]!;
    });
    return output;
  },
  cases: [
    {
      inputs: [f32(rows, hidden), f32(experts, ffn, hidden), choice([0, 2], rows, chosen)],
      attributes: { dimensions: [rows, chosen, ffn] },
    },
    {
      inputs: [f32(rows, chosen, ffn), f32(experts, hidden, ffn), choice([0, 2], rows, chosen)],
      attributes: { dimensions: [rows, chosen, hidden] },
    },
    // Weights the other way round, and experts 0 and 2 without a row.
    {
      inputs: [f32(rows, hidden), f32(experts, hidden, ffn), choice([1, 1], rows, chosen)],
      attributes: { dimensions: [rows, chosen, ffn] },
    },
    // One row, as in decoding, and one expert without a row.
    {
      inputs: [f32(chosen, ffn), f32(experts, ffn, hidden), choice([0, 1], chosen)],
      attributes: { dimensions: [chosen, hidden] },
    },
  ],
};

/** Where the numbers of a grouped product lie, for the references. */
export function slotLayout(left: Tensor, weights: Tensor, index: Tensor) {
  // Slots that read the same row of the left operand.
  const sharing = left.names.includes(index.names.at(-1)!) ? 1 : index.shape.at(-1)!;
  const inner = (left.data.length * sharing) / index.data.length;
  const outer = weights.data.length / weights.shape[0]! / inner;
  const outerFirst = !left.names.includes(weights.names[1]!);
  const weightAt = (expert: number, o: number, i: number) =>
    expert * outer * inner + (outerFirst ? o * inner + i : i * outer + o);
  return { sharing, inner, outer, weightAt };
}

/** Each row of `left` times the matrices of `weights` that `index` chose for it. */
export function multiplyGrouped(builder: Builder, left: Node, weights: Node, index: Node): Node {
  const { rows, chosen, outer } = groupedShape(left, weights, index);
  return builder.apply(grouped, [left, weights, index], { dimensions: [...rows, chosen, ...outer] });
}
