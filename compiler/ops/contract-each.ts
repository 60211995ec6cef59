// contract-each: the part of each row that belongs to a head, times that head's own matrix: what decoding with a latent
// cache needs to bring queries to the latent and values back (DeepSeek-V2, arXiv:2405.04434, section 2.1).
import type { Builder } from '../graph/builder.ts';
import { batch, type Dimension, dimension, sameDimensions, showDimensions, time } from '../graph/dimension.ts';
import type { Node, Primitive, Type } from '../graph/graph.ts';
import { zeros } from '../graph/tensor.ts';

const heads = dimension('heads', 3);
const headDim = dimension('head_dim', 4);
const latent = dimension('latent', 5);

/** How the operands fit together. */
export interface EachShape {
  readonly rows: readonly Dimension[];
  readonly heads: Dimension;
  readonly inner: Dimension;
  readonly outer: Dimension;
  /** Whether the matrices are [heads, outer, inner], or else [heads, inner, outer]. */
  readonly outerFirst: boolean;
}

/** @throws an internal error where `left` [rows.., heads, inner] and `right` [heads, ..] do not fit. */
export function eachShape(left: Type, right: Type): EachShape {
  const rows = left.dimensions.slice(0, -2);
  const [heads, inner] = left.dimensions.slice(-2);
  const [first, second, third] = right.dimensions;
  const outerFirst = third?.name === inner?.name;
  const [outer, shared] = outerFirst ? [second, third] : [third, second];
  if (right.dimensions.length !== 3 || !sameDimensions([heads!, inner!], [first!, shared!]))
    throw new Error(`contract-each: ${showDimensions(left.dimensions)} and ${showDimensions(right.dimensions)}`);
  return { rows, heads: heads!, inner: inner!, outer: outer!, outerFirst };
}

export const contractEach: Primitive<null> = {
  name: 'contract-each',
  doc: 'Each row of a head times the matrix of that head; inputs left [rows.., heads, inner], right [heads, ..].',
  kernel: 'contract-each',
  type([left, right]) {
    const { rows, heads, outer } = eachShape(left!, right!);
    return { dimensions: [...rows, heads, outer], dtype: 'f32' };
  },
  gradient() {
    throw new Error('contract-each: decoding is not differentiated');
  },
  reference([left, right], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const [count, inner] = left!.shape.slice(-2) as [number, number];
    const outer = output.shape.at(-1)!;
    const outerFirst = right!.names[2] === left!.names.at(-1);
    for (let row = 0; row < left!.data.length / inner; row++) {
      const matrix = (row % count) * inner * outer;
      for (let o = 0; o < outer; o++)
        for (let i = 0; i < inner; i++)
          output.data[row * outer + o]! +=
            left!.data[row * inner + i]! * right!.data[matrix + (outerFirst ? o * inner + i : i * outer + o)]!;
    }
    return output;
  },
  cases: [
    {
      inputs: [
        { dimensions: [batch, time, heads, headDim], dtype: 'f32' },
        { dimensions: [heads, headDim, latent], dtype: 'f32' },
      ],
      attributes: null,
      sizes: { batch: 2, time: 3 },
    },
    {
      inputs: [
        { dimensions: [batch, time, heads, latent], dtype: 'f32' },
        { dimensions: [heads, headDim, latent], dtype: 'f32' },
      ],
      attributes: null,
      sizes: { batch: 1, time: 1 },
    },
    {
      inputs: [
        { dimensions: [batch, time, heads, latent], dtype: 'f32' },
        { dimensions: [heads, headDim, latent], dtype: 'f32' },
      ],
      attributes: null,
      sizes: { batch: 3, time: 40 },
    },
  ],
};

/** Each row of a head times the matrix of that head. */
export const multiplyEach = (builder: Builder, left: Node, right: Node): Node =>
  builder.apply(contractEach, [left, right], null);
