// Attention of float32 products on CUDA: the generated kernels in the emulator, against float64 loops.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Case, outputsOf, randomCase, randomFloats, training } from './cpu/attention-calls.ts';
import { shapes } from './cpu/attention-shapes.ts';
import { type Bounds, forward, holdBackward, holdDecoding, holdForward, holdOrders } from './cuda-attention-calls.ts';
import { buildShapes, type Compiled } from './cuda-attention-shapes.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

/** One of each kind: plain, windows, masks, latent decoding, slopes, dropout, everything together; documents. */
const compiled = [0, 3, 6, 9, 10, 11, 13, 17, 18].map(
  (number): Compiled => ({ name: `shape_${number}`, shape: shapes[number]!, program: 'f32' }),
);
const bounds: Bounds = { output: 1e-6, logSumExp: 1e-6, gradient: 3e-6, slopes: 3e-5 };

const test = suite('cuda attention');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-attention-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Times on both sides of a block; fewer where the emulator takes long. */
const timesOf = ({ shape }: Compiled) => (shape.dim > 100 ? [9] : [9, 130]);
const same = (given: Case) => given;

if (await emulatorAvailable()) {
  const library = await buildShapes(folder, compiled);

  for (const each of compiled)
    test(each.name, () => {
      const random = randomNumbers(41);
      const { shape } = each;
      for (const time of timesOf(each)) {
        const given = randomCase(shape, training(time < 20 ? 2 : 1, time), random);
        holdForward(library, each, given, bounds);
        holdBackward(library, each, given, randomFloats(random, outputsOf(shape, given)), bounds);
      }
      if (!shape.documents) holdDecoding(library, each, random, same, bounds);
    });

  test('keys may be the values too', () => {
    for (const each of compiled.filter(({ shape }) => shape.valueWidth === shape.dim && !shape.documents))
      holdDecoding(library, each, randomNumbers(42), given => ({ ...given, value: given.key }), bounds);
  });

  test('large scores neither overflow nor lose the softmax', () => {
    const given = randomCase(shapes[0]!, training(1, 100), randomNumbers(43));
    const large = { ...given, query: given.query.map(x => 300 * x) };
    holdForward(library, compiled[0]!, large, { ...bounds, output: 1e-3 });
  });

  test('nothing is dropped outside training', () => {
    const [each] = compiled.filter(({ shape }) => shape.dropout > 0);
    const { shape } = each!;
    const random = randomNumbers(44);
    const given = { ...randomCase(shape, training(2, 20), random), training: 0 };
    holdForward(library, each!, given, bounds);
    holdBackward(library, each!, given, randomFloats(random, outputsOf(shape, given)), bounds);
  });

  test('a query that sees only its sink is zero', () => {
    const [each] = compiled.filter(({ shape }) => shape.sinks);
    const given = randomCase(each!.shape, training(1, 33), randomNumbers(45));
    // So high a sink leaves nothing for the keys.
    const { output, logSumExp } = forward(library, each!, { ...given, sinks: given.sinks.map(() => 1000) });
    assert.ok(output.every(x => x === 0));
    assert.ok(logSumExp.every(x => x === 1000));
  });

  test('the same bits in any order of threads', () => {
    for (const each of compiled.filter(({ shape }) => shape.dim < 50 && !shape.documents)) {
      const random = randomNumbers(46);
      const given = randomCase(each.shape, training(1, 66), random);
      const seed = randomFloats(random, outputsOf(each.shape, given));
      holdOrders(library, each, given, seed, [7]);
    }
  });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test.run();
