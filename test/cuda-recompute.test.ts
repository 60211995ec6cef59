// Recompute on CUDA, in the emulator: the same bits in less memory, in graphs, where kinds of blocks share a place.
import { copyFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { compile } from '../compiler/index.ts';
import { bytesKept } from '../compiler/plan/recompute.ts';
import { NativeModel } from '../runtime/native.ts';
import { buildEmulatedModel } from './cuda/build.ts';
import { recomputeModel, stepSize, stepsOf } from './recompute-models.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda recompute');

/** One program for both: how many blocks run again is read where it is a constant. */
const isRead = (source: string) =>
  source.replace(/enum { RECOMPUTED = (\d+) };/, 'static const int RECOMPUTED = getenv("MALC_TEST_NONE") ? 0 : $1;');

if (await emulatorAvailable())
  test('weights, gradients, moments, losses: the same bits with every block and without, in bfloat16', async () => {
    const model = recomputeModel('few');
    const options = { dtype: 'bf16', recompute: 'block' } as const;
    const library = await buildEmulatedModel(model, { ...options, change: isRead });
    const run = async (libraryPath: string) => {
      const { batch: maxBatch, time: maxTime } = stepSize;
      const native = NativeModel.open(libraryPath, { maxBatch, maxTime, maxContext: 0, training: true, seed: 5 });
      const found = { ...(await stepsOf(native, model, 2)), bytes: native.bytes };
      native.close();
      return found;
    };
    const block = await run(library);
    process.env.MALC_TEST_NONE = '1';
    copyFileSync(library, `${library}.none.so`);
    const none = await run(`${library}.none.so`);
    delete process.env.MALC_TEST_NONE;
    assert.equal(block.results, none.results);
    assert.equal(block.parameters, none.parameters);
    const { kept } = compile(model, { target: 'cuda', ...options }).plan;
    assert.is(none.bytes - block.bytes, bytesKept(kept, stepSize, 0) - bytesKept(kept, stepSize));
  });
else console.log('no g++ that the emulator can use: nothing runs again on CUDA');

test.run();
