// grouped-gradient: the gradient of a grouped product with respect to its weights: each matrix collects from its own rows.
import { type Dimension, dimension, sameDimensions, showDimensions } from '../graph/dimension.ts';
import type { Primitive, Type } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';
import { groupedShape, slotLayout } from './grouped.ts';

export interface GroupedGradientAttributes {
  /** The weights' dimensions. */
  readonly dimensions: readonly Dimension[];
}

const rows = dimension('rows', 5);
const chosen = dimension('chosen', 2);
const experts = dimension('experts', 3);
const hidden = dimension('hidden', 4);
const ffn = dimension('ffn', 3);

const f32 = (...dimensions: Dimension[]): Type => ({ dimensions, dtype: 'f32' });
const choice = (range: [number, number], ...dimensions: Dimension[]) => ({ dimensions, dtype: 'i32', range }) as const;

export const groupedGradient: Primitive<GroupedGradientAttributes> = {
  name: 'grouped-gradient',
  doc: "The gradient of a grouped product's weights; inputs left, gradient [rows.., chosen, ..], index [rows.., chosen].",
  kernel: 'grouped-gradient',
  type([left, gradient, index], { dimensions }) {
    const { rows, chosen, outer } = groupedShape(left!, { dimensions, dtype: 'f32' }, index!);
    if (!sameDimensions(gradient!.dimensions, [...rows, chosen, ...outer]))
      throw new Error(
        `grouped-gradient: the gradient has ${showDimensions(gradient!.dimensions)}, the product ${showDimensions([...rows, chosen, ...outer])}`,
      );
    return { dimensions, dtype: 'f32' };
  },
  gradient() {
    throw new Error('grouped-gradient: second derivatives are not supported');
  },
  reference([left, gradient, index], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const { inner, outer, sharing, weightAt } = slotLayout(left!, output, index!);
    index!.data.forEach((expert, slot) => {
      const from = Math.floor(slot / sharing) * inner;
      for (let o = 0; o < outer; o++)
        for (let i = 0; i < inner; i++)
          output.data[weightAt(expert, o, i)]! += gradient!.data[slot * outer + o]! * left!.data[from + i]!;
    });
    return output;
  },
  cases: [
    {
      inputs: [f32(rows, hidden), f32(rows, chosen, ffn), choice([0, 2], rows, chosen)],
      attributes: { dimensions: [experts, ffn, hidden] },
    },
    {
      inputs: [f32(rows, chosen, ffn), f32(rows, chosen, hidden), choice([0, 2], rows, chosen)],
      attributes: { dimensions: [experts, hidden, ffn] },
    },
    // Weights the other way round; expert 1 gets all.
    {
      inputs: [f32(rows, hidden), f32(rows, chosen, ffn), choice([1, 1], rows, chosen)],
      attributes: { dimensions: [experts, hidden, ffn] },
    },
    // One row, which leaves an expert with nothing.
    {
      inputs: [f32(chosen, ffn), f32(chosen, hidden), choice([0, 1], chosen)],
      attributes: { dimensions: [experts, ffn, hidden] },
    },
  ],
};
