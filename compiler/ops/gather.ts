// gather: rows of a table, picked by an integer tensor: embeddings.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, dimension, product, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';
import { scatterAdd } from './scatter-add.ts';

const rows = dimension('rows', 4);
const vocabulary = dimension('vocabulary', 6);
const hidden = dimension('hidden', 3);

export const gather: Primitive<null> = {
  name: 'gather',
  doc: 'Rows of a table, picked by an integer tensor.',
  kernel: 'gather',
  type([table, indices]) {
    if (indices!.dtype !== 'i32' || table!.dimensions.length < 2)
      throw new Error(
        `gather: ${showDimensions(table!.dimensions)} by ${indices!.dtype}${showDimensions(indices!.dimensions)}`,
      );
    return { dimensions: [...indices!.dimensions, ...table!.dimensions.slice(1)], dtype: 'f32' };
  },
  gradient({ builder, inputs: [table, indices], gradient }) {
    return [builder.apply(scatterAdd, [indices!, gradient], { rows: table!.dimensions[0] as Dimension }), null];
  },
  reference([table, indices], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const width = product(table!.shape.slice(1));
    indices!.data.forEach((row, n) => {
      output.data.set(table!.data.subarray(row * width, (row + 1) * width), n * width);
    });
    return output;
  },
  cases: [
    {
      inputs: [
        { dimensions: [vocabulary, hidden], dtype: 'f32' },
        { dimensions: [rows], dtype: 'i32', range: [0, 5] },
      ],
      attributes: null,
    },
  ],
};

/** Row indices[...] of the table, for each index. */
export const gatherRows = (builder: Builder, table: Node, indices: Node): Node =>
  builder.apply(gather, [table, indices], null);
