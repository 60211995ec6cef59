// Attention on Hopper GPUs: the generated kernels for sm_90a in the emulator, against float64 loops; a model with them,
// against PyTorch; and what nvcc says of them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { verifyFolder } from '../runtime/verify/verify.ts';
import { type Case, cutToBf16, outputsOf, randomCase, randomFloats, training } from './cpu/attention-calls.ts';
import type { AttentionShape } from './cpu/attention-reference.ts';
import { shapes } from './cpu/attention-shapes.ts';
import { buildEmulatedModel } from './cuda/build.ts';
import { type Bounds, backward, forward, holdBackward, holdForward } from './cuda-attention-calls.ts';
import { buildShapes, type Compiled } from './cuda-attention-shapes.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

// What device the emulator is, where there is no GPU to run the tests on: a launcher asks when it is first called.
process.env.MALC_SIMT_CAPABILITY = '9.0';

const shaped = (name: string, base: number, more: Partial<AttentionShape>): Compiled => {
  const sized = more.dim ? { valueDim: more.dim, valueWidth: more.dim } : {};
  return { name, shape: { ...shapes[base]!, ...sized, ...more }, program: 'narrow' };
};
/** Of every width that has block sizes of its own, and of each kind; and the times of texts, ragged ends among them. */
const compiled: readonly (readonly [Compiled, ...times: number[]])[] = [
  [shaped('grouped', 0, { heads: 2, kvHeads: 1, dim: 64 }), 9, 200],
  [shaped('window', 3, { heads: 1, kvHeads: 1, dim: 64, window: 70 }), 290],
  [shaped('medium', 1, { heads: 2, kvHeads: 2, dim: 96, causal: false, window: 0 }), 140],
  [shaped('usual', 0, { heads: 1, kvHeads: 1, dim: 128 }), 192],
  [shaped('latent', 8, { heads: 1, kvHeads: 1 }), 150],
  [shaped('mask', 6, { heads: 2, kvHeads: 1, dim: 24, valueDim: 40, valueWidth: 40 }), 70],
  [shaped('slopes', 10, { heads: 2, kvHeads: 1, dim: 64, window: 50, dropout: 0.25 }), 70],
];

/** As those of cuda-attention-bf16.test.ts, and for the same reasons. */
const bounds: Bounds = { output: 4e-3, logSumExp: 1e-6, gradient: 1e-2, slopes: 3e-2 };

const test = suite('cuda attention on Hopper GPUs');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-attention-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const narrowed = (given: Case): Case => {
  const { query, key, value } = given;
  return { ...given, query: cutToBf16(query), key: cutToBf16(key), value: cutToBf16(value) };
};

if (await emulatorAvailable()) {
  const library = await buildShapes(
    folder,
    compiled.map(([each]) => each),
  );
  test('these are the kernels for sm_90a', () => {
    assert.is(library.on_hopper!(), 1);
  });

  for (const [each, ...times] of compiled)
    test(each.name, () => {
      const random = randomNumbers(61);
      const { shape } = each;
      for (const time of times) {
        const given = narrowed(randomCase(shape, training(time < 100 ? 2 : 1, time), random));
        holdForward(library, each, given, bounds);
        holdBackward(library, each, given, cutToBf16(randomFloats(random, outputsOf(shape, given))), bounds);
      }
    });

  test('the same bits in any order of threads and copies', () => {
    for (const [each] of compiled.filter(([{ name }]) => name !== 'latent')) {
      const random = randomNumbers(66);
      const given = narrowed(randomCase(each.shape, training(1, 200), random));
      const seed = cutToBf16(randomFloats(random, outputsOf(each.shape, given)));
      const [first, ...others] = [0, 7, 8, 9].map(order => {
        library.schedule!(order);
        return [forward(library, each, given), backward(library, each, given, seed)];
      });
      library.schedule!(0);
      for (const other of others) assert.equal(other, first, each.name);
    }
  });

  test('gemma2 computes nearly what PyTorch computed', async () => {
    const target = {
      name: 'cuda',
      build: async (model: Model, dtype: 'f32' | 'bf16') => ({
        libraryPath: await buildEmulatedModel(model, { dtype }),
      }),
    };
    const report = await verifyFolder(
      'test/fixtures/reference/gemma2',
      'bf16',
      warning => assert.unreachable(warning),
      target,
    );
    assert.ok(report.pass, JSON.stringify(report));
  });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test.run();
