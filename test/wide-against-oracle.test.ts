// Programs of bfloat16 products whose rows are wide enough to be stored as bfloat16, against the float64 oracle: random
// architectures, on the machine's own way to multiply and on AMX, emulated.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { holdStep, open } from './held-against-oracle.ts';
import { wideModel } from './random-models.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('wide models against oracle');

const emulator = packagePath('test/cpu/amx-emulator.h');
/** What the compiler is told for each way to multiply. */
const paths: Readonly<Record<string, readonly string[]>> = {
  'as the machine does': [],
  'on AMX, emulated': ['-DMALC_BF16_PATH=2', `-DMALC_AMX_EMULATOR="${emulator}"`],
};

/** More positions than a block has rows, and no whole number of them. */
const [batch, time] = [2, 17];

fc.sample(wideModel, { seed: 7, numRuns: 4 }).forEach((model, n) => {
  for (const [name, flags] of Object.entries(paths))
    test(`model ${n} ${name}: logits, loss, gradients, causality`, async () => {
      assert.match(compile(model, { dtype: 'bf16' }).files['model.c']!, /malc_bf16 \*const/);
      const native = await open(model, { fuse: n !== 3, dtype: 'bf16', flags }, { batch, time });
      await holdStep(native, model, batch, time, n + 1, 'bf16');
      native.close();
    });
});

test.run();
