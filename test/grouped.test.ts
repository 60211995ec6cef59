// Grouped products on the CPU over random shapes, sizes and choices: against the float64 reference, the same bits for any
// number of threads, gradients added to what their buffers hold.
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Builder } from '../compiler/graph/builder.ts';
import type { Sizes } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph } from '../compiler/graph/graph.ts';
import { type Tensor, zeros } from '../compiler/graph/tensor.ts';
import { runOnCpu } from './cpu/run-graph.ts';
import { distance, groupedNodes, type Shape } from './grouped-graphs.ts';
import { randomNumbers } from './random-numbers.ts';

fc.configureGlobal({ includeErrorInReport: true });

const test = suite('grouped products');

const randomShape: fc.Arbitrary<Shape> = fc.record({
  experts: fc.integer({ min: 1, max: 9 }),
  chosen: fc.integer({ min: 1, max: 4 }),
  inner: fc.integer({ min: 1, max: 70 }),
  outer: fc.integer({ min: 1, max: 130 }),
  outerFirst: fc.boolean(),
  shared: fc.boolean(),
});

/** On both sides of the blocks: several of the inner dimension, of columns, and of the rows of a gradient. */
const largeShapes: readonly Shape[] = [
  { experts: 3, chosen: 2, inner: 397, outer: 33, outerFirst: true, shared: true },
  { experts: 2, chosen: 1, inner: 19, outer: 411, outerFirst: false, shared: false },
  { experts: 2, chosen: 2, inner: 401, outer: 97, outerFirst: false, shared: true },
];

function graphOf(shape: Shape): Graph {
  const { product, ofWeights, eachProduct } = groupedNodes(new Builder(), shape);
  return makeGraph('grouped', [
    { name: 'product', node: product, accumulate: false },
    { name: 'of weights', node: ofWeights, accumulate: true },
    { name: 'each product', node: eachProduct, accumulate: false },
  ]);
}

/** Experts from `low` to `high` are chosen, the lowest ones most often. */
interface Choice {
  readonly low: number;
  readonly high: number;
}

function given(graph: Graph, { low, high }: Choice, sizes: Sizes, seed: number): Map<string, Tensor> {
  const random = randomNumbers(seed);
  const values = new Map<string, Tensor>();
  for (const { label, dimensions, dtype } of [
    ...graph.inputs,
    { ...graph.outputs[1]!.node, label: 'of weights', dtype: 'f32' },
  ]) {
    const tensor = zeros(dimensions, sizes);
    for (let n = 0; n < tensor.data.length; n++)
      tensor.data[n] =
        dtype === 'i32' ? low + Math.floor(random() ** 2 * (high - low + 1)) : Math.fround(2 * random() - 1);
    values.set(label, tensor);
  }
  return values;
}

const shapes = [...largeShapes, ...fc.sample(randomShape, { seed: 4, numRuns: 9 })];
const graphs = shapes.map(graphOf);
const run = await runOnCpu(graphs);

const share = fc.double({ min: 0, max: 0.999, noNaN: true });
/** Few rows, as in decoding, and enough for several blocks of an expert. */
const length = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 130 }));

shapes.forEach((shape, n) => {
  const graph = graphs[n]!;
  test(`${JSON.stringify(shape)}`, () => {
    fc.assert(
      fc.property(length, share, share, fc.nat(1e6), (positions, from, to, seed) => {
        const sizes = { batch: 2, time: positions };
        const [low, high] = [from, to].map(place => Math.floor(place * shape.experts)).sort((a, b) => a - b);
        const values = given(graph, { low: low!, high: high! }, sizes, seed);
        const expected = evaluate(graph, values, sizes);
        const actual = run(graph, values, sizes);
        for (const [name, { data }] of expected) {
          const error = distance(
            actual.get(name)!.data,
            data,
            name === 'of weights' ? values.get(name)!.data : undefined,
          );
          assert.ok(error < 1e-6, `${name}: relative L2 distance ${error}`);
        }
        for (const threads of [1, 3])
          for (const [name, { data }] of run(graph, values, sizes, threads))
            assert.is(
              Buffer.compare(new Uint8Array(data.buffer), new Uint8Array(actual.get(name)!.data.buffer)),
              0,
              `${name}: the same bits with ${threads} threads`,
            );
      }),
      { seed: 5, numRuns: n < largeShapes.length ? 4 : 8 },
    );
  });
});

test.run();
