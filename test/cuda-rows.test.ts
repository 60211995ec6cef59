// What CUDA programs do row by row, run by the emulator: rows added at places, whatever places they are.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, dimension, time } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { makeGraph } from '../compiler/graph/graph.ts';
import type { Tensor } from '../compiler/graph/tensor.ts';
import { scatterAdd } from '../compiler/ops/scatter-add.ts';
import { cudaGraphs } from './cuda/run-graph.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda rows');

/** Tables of places that one pass sorts, or two; rows whose elements lie in fours, or not; fewer elements than threads. */
const tables = [
  { rows: 1, width: 8 },
  { rows: 7, width: 1028 },
  { rows: 700, width: 3 },
  { rows: 128256, width: 4 },
].map(({ rows, width }) => {
  const builder = new Builder();
  const places = builder.input('places', [batch, time], 'i32');
  const updates = builder.input('updates', [batch, time, dimension('hidden', width)]);
  const node = builder.apply(scatterAdd, [places, updates], { rows: dimension('rows', rows) });
  return { rows, width, graph: makeGraph('scatter', [{ name: 'table', node, accumulate: width > 8 }]) };
});

/** Of every place as many, or of one in every block of 32 some, or all. */
const sizes = { batch: 3, time: 353 };
const count = sizes.batch * sizes.time;
const choices: Readonly<Record<string, (random: number, n: number, rows: number) => number>> = {
  any: (random, _, rows) => Math.floor(random * rows),
  'often one': (random, n, rows) => (n % 3 === 0 ? rows - 1 : Math.floor(random * rows)),
  'the last': (_, __, rows) => rows - 1,
};

function valuesOf(rows: number, width: number, choose: (random: number, n: number, rows: number) => number) {
  const random = randomNumbers(rows + width);
  const names = ['batch', 'time'];
  const shape = [sizes.batch, sizes.time];
  const data = Float64Array.from({ length: count }, (_, n) => choose(random(), n, rows));
  const updates = Float64Array.from({ length: count * width }, () => Math.fround(random() - 0.5));
  return new Map<string, Tensor>([
    ['places', { names, shape, data }],
    ['updates', { names: [...names, 'hidden'], shape: [...shape, width], data: updates }],
  ]);
}

if (await emulatorAvailable()) {
  const graphs = cudaGraphs(
    tables.map(({ graph }) => graph),
    'f32',
  );
  const [run, again] = [await graphs.build(), await graphs.build(7)];
  for (const { rows, width, graph } of tables)
    test(`${count} rows of ${width} added at ${rows} places: the reference, and the same bits in any order`, () => {
      for (const [name, choose] of Object.entries(choices)) {
        const values = valuesOf(rows, width, choose);
        const expected = evaluate(graph, values, sizes).get('table')!.data;
        const actual = run(graph, values, sizes).get('table')!.data;
        const error = distance(actual, expected) / distance(expected, new Float64Array(expected.length));
        assert.ok(error < 1e-6, `${name}: relative error ${error}`);
        assert.is(distance(again(graph, values, sizes).get('table')!.data, actual), 0, name);
      }
    });
} else console.log('no g++ that the emulator can use: rows of CUDA programs are not run');

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let squares = 0;
  for (let n = 0; n < a.length; n++) squares += (a[n]! - b[n]!) ** 2;
  return Math.sqrt(squares);
}

test.run();
