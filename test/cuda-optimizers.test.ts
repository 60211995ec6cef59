// Optimizers on a device, run by the emulator with every access to memory checked: each rule against its restatement in
// float64, Muon's also over matrices of several sizes; and a program that trains with it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { loadLibrary } from '../runtime/ffi.ts';
import type { Update } from '../runtime/native.ts';
import { openEmulated } from './cuda/build.ts';
import { holdUpdates, muonsRules, small } from './held-updates.ts';
import { adamw, lion, muon, type Rule, sgd } from './optimizer-rules.ts';
import { relativeError } from './oracle.ts';
import { randomNumbers } from './random-numbers.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda optimizers');

const folder = mkdtempSync(join(tmpdir(), 'malc-updates-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const prototype =
  'int update(int rule, int count, int rows, int columns, const float *numbers, float scale, float *weights, ' +
  'float *gradients, float *first, float *second, float *averages)';

/** By their numbers in test/cuda/updates.cu. */
const rules: readonly {
  readonly name: string;
  readonly rule: Rule;
  readonly shapes: readonly (readonly number[])[];
}[] = [
  { name: 'adamw', rule: adamw, shapes: [[1, 30, 23]] },
  { name: 'lion', rule: lion, shapes: [[1, 30, 23]] },
  { name: 'sgd', rule: sgd, shapes: [[1, 30, 23]] },
  { name: 'sgd without momentum', rule: sgd, shapes: [[1, 30, 23]] },
  // Wide, tall and square; with runs of whole fours and without; of one tile and of several; a stack; of one row.
  {
    name: 'muon',
    rule: muon,
    shapes: [
      [1, 24, 80],
      [1, 80, 24],
      [1, 66, 67],
      [3, 8, 12],
      [2, 7, 5],
      [1, 1, 9],
    ],
  },
];

const update: Update = {
  ...{ learningRate: 0.02, weightDecay: 0.1, clipNorm: 0, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, momentum: 0.9 },
  ...{ average: 0.75, update: 2 },
};
/** malc_terms of templates/cuda/optimizer.h. */
const terms = Float32Array.of(
  ...[update.learningRate, update.weightDecay, update.beta1, update.beta2, update.epsilon, update.momentum!],
  ...[1 / (1 - update.beta1 ** 2), 1 / (1 - update.beta2 ** 2), update.average!, 0],
);
const scale = 0.5;

if (await emulatorAvailable()) {
  const output = join(folder, 'updates.so');
  await buildEmulated({ sources: [packagePath('test/cuda/updates.cu')], output, library: true });
  const library = loadLibrary(output, { update: prototype });

  for (const [number, { name, rule, shapes }] of rules.entries())
    test(`${name}: an update is what its paper says`, () => {
      for (const [count, rows, columns] of shapes as readonly [number, number, number][]) {
        const random = randomNumbers(number + count * rows * columns);
        const all = count * rows * columns;
        const draw = (spread: number, least: number) =>
          Float32Array.from({ length: Math.ceil(all / 4) * 4 }, (_, i) => (i < all ? least + spread * random() : 0));
        const [weights, gradients, averages] = [draw(2, -1), draw(0.2, -0.1), draw(2, -1)];
        const [first, second] = [draw(0.2, -0.1), draw(0.01, 0.001)];
        const doubles = (values: Float32Array) => Float64Array.from(values.subarray(0, all));
        const before = {
          ...{ shape: [count, rows, columns], decays: true, weights: doubles(weights) },
          ...{ first: name === 'sgd without momentum' ? null : doubles(first), second: doubles(second) },
        };
        const expected = rule(
          before,
          doubles(gradients).map(value => scale * value),
          update,
        );
        const averaged = doubles(averages).map((value, i) => 0.75 * value + 0.25 * expected.weights[i]!);
        const arrays = [weights, gradients, first, second, averages];
        assert.is(library.update(number, count, rows, columns, terms, scale, ...arrays), 0);
        const close = (got: Float32Array, wanted: Float64Array, tolerance = 1e-6) => {
          const error = relativeError(got.subarray(0, all), wanted);
          assert.ok(error < tolerance, `[${count}, ${rows}, ${columns}]: ${error}`);
        };
        const moved = (to: ArrayLike<number>) => before.weights.map((weight, i) => to[i]! - weight);
        close(Float32Array.from(moved(weights)), moved(expected.weights), 3e-5);
        close(averages, averaged);
        if (expected.first) close(first, expected.first);
        if (rule === adamw) close(second, expected.second!);
      }
    });

  test('a program that trains with Muon moves its matrices so, and all else by AdamW', async () => {
    const options = { optimizer: 'muon', averages: true } as const;
    const native = await openEmulated(small, { dtype: 'f32', ...options }, { batch: 2, time: 8 });
    await holdUpdates(native, small, muonsRules);
    native.close();
  });
} else console.log('no g++ that the emulator can use: optimizers are not run on a device');

test.run();
