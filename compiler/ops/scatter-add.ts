// scatter-add: adds rows into a table of zeros at places given by an integer tensor: the gradient of gather.
import { type Dimension, dimension, product, showDimensions } from '../graph/dimension.ts';
import type { Primitive } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';
import { gather } from './gather.ts';

export interface ScatterAttributes {
  /** The table's leading dimension. */
  readonly rows: Dimension;
}

const places = dimension('places', 4);
const vocabulary = dimension('vocabulary', 3);
const hidden = dimension('hidden', 2);

export const scatterAdd: Primitive<ScatterAttributes> = {
  name: 'scatter-add',
  doc: 'Adds rows into a table of zeros at places given by an integer tensor.',
  kernel: 'scatter',
  type([indices, updates], { rows }) {
    const leading = indices!.dimensions.length;
    if (indices!.dtype !== 'i32' || updates!.dimensions.length <= leading)
      throw new Error(`scatter-add: ${showDimensions(updates!.dimensions)} by ${showDimensions(indices!.dimensions)}`);
    return { dimensions: [rows, ...updates!.dimensions.slice(leading)], dtype: 'f32' };
  },
  gradient({ builder, inputs: [indices], gradient }) {
    return [null, builder.apply(gather, [gradient, indices!], null)];
  },
  reference([indices, updates], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const width = product(output.shape.slice(1));
    indices!.data.forEach((row, n) => {
      for (let column = 0; column < width; column++)
        output.data[row * width + column]! += updates!.data[n * width + column]!;
    });
    return output;
  },
  cases: [
    {
      inputs: [
        { dimensions: [places], dtype: 'i32', range: [0, 2] },
        { dimensions: [places, hidden], dtype: 'f32' },
      ],
      attributes: { rows: vocabulary },
    },
  ],
};
