// malc verify on CUDA, in the emulator, for the references that have experts or latents, or layers of two kinds: logits, loss,
// every gradient, a continuation and a run of AdamW are PyTorch's; in bfloat16 on Hopper GPUs too.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { EmulatedOptions } from './cuda/build.ts';
import { holdReference } from './cuda/references.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda references with experts');

/** How many tensors PyTorch has a gradient for: as on the CPU. */
const references: readonly [string, EmulatedOptions['dtype'], number][] = [
  ['deepseek-v2', 'f32', 30],
  ['deepseek-v2', 'bf16', 30],
  ['deepseek-v2-lite', 'f32', 39],
  ['deepseek-v3', 'f32', 45],
  ['mixtral', 'f32', 21],
  ['mixtral', 'bf16', 21],
  ['qwen3-moe', 'f32', 36],
  ['qwen3-moe', 'bf16', 36],
  ['gemma2', 'bf16', 35],
  ['gemma3-text', 'bf16', 41],
];
const available = await emulatorAvailable();
if (!available) console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');
for (const [name, dtype, count] of available ? references : [])
  test(`${name} in ${dtype} computes what PyTorch computed`, async () => {
    const report = await holdReference(join('test/fixtures/reference', name), dtype);
    assert.is(report.grads_compared, count);
  });

test.run();
