// contract: the product of two tensors, summed over the dimensions that both have and the result lacks: every matmul.
import type { Builder } from '../graph/builder.ts';
import { type Dimension, hasDimension, showDimensions } from '../graph/dimension.ts';
import type { Node, Primitive } from '../graph/graph.ts';
import { dot, forEachIndex, stridesAlong, zeros } from '../graph/tensor.ts';

export interface ContractAttributes {
  /** The result's dimensions: first those of the left operand, then those of the right. */
  readonly dimensions: readonly Dimension[];
  /** True where the operands are float32 whatever the program's products multiply: routers, whose choices rounding turns. */
  readonly exact?: true;
}

const rows: Dimension = { name: 'rows', size: 3 };
const heads: Dimension = { name: 'heads', size: 2 };
const headDim: Dimension = { name: 'head_dim', size: 2 };
const hidden: Dimension = { name: 'hidden', size: 5 };

export const contract: Primitive<ContractAttributes> = {
  name: 'contract',
  doc: 'The product of two tensors, summed over the dimensions that both have and the result lacks.',
  kernel: 'matmul',
  type([left, right], { dimensions }) {
    const show = () =>
      `${showDimensions(left!.dimensions)} and ${showDimensions(right!.dimensions)} to ${showDimensions(dimensions)}`;
    for (const dim of left!.dimensions) {
      const other = right!.dimensions.find(candidate => candidate.name === dim.name);
      if (other && other.size !== dim.size)
        throw new Error(`contract: ${dim.name} is ${dim.size} and ${other.size} in ${show()}`);
      if (other && hasDimension(dimensions, dim.name))
        throw new Error(`contract: ${dim.name} would be a batch dimension in ${show()}`);
    }
    const kept = [...left!.dimensions, ...right!.dimensions].filter(dim => hasDimension(dimensions, dim.name));
    if (kept.length !== dimensions.length)
      throw new Error(`contract: the result has a dimension of its own in ${show()}`);
    return { dimensions, dtype: 'f32' };
  },
  gradient({ builder, inputs: [left, right], attributes, gradient }) {
    return [
      builder.apply(contract, operandsFor(left!, gradient, right!), { ...attributes, dimensions: left!.dimensions }),
      builder.apply(contract, operandsFor(right!, gradient, left!), { ...attributes, dimensions: right!.dimensions }),
    ];
  },
  reference([left, right], _, result, sizes) {
    const output = zeros(result.dimensions, sizes);
    const inner = left!.names.filter(name => right!.names.includes(name));
    const innerShape = inner.map(name => left!.shape[left!.names.indexOf(name)]!);
    const leftOuter = stridesAlong(left!, output.names);
    const rightOuter = stridesAlong(right!, output.names);
    const leftInner = stridesAlong(left!, inner);
    const rightInner = stridesAlong(right!, inner);
    // The inner offsets are the same for every element of the result.
    const offsets: [number, number][] = [];
    forEachIndex(innerShape, index => offsets.push([dot(index, leftInner), dot(index, rightInner)]));
    forEachIndex(output.shape, (index, linear) => {
      const leftAt = dot(index, leftOuter);
      const rightAt = dot(index, rightOuter);
      let total = 0;
      for (const [a, b] of offsets) total += left!.data[leftAt + a]! * right!.data[rightAt + b]!;
      output.data[linear] = total;
    });
    return output;
  },
  cases: [
    {
      inputs: [
        { dimensions: [rows, hidden], dtype: 'f32' },
        { dimensions: [heads, headDim, hidden], dtype: 'f32' },
      ],
      attributes: { dimensions: [rows, heads, headDim] },
    },
    {
      inputs: [
        { dimensions: [rows, heads, headDim], dtype: 'f32' },
        { dimensions: [hidden, heads, headDim], dtype: 'f32' },
      ],
      attributes: { dimensions: [rows, hidden] },
    },
  ],
};

/** The two factors, in the order in which the result's leading dimensions come from the first. */
function operandsFor(result: Node, gradient: Node, other: Node): [Node, Node] {
  return hasDimension(gradient.dimensions, result.dimensions[0]!.name) ? [gradient, other] : [other, gradient];
}

/** Whether it is a product whose operands are never rounded, as a router's. */
export const isExact = ({ primitive, attributes }: Node): boolean =>
  primitive?.name === 'contract' && (attributes as ContractAttributes).exact === true;

/** `left` times `right`, to `dimensions`: the left operand's kept dimensions, then the right's. */
export const multiplyMatrices = (
  builder: Builder,
  left: Node,
  right: Node,
  dimensions: readonly Dimension[],
  exact = false,
): Node => builder.apply(contract, [left, right], exact ? { dimensions, exact } : { dimensions });
