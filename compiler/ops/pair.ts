// pair: each element's partner along a dimension: what a rotation of pairs (rope) needs besides arithmetic.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, dimension, hasDimension, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { forEachIndex, strides, zeros } from '../graph/tensor.ts';

export interface PairAttributes {
  readonly dimension: string;
  /** `span` positions from `from` on are paired; the rest stand alone. */
  readonly from: number;
  readonly span: number;
  /** Pairs are neighbours, 2 i and 2 i + 1, instead of i and i + span / 2. */
  readonly interleaved: boolean;
}

/** Positions from, from + step, ... below `to`, whose partner lies at a fixed distance. */
export interface PairSegment {
  readonly from: number;
  readonly to: number;
  readonly step: number;
  readonly distance: number;
}

/** The dimension cut into runs with one distance each: what an emitter loops over. */
export function pairSegments({ from, span, interleaved }: PairAttributes, size: number): PairSegment[] {
  const [half, end] = [span / 2, from + span];
  const paired = interleaved
    ? [
        { from, to: end, step: 2, distance: 1 },
        { from: from + 1, to: end, step: 2, distance: -1 },
      ]
    : [
        { from, to: from + half, step: 1, distance: half },
        { from: from + half, to: end, step: 1, distance: -half },
      ];
  const alone = (first: number, to: number) => ({ from: first, to, step: 1, distance: 0 });
  return [alone(0, from), ...paired, alone(end, size)].filter(segment => segment.from < segment.to);
}

const rows: Dimension = dimension('rows', 2);
const headDim: Dimension = dimension('head_dim', 6);

export const pair: Primitive<PairAttributes> = {
  name: 'pair',
  doc: "Each element's partner along a dimension: its neighbour, or the element half a span away.",
  kernel: 'row',
  type([input], attributes) {
    const dim = input!.dimensions.find(candidate => candidate.name === attributes.dimension);
    if (
      !dim?.size ||
      attributes.from + attributes.span > dim.size ||
      attributes.span % 2 !== 0 ||
      !hasDimension(input!.dimensions, dim.name)
    )
      throw new Error(
        `pair: ${attributes.span} from ${attributes.from} on of ${attributes.dimension} in ${showDimensions(input!.dimensions)}`,
      );
    return { dimensions: input!.dimensions, dtype: 'f32' };
  },
  // Partners are partners of each other: the gradient goes back the same way.
  gradient: ({ builder, attributes, gradient }) => [builder.apply(pair, [gradient], attributes)],
  reference([input], attributes, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const axis = output.names.indexOf(attributes.dimension);
    const step = strides(output.shape)[axis]!;
    const segments = pairSegments(attributes, output.shape[axis]!);
    forEachIndex(output.shape, (index, linear) => {
      const at = index[axis]!;
      const { distance } = segments.find(({ from, to, step }) => at >= from && at < to && (at - from) % step === 0)!;
      output.data[linear] = input!.data[linear + distance * step]!;
    });
    return output;
  },
  cases: [
    {
      inputs: [{ dimensions: [rows, headDim], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 0, span: 6, interleaved: false },
    },
    {
      inputs: [{ dimensions: [rows, headDim], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 0, span: 4, interleaved: true },
    },
    {
      inputs: [{ dimensions: [rows, headDim], dtype: 'f32' }],
      attributes: { dimension: 'head_dim', from: 2, span: 4, interleaved: false },
    },
  ],
};

/** The partner of each element of `node`. */
export const partners = (builder: Builder, node: Node, attributes: PairAttributes): Node =>
  builder.apply(pair, [node], attributes);
