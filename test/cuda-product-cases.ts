// Matmul kernels as models have them, for test/cuda-product-kernels.test.ts: each a graph that fuses to one kernel.
import { Builder } from '../compiler/graph/builder.ts';
import { batch, type Dimension, dimension, time } from '../compiler/graph/dimension.ts';
import { type Graph, makeGraph, type Node, type Output } from '../compiler/graph/graph.ts';
import { multiplyMatrices } from '../compiler/ops/contract.ts';
import { map } from '../compiler/ops/map.ts';
import { partners } from '../compiler/ops/pair.ts';
import { noiseWords, random } from '../compiler/ops/random.ts';
import { reduce } from '../compiler/ops/reduce.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  multiply,
  operand,
  type Scalar,
  select,
  subtract,
} from '../compiler/scalar/expression.ts';

export interface ProductCase {
  readonly name: string;
  readonly graph: Graph;
  /** Labels of values that a program of bfloat16 products stores as bfloat16. */
  readonly narrow: readonly string[];
  /** Sizes of each call. */
  readonly calls: readonly { readonly batch: number; readonly time: number }[];
  /** True where the sums must go through the workspace. */
  readonly later: boolean;
  /** An element of an integer input, from a random number in [0, 1). */
  integer(random: number): number;
}

const few = { batch: 2, time: 3 };
const many = { batch: 3, time: 7 };

/** Builds one case; outputs are named by their labels. */
function productCase(
  name: string,
  build: (make: Maker) => readonly Node[],
  { narrow = [] as readonly string[], calls = [many] as ProductCase['calls'], later = false } = {},
): ProductCase {
  const make = new Maker();
  const outputs = build(make).map(
    (node): Output => ({ name: node.label, node, accumulate: node.label.startsWith('gradient.') }),
  );
  const integer = (random: number) => Math.floor(random * 1000);
  return { name, graph: makeGraph(name, outputs), narrow, calls, later, integer };
}

class Maker {
  readonly builder = new Builder();
  private readonly inputs = new Map<string, Node>();

  input(label: string, ...dims: Dimension[]): Node {
    const node = this.inputs.get(label) ?? this.builder.input(label, dims);
    this.inputs.set(label, node);
    return node;
  }

  product(label: string, left: Node, right: Node, dims: readonly Dimension[], exact = false): Node {
    return this.builder.within(label, '', () => multiplyMatrices(this.builder, left, right, dims, exact));
  }

  map(label: string, expression: Scalar, dims: readonly Dimension[], ...inputs: Node[]): Node {
    return this.builder.within(label, '', () => this.builder.apply(map, inputs, { expression, dimensions: dims }));
  }

  /** Over all tokens. */
  total(label: string, node: Node): Node {
    return this.builder.within(label, '', () =>
      this.builder.apply(reduce, [node], { operation: 'sum', over: ['batch', 'time'] }),
    );
  }

  /** Over the columns. */
  rowSum(label: string, node: Node, columns: Dimension): Node {
    return this.builder.within(label, '', () =>
      this.builder.apply(reduce, [node], { operation: 'sum', over: [columns.name] }),
    );
  }

  /** x cos + partner sin, by position and place, and by the place alone. */
  rope(label: string, node: Node, from: number, span: number, interleaved: boolean): Node {
    const partner = this.builder.within(label, '', () =>
      partners(this.builder, node, { dimension: 'head_dim', from, span, interleaved }),
    );
    const tables = ['cos', 'sin'].map(name => this.input(name, time, node.dimensions.at(-1)!));
    const turned = add(multiply(operand(0), operand(2)), multiply(operand(1), operand(3)));
    const expression = add(turned, multiply(coordinate('head_dim'), constant(0.125)));
    return this.map(label, expression, node.dimensions, node, partner, ...tables);
  }
}

const [hidden, heads, keyHeads] = [dimension('hidden', 48), dimension('heads', 4), dimension('key_heads', 2)];
const tokens = (...dims: Dimension[]) => [batch, time, ...dims];
const [a, b, c] = [operand(0), operand(1), operand(2)];
const silu = (x: Scalar) => multiply(x, apply('sigmoid', x));

/** Query and key with rotated pairs, and value: three groups in one launch. */
const projections = (name: string, size: number, from: number, span: number, interleaved: boolean, later = false) =>
  productCase(
    name,
    make => {
      const headDim = dimension('head_dim', size);
      const x = make.input('x', ...tokens(hidden));
      const of = (label: string, count: Dimension) =>
        make.product(
          `${label}_product`,
          x,
          make.input(`${label}_weight`, count, headDim, hidden),
          tokens(count, headDim),
        );
      return [
        make.rope('query', of('query', heads), from, span, interleaved),
        make.rope('key', of('key', keyHeads), from, span, interleaved),
        of('value', keyHeads),
      ];
    },
    { narrow: ['query', 'value'], calls: [few, many], later },
  );

const [wide, vocabulary] = [dimension('wide', 136), dimension('vocabulary', 77)];
const odd = dimension('odd', 45);
const outer = dimension('outer', 488);

export const productCases: readonly ProductCase[] = [
  projections('heads_of_32', 32, 0, 32, false),
  projections('heads_of_24_partly_rotated', 24, 4, 16, false),
  projections('heads_of_16_interleaved', 16, 0, 16, true),
  projections('heads_of_160', 160, 0, 160, false),
  projections('heads_of_288', 288, 0, 288, false, true),
  productCase(
    'gate_and_up',
    make => {
      const x = make.input('x', ...tokens(hidden));
      const of = (label: string) => make.product(label, x, make.input(`${label}_weight`, wide, hidden), tokens(wide));
      const [gate, up] = [of('gate'), of('up')];
      return [gate, up, make.map('gated', multiply(silu(a), b), tokens(wide), gate, up)];
    },
    { narrow: ['gate', 'up', 'gated'], calls: [few, many] },
  ),
  productCase(
    'three_beside',
    make => {
      const x = make.input('x', ...tokens(hidden));
      const of = (label: string) => make.product(label, x, make.input(`${label}_weight`, wide, hidden), tokens(wide));
      return [make.map('y', add(multiply(a, b), c), tokens(wide), of('first'), of('second'), of('third'))];
    },
    { calls: [few, many] },
  ),
  productCase(
    'gradient_of_three_inputs',
    make => {
      const of = (label: string, count: Dimension) => {
        const dims = [count, dimension('head_dim', 16)];
        const gradient = make.input(label, ...tokens(...dims));
        return make.product(`${label}_input`, gradient, make.input(`${label}_weight`, ...dims, hidden), tokens(hidden));
      };
      const above = make.input('above', ...tokens(hidden));
      const two = make.map('two', add(add(c, a), b), tokens(hidden), of('query', heads), of('key', keyHeads), above);
      const all = make.map('all', add(a, b), tokens(hidden), two, of('value', keyHeads));
      return [make.map('y', multiply(a, b), tokens(hidden), all, make.input('scale', hidden))];
    },
    { narrow: ['query', 'key'] },
  ),
  productCase(
    // Few slices, a constant number of them: the loop over these must not be unrolled.
    'gradient_of_three_narrow_inputs',
    make => {
      const [inner, outer] = [dimension('inner', 128), dimension('outer', 128)];
      const of = (label: string) =>
        make.product(label, make.input(`${label}_x`, ...tokens(inner)), make.input(`${label}_weight`, inner, outer), [
          ...tokens(outer),
        ]);
      const two = make.map('two', add(a, b), tokens(outer), of('query'), of('key'));
      return [make.map('y', add(a, b), tokens(outer), two, of('value'))];
    },
    { narrow: ['query_x', 'key_x', 'value_x'] },
  ),
  productCase(
    'two_lefts_multiplied',
    make => {
      const of = (label: string, inner: Dimension) =>
        make.product(
          label,
          make.input(`${label}_x`, ...tokens(inner)),
          make.input(`${label}_weight`, wide, inner),
          tokens(wide),
        );
      return [make.map('y', multiply(a, b), tokens(wide), of('first', hidden), of('second', dimension('other', 20)))];
    },
    { later: true },
  ),
  productCase('residual_bias_and_dropout', make => {
    const x = make.input('x', ...tokens(hidden));
    const product = make.product('product', x, make.input('weight', wide, hidden), tokens(wide));
    const noise = make.builder.input('noise', [noiseWords], 'i32');
    const drawn = make.builder.apply(random, [noise], { dimensions: tokens(wide), site: 3 });
    const kept = select(apply('less', operand(4), constant(0.25)), constant(0), multiply(add(a, b), constant(4 / 3)));
    const [bias, residual] = [make.input('bias', wide), make.input('residual', ...tokens(wide))];
    const label = make.builder.input('label', tokens(), 'i32');
    const expression = add(add(operand(2), kept), operand(3));
    return [make.map('y', expression, tokens(wide), product, bias, residual, label, drawn)];
  }),
  productCase(
    'odd_columns',
    make => [
      make.product(
        'logits',
        make.input('x', ...tokens(hidden)),
        make.input('weight', vocabulary, hidden),
        tokens(vocabulary),
      ),
    ],
    { narrow: ['logits'], calls: [few, many] },
  ),
  productCase(
    'gradients_of_odd_columns',
    make => {
      const gradient = make.input('logits_gradient', ...tokens(vocabulary));
      const x = make.input('x', ...tokens(hidden));
      return [
        make.product('x_gradient', gradient, make.input('weight', vocabulary, hidden), tokens(hidden)),
        make.product('gradient.weight', gradient, x, [vocabulary, hidden]),
      ];
    },
    { narrow: ['logits_gradient'], calls: [many, { batch: 2, time: 300 }], later: true },
  ),
  productCase(
    'weights_of_odd_rows',
    make => {
      const [x, gradient] = [make.input('x', ...tokens(odd)), make.input('y_gradient', ...tokens(wide))];
      const weight = make.input('weight', wide, odd);
      return [
        make.product('y', x, weight, tokens(wide)),
        make.product('x_gradient', gradient, weight, tokens(odd)),
        make.product('gate', gradient, make.input('gate_weight', hidden, wide), tokens(hidden)),
      ];
    },
    { narrow: ['y_gradient'], calls: [few, many] },
  ),
  productCase(
    'gradients_of_weights',
    make => {
      const y = make.input('y_gradient', ...tokens(wide));
      const [x, z] = [make.input('x', ...tokens(hidden)), make.input('z', ...tokens(heads, dimension('head_dim', 16)))];
      const gate = make.product('gate', y, make.input('weight', wide, hidden), tokens(hidden));
      return [
        make.product('gradient.first', y, x, [wide, hidden]),
        make.product('gradient.second', y, z, [wide, heads, dimension('head_dim', 16)]),
        make.map('gated', multiply(a, b), tokens(hidden), gate, make.input('gate_factor', ...tokens(hidden))),
      ];
    },
    { narrow: ['y_gradient', 'x', 'gated'], calls: [many, { batch: 2, time: 300 }], later: true },
  ),
  productCase(
    // Of the second, all elements are far from zero: no sum of their squares has their distances from the mean. Much
    // farther, and float32 would not hold the elements themselves closely enough.
    'streams_and_what_norms_ask_of_them',
    make => {
      const x = make.input('x', ...tokens(hidden));
      const stream = (label: string, start: number) => {
        const product = make.product(
          `${label}_product`,
          x,
          make.input(`${label}_weight`, outer, hidden),
          tokens(outer),
        );
        const before = make.input(`${label}_before`, ...tokens(outer));
        return make.map(label, add(add(a, b), constant(start)), tokens(outer), product, before);
      };
      const share = constant(1 / outer.size!);
      const rsqrt = apply('rsqrt', add(multiply(a, share), constant(1e-5)));
      const first = stream('first', 1);
      const squares = make.rowSum('squares', make.map('squared', multiply(a, a), tokens(outer), first), outer);
      const second = stream('second', 500);
      const mean = make.map('mean', multiply(a, share), tokens(), make.rowSum('sum', second, outer));
      const distance = subtract(a, b);
      const term = make.map('distances', multiply(distance, distance), tokens(outer), second, mean);
      const deviations = make.rowSum('deviations', term, outer);
      return [
        ...[first, squares, make.map('scale', rsqrt, tokens(), squares)],
        make.map('weighted', multiply(a, b), tokens(outer), first, make.input('norm', outer)),
        ...[second, mean, deviations, make.map('other_scale', rsqrt, tokens(), deviations)],
      ];
    },
    { narrow: ['x', 'weighted'], calls: [few, many] },
  ),
  productCase('exact', make => {
    const x = make.input('x', ...tokens(hidden));
    const experts = dimension('experts', 6);
    return [make.product('scores', x, make.input('router', experts, hidden), tokens(experts), true)];
  }),
];

const [broad, manyHeads] = [dimension('broad', 248), dimension('many_heads', 20)];
const ragged = { batch: 2, time: 140 };

/** Cases of several large tiles, down and across, and of layouts that models do not have. */
export const largeCases: readonly ProductCase[] = [
  productCase(
    'several_tiles',
    make => {
      const inner = dimension('inner', 200);
      const product = make.product(
        'product',
        make.input('x', ...tokens(inner)),
        make.input('weight', outer, inner),
        tokens(outer),
      );
      const [bias, residual] = [make.input('bias', outer), make.input('residual', ...tokens(outer))];
      return [make.map('y', add(add(a, b), c), tokens(outer), product, bias, residual)];
    },
    {
      narrow: ['x', 'y'],
      calls: [
        { batch: 2, time: 300 },
        { batch: 1, time: 5 },
      ],
    }, // an odd number of blocks down, or none
  ),
  productCase(
    'heads_of_24_in_several_tiles',
    make => {
      const headDim = dimension('head_dim', 24);
      const weight = make.input('weight', manyHeads, headDim, hidden);
      const product = make.product('product', make.input('x', ...tokens(hidden)), weight, tokens(manyHeads, headDim));
      return [make.rope('query', product, 4, 16, false)];
    },
    { narrow: ['x', 'query'], calls: [ragged] },
  ),
  productCase(
    'gate_and_up_in_several_tiles',
    make => {
      const x = make.input('x', ...tokens(hidden));
      const of = (label: string) => make.product(label, x, make.input(`${label}_weight`, broad, hidden), tokens(broad));
      return [make.map('gated', multiply(silu(a), b), tokens(broad), of('gate'), of('up'))];
    },
    { narrow: ['x', 'gated'], calls: [ragged] },
  ),
  productCase(
    'gradients_in_several_tiles',
    make => {
      const [gradient, x] = [make.input('y_gradient', ...tokens(broad)), make.input('x', ...tokens(outer))];
      return [
        make.product('x_gradient', gradient, make.input('weight', broad, outer), tokens(outer)),
        make.product('gradient.weight', gradient, x, [broad, outer]),
      ];
    },
    { narrow: ['y_gradient', 'x'], calls: [ragged], later: true },
  ),
  productCase(
    'gradient_of_an_activation_and_its_bias',
    make => {
      const gradient = make.input('y_gradient', ...tokens(hidden));
      const product = make.product('product', gradient, make.input('weight', hidden, broad), tokens(broad));
      const opened = make.map(
        'opened',
        multiply(a, silu(b)),
        tokens(broad),
        product,
        make.input('up', ...tokens(broad)),
      );
      return [
        opened,
        make.total('gradient.bias', opened),
        make.map('activated', silu(a), tokens(broad), make.input('up', ...tokens(broad))),
      ];
    },
    { narrow: ['y_gradient', 'up', 'opened', 'activated'], calls: [ragged, { batch: 1, time: 5 }] },
  ),
  productCase(
    'left_across_its_rows',
    make => {
      const inner = dimension('inner', 136);
      const [left, right] = [make.input('left', inner, outer), make.input('right', hidden, inner)];
      return [make.product('y', left, right, [outer, hidden])];
    },
    { narrow: ['left', 'right'] },
  ),
];
