// What CUDA programs do row by row, run by the emulator: norms, losses and their gradients in rows of any width, sums over
// rows, and rows added at places. Each is held to the reference, and gives the same bits in any order of blocks.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildFormula } from '../compiler/build/formula.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, type Dimension, dimension, type Sizes, sizeOf, time } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import type { Tensor } from '../compiler/graph/tensor.ts';
import { mapOver, plus } from '../compiler/ops/map.ts';
import { partners } from '../compiler/ops/pair.ts';
import { sum as sumOver } from '../compiler/ops/reduce.ts';
import { scatterAdd } from '../compiler/ops/scatter-add.ts';
import { compose } from '../compiler/passes/compose.ts';
import { multiply, operand } from '../compiler/scalar/expression.ts';
import { cudaGraphs } from './cuda/run-graph.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda rows');
const library = standardLibrary();

interface Case {
  readonly name: string;
  readonly graph: Graph;
  readonly sizes: Sizes;
  /** What integers are, of each input that has them. */
  readonly choose: (random: number, n: number) => number;
  readonly tolerance: number;
}

/** A formula over rows of some width, and its gradient: those of parameters are added to what is there. */
function formulaCase(kind: string, width: number, rows: number): Case {
  const builder = new Builder();
  const columns = dimension('hidden', width);
  const formula = library.get(kind)!;
  const learned: Node[] = [];
  const args = formula.parameters.map(name =>
    name === 'label' ? builder.input(name, [batch, time], 'i32') : builder.input(name, [batch, time, columns]),
  );
  const result = buildFormula(formula, args, {
    builder,
    library,
    over: [columns],
    constants: { eps: 1e-5 },
    learned: name => {
      const known = learned.find(({ label }) => label === name);
      const node = known ?? builder.input(name, [columns]);
      if (!known) learned.push(node);
      return node;
    },
  });
  const gradient = builder.input('result_gradient', result.dimensions);
  const wanted = [...args.filter(({ dtype }) => dtype === 'f32'), ...learned];
  const gradients = differentiate(builder, [{ node: result, gradient }], wanted);
  const outputs = wanted.map(node => ({
    name: `gradient.${node.label}`,
    node: gradients.get(node)!,
    accumulate: learned.includes(node),
  }));
  const graph = makeGraph(kind, [{ name: 'result', node: result, accumulate: false }, ...outputs]);
  const sizes = { batch: 1, time: rows };
  const choose = (random: number) => Math.floor(random * (width + 1)) - 1;
  return { name: `${kind} of ${rows} rows of ${width}`, graph: compose(graph), sizes, choose, tolerance: 3e-6 };
}

/** A head's elements and their partners times a number, added, as a rotation of pairs does it. */
function pairsCase(width: number, from: number, span: number, interleaved: boolean): Case {
  const builder = new Builder();
  const head = dimension('head_dim', width);
  const x = builder.input('x', [batch, time, dimension('heads', 3), head]);
  const angles = builder.input('angles', [time, head]);
  const turned = mapOver(builder, x.dimensions, multiply(operand(0), operand(1)), [x, angles]);
  const node = plus(builder, x, partners(builder, turned, { dimension: 'head_dim', from, span, interleaved }));
  const graph = makeGraph('pairs', [{ name: 'result', node, accumulate: false }]);
  const name = `pairs of ${span} from ${from} of ${width}, ${interleaved ? 'neighbours' : 'halves'}`;
  return { name, graph: compose(graph), sizes: { batch: 2, time: 5 }, choose: () => 0, tolerance: 1e-6 };
}

/** Sums over the sequences of a batch, as wide as these are long. */
function acrossCase(): Case {
  const builder = new Builder();
  const x = builder.input('x', [batch, time, dimension('hidden', 12)]);
  const node = sumOver(builder, x, ['batch']);
  const graph = makeGraph('across', [{ name: 'sum', node, accumulate: true }]);
  return { name: 'sums over sequences', graph, sizes: { batch: 9, time: 101 }, choose: () => 0, tolerance: 1e-6 };
}

/** Rows added at places: of every place as many, or of one in every block of 32 some, or all. */
function scatterCases(rows: number, width: number): Case[] {
  const builder = new Builder();
  const places = builder.input('places', [batch, time], 'i32');
  const updates = builder.input('updates', [batch, time, dimension('hidden', width)]);
  const node = builder.apply(scatterAdd, [places, updates], { rows: dimension('rows', rows) });
  const graph = makeGraph('scatter', [{ name: 'table', node, accumulate: width > 8 }]);
  const any = (random: number) => Math.floor(random * rows);
  const choices = {
    'any of': any,
    'often the last of': (random: number, n: number) => (n % 3 === 0 ? rows - 1 : any(random)),
    'the last of': () => rows - 1,
  };
  return Object.entries(choices).map(([which, choose]) => ({
    name: `rows of ${width} added at ${which} ${rows} places`,
    graph,
    sizes: { batch: 3, time: 353 },
    choose,
    tolerance: 1e-6,
  }));
}

/** In a part of a warp, in registers once or more often, with lanes left over, by ones, in a loop, kept in part. */
const cases = [
  ...[16, 10, 768, 1028, 5000].map(width => formulaCase('layernorm', width, 37)),
  ...[8, 2048].map(width => formulaCase('rmsnorm', width, 21)),
  ...[7, 1000, 50260].map(width => formulaCase('cross_entropy', width, width > 10000 ? 3 : 37)),
  acrossCase(),
  // Partners that lie side by side, each other's, or apart.
  ...[false, true].flatMap(interleaved => [pairsCase(16, 0, 16, interleaved), pairsCase(64, 8, 24, interleaved)]),
  ...[pairsCase(12, 0, 12, false), pairsCase(32, 2, 16, false), pairsCase(24, 0, 20, true)],
  // Places that one pass sorts, or two; rows whose elements lie in fours, or not; fewer elements than threads.
  ...[scatterCases(1, 8), scatterCases(7, 1028), scatterCases(700, 3), scatterCases(128256, 4)].flat(),
];

function valuesOf({ graph, sizes, choose }: Case): Map<string, Tensor> {
  const random = randomNumbers(11);
  const tensor = (dimensions: readonly Dimension[], draw: (n: number) => number): Tensor => {
    const shape = dimensions.map(dim => sizeOf(dim, sizes));
    const count = shape.reduce((a, b) => a * b, 1);
    return {
      names: dimensions.map(dim => dim.name),
      shape,
      data: Float64Array.from({ length: count }, (_, n) => draw(n)),
    };
  };
  const number = () => Math.fround(2 * random() - 0.7);
  const given = graph.inputs.map(({ label, dimensions, dtype }) => {
    const value = tensor(dimensions, n => (dtype === 'i32' ? choose(random(), n) : number()));
    return [label, value] as const;
  });
  const added = graph.outputs.filter(({ accumulate }) => accumulate);
  return new Map([...given, ...added.map(({ name, node }) => [name, tensor(node.dimensions, number)] as const)]);
}

if (await emulatorAvailable()) {
  const graphs = cudaGraphs([...new Set(cases.map(({ graph }) => graph))], 'f32');
  const [run, again] = [await graphs.build(), await graphs.build(7)];
  for (const each of cases)
    test(each.name, () => {
      const { graph, sizes, tolerance } = each;
      const values = valuesOf(each);
      const expected = evaluate(graph, values, sizes);
      const [actual, other] = [run(graph, values, sizes), again(graph, values, sizes)];
      for (const { name, accumulate } of graph.outputs) {
        const before = values.get(name)?.data;
        const sum = expected.get(name)!.data.map((value, n) => value + (accumulate ? before![n]! : 0));
        const error = distance(actual.get(name)!.data, sum) / distance(sum, new Float64Array(sum.length));
        assert.ok(error < tolerance, `${name}: relative error ${error}`);
        assert.is(distance(other.get(name)!.data, actual.get(name)!.data), 0, `${name} in another order`);
      }
    });
} else console.log('no g++ that the emulator can use: rows of CUDA programs are not run');

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let squares = 0;
  for (let n = 0; n < a.length; n++) squares += (a[n]! - b[n]!) ** 2;
  return Math.sqrt(squares);
}

test.run();
