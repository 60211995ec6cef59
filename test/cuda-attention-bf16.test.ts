// Attention of bfloat16 products on CUDA: the generated kernels in the emulator, against float64 loops.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import { type Case, cutToBf16, outputsOf, randomCase, randomFloats, training } from './cpu/attention-calls.ts';
import { shapes } from './cpu/attention-shapes.ts';
import { type Bounds, holdBackward, holdDecoding, holdForward, holdOrders } from './cuda-attention-calls.ts';
import { buildShapes, type Compiled } from './cuda-attention-shapes.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

/** One of each kind, of every width that has block sizes of its own, and every way to store vectors. */
const compiled: readonly Compiled[] = [
  { name: 'plain', shape: shapes[0]!, program: 'narrow' },
  { name: 'window', shape: shapes[3]!, program: 'mixed' },
  { name: 'mask', shape: shapes[6]!, program: 'narrow' },
  { name: 'medium', shape: { ...shapes[3]!, dim: 96, valueDim: 80, valueWidth: 88, window: 40 }, program: 'narrow' },
  { name: 'latent', shape: shapes[8]!, program: 'narrow' },
  { name: 'slopes', shape: shapes[10]!, program: 'narrow' },
  { name: 'dropout', shape: shapes[11]!, program: 'wide' },
  { name: 'documents', shape: shapes[16]!, program: 'narrow' },
  { name: 'documents_ahead', shape: shapes[18]!, program: 'narrow' },
];

/**
 * Weights, their gradients and stored results are rounded to bfloat16, by 2^-9 at most; what is given is made of
 * numbers that bfloat16 has. A gradient is a sum of terms that partly cancel.
 */
const bounds: Bounds = { output: 4e-3, logSumExp: 1e-6, gradient: 1e-2, slopes: 3e-2 };

const test = suite('cuda attention, bf16');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-attention-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Times on both sides of a block; fewer where the reference takes long. */
const timesOf = ({ shape }: Compiled) => (shape.dim > 100 ? [70] : [9, 150]);

const narrowed = (given: Case): Case => {
  const { query, key, value } = given;
  return { ...given, query: cutToBf16(query), key: cutToBf16(key), value: cutToBf16(value) };
};

if (await emulatorAvailable()) {
  const library = await buildShapes(folder, compiled);

  for (const each of compiled)
    test(each.name, () => {
      const random = randomNumbers(51);
      const { shape } = each;
      for (const time of timesOf(each)) {
        const given = narrowed(randomCase(shape, training(time < 20 ? 2 : 1, time), random));
        holdForward(library, each, given, bounds);
        holdBackward(library, each, given, cutToBf16(randomFloats(random, outputsOf(shape, given))), bounds);
      }
      if (!shape.documents) holdDecoding(library, each, random, narrowed, bounds);
    });

  test('the same bits in any order of threads', () => {
    for (const each of compiled.filter(({ shape }) => shape.dim < 100 && !shape.documents)) {
      const random = randomNumbers(56);
      const given = narrowed(randomCase(each.shape, training(1, 100), random));
      const seed = cutToBf16(randomFloats(random, outputsOf(each.shape, given)));
      holdOrders(library, each, given, seed, [7]);
    }
  });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test.run();
