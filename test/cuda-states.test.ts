// State spaces and modules for further tokens as programs for CUDA, run by the emulator: the scan and the convolution of
// shapes that share work out differently, whole programs against the oracle, and what PyTorch computed of Mamba.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { openEmulated } from './cuda/build.ts';
import { holdReference } from './cuda/references.ts';
import { cudaGraphs } from './cuda/run-graph.ts';
import { batchOf, hold, open, scramble } from './held-against-oracle.ts';
import { randomModel } from './random-models.ts';
import { emulatorAvailable } from './simt/build.ts';
import { endsOf, holdAgainstReference, holdPieces, pieceGraph, type Shape, wholeGraph } from './state-space-graphs.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('cuda states');

test('a state of which no block has room for a position is refused', () => {
  const source = readFileSync(packagePath('well-known/models/hybrid_tiny.mal'), 'utf8');
  const { model } = check(parse(source.replaceAll('state_dim: 16', 'state_dim: 6000'), 'large.mal').syntax);
  assert.throws(() => compile(model!, { target: 'cuda' }), /no room for a state of 6000 numbers .*use --target cpu/);
});

if (await emulatorAvailable()) {
  /** From one thread a channel to a whole warp; threads that have less of the state, or none; channels of several blocks. */
  const shapes: readonly Shape[] = [
    { channels: 3, states: 1, kernel: 2 },
    { channels: 200, states: 3, kernel: 4 },
    { channels: 33, states: 16, kernel: 4 },
    { channels: 9, states: 21, kernel: 17 },
    { channels: 5, states: 130, kernel: 3 },
    { channels: 2, states: 1100, kernel: 40 },
  ];
  const whole = shapes.map(wholeGraph);
  const piece = shapes.map(pieceGraph);
  const run = await cudaGraphs([...whole, ...piece], 'f32').build();

  for (const [n, { channels, states, kernel }] of shapes.entries())
    test(`${channels} channels, a state of ${states}, a filter of ${kernel}: the reference, and the bits of the whole`, () => {
      for (const [batch, time] of [
        [2, 37],
        [3, 1],
      ] as const)
        holdAgainstReference(run, whole[n]!, { batch, time }, 31 + n);
      holdAgainstReference(run, piece[n]!, { batch: 1, time: 22, sequences: 4 }, 41 + n, endsOf([0, 1, 18, 3]));
      holdPieces(run, { whole: whole[n]!, piece: piece[n]!, shape: shapes[n]! }, 2, [3, 17, 1], 51 + n);
    });

  const both = fc
    .sample(randomModel, { seed: 33, numRuns: 200 })
    .filter(model => model.blocks.some(block => block.ssm) && model.mtp !== null);
  for (const model of both.slice(0, 1)) {
    const { layers, mtp } = model;
    test(`a random model of ${layers.length} layers, some of them state spaces, and ${mtp!.depth} modules`, async () => {
      const native = await openEmulated(model, { dtype: 'f32' }, { batch: 2, time: 19 });
      await hold(native, model, 2, 19, 3);
      const cpu = await open(model, { fuse: true }, { batch: 2, time: 19 });
      scramble(cpu, 3);
      const { tokens, labels, roles } = batchOf(model, 4, 19, 6);
      const size = { microBatches: 2, batch: 2, time: 19, roles, update: null };
      const [expected, actual] = [await cpu.step(tokens, labels, size), await native.step(tokens, labels, size)];
      for (const sum of ['loss', 'auxiliary', 'gradientNorm'] as const)
        assert.ok(Math.abs(actual[sum] - expected[sum]) < 1e-5 * expected[sum], `${sum} of two micro-batches`);
      for (const each of [cpu, native]) each.close();
    });
  }

  for (const dtype of ['f32', 'bf16'] as const)
    test(`mamba computes what PyTorch computed${dtype === 'f32' ? '' : ', nearly, with products of bfloat16'}`, async () => {
      const report = await holdReference('test/fixtures/reference/mamba', dtype);
      assert.is(report.grads_compared, 32);
    });
} else console.log('no g++ that the emulator can use: state spaces for CUDA are not run');

test.run();
