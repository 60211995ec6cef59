// Attention on Hopper GPUs: the generated kernels for sm_90a in the emulator, against float64 loops.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { AttentionShape } from './cpu/attention-reference.ts';
import { type Case, cutToBf16, outputsOf, randomCase, randomFloats, training } from './cpu/attention-calls.ts';
import { shapes } from './cpu/attention-shapes.ts';
import { type Bounds, backward, forward, holdBackward, holdForward } from './cuda-attention-calls.ts';
import { buildShapes, type Compiled } from './cuda-attention-shapes.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

// What the emulator's device is: programs take what they have for sm_90a.
process.env.MALC_SIMT_CAPABILITY = '9.0';

const plain = { ...shapes[0]!, heads: 1, kvHeads: 1 };
const sized = (dim: number, more: Partial<AttentionShape> = {}): AttentionShape => ({
  ...{ ...plain, dim, valueDim: dim, valueWidth: dim },
  ...more,
});
const compiled: readonly Compiled[] = [
  { name: 'grouped', shape: sized(64, { heads: 2 }), program: 'narrow' },
];

/** As those of cuda-attention-bf16.test.ts, and for the same reasons. */
const bounds: Bounds = { output: 4e-3, logSumExp: 1e-6, gradient: 1e-2, slopes: 3e-2 };

const test = suite('cuda attention, Hopper');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-attention-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const narrowed = (given: Case): Case => {
  const { query, key, value } = given;
  return { ...given, query: cutToBf16(query), key: cutToBf16(key), value: cutToBf16(value) };
};

if (await emulatorAvailable()) {
  console.time('build');
  const library = await buildShapes(folder, compiled);
  console.timeEnd('build');

  for (const each of compiled)
    test(each.name, () => {
      const random = randomNumbers(61);
      const { shape } = each;
      for (const time of [200]) {
        const given = narrowed(randomCase(shape, training(2, time), random));
        console.time('fwd');
        holdForward(library, each, given, bounds);
        console.timeEnd('fwd');
        console.time('bwd');
        holdBackward(library, each, given, cutToBf16(randomFloats(random, outputsOf(shape, given))), bounds);
        console.timeEnd('bwd');
      }
    });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test.run();
