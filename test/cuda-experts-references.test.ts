// malc verify on CUDA, in the emulator, for the references that have experts or latents: logits, loss, every gradient, a
// continuation and a run of AdamW are PyTorch's.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { verifyFolder } from '../runtime/verify/verify.ts';
import { type EmulatedOptions, emulatedTarget } from './cuda/build.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda references with experts');

/** How many tensors PyTorch has a gradient for, as on the CPU; and what GPU the emulator is, where not one of sm_80. */
const references: readonly [string, EmulatedOptions['dtype'], number, capability?: '9.0'][] = [
  ['deepseek-v2', 'f32', 30],
  ['deepseek-v2', 'bf16', 30, '9.0'],
  ['deepseek-v2-lite', 'f32', 39],
  ['deepseek-v3', 'f32', 45],
  ['mixtral', 'f32', 21],
  ['mixtral', 'bf16', 21],
  ['qwen3-moe', 'f32', 36],
];
const available = await emulatorAvailable();
if (!available) console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');
for (const [name, dtype, count, capability = '8.0'] of available ? references : [])
  test(`${name} in ${dtype}, capability ${capability}, computes what PyTorch computed`, async () => {
    process.env.MALC_SIMT_CAPABILITY = capability;
    const folder = join('test/fixtures/reference', name);
    const report = await verifyFolder(folder, dtype, warning => assert.unreachable(warning), emulatedTarget());
    assert.ok(report.pass, JSON.stringify(report));
    assert.is(report.grads_compared, count);
  });

test.run();
