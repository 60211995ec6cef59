// malc verify on CUDA, in the emulator, for every reference that ../shared has: logits, loss, every gradient, a continuation
// and a run of AdamW are PyTorch's, in float32 and, nearly, in bfloat16; the latter on Hopper GPUs too.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { trainingTypes } from '../compiler/targets/cpu/kernel-source.ts';
import { holdReference } from './cuda/references.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda references');
const shared = '../shared/reference';
const isReference = (name: string): boolean => existsSync(join(shared, name, 'config.json'));
const references = existsSync(shared) ? readdirSync(shared).filter(isReference).sort() : [];
const available = await emulatorAvailable();
if (!available) console.log('no g++ that the emulator can use: references are not verified on CUDA');
else if (references.length === 0) console.log(`no ${shared}: CUDA is held against the references of the tests alone`);

for (const name of available ? references : [])
  for (const dtype of trainingTypes)
    test(`${name} in ${dtype} computes what PyTorch computed`, async () => {
      const report = await holdReference(join(shared, name), dtype);
      assert.is(report.logits_rel_l2 > 1e-4, dtype === 'bf16', 'products are rounded where they should be');
    });

test.run();
