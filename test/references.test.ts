// malc verify on the small references that lie in this repository, one for each architecture with experts, latents, a state
// space or layers of two kinds: logits, loss, every gradient, a continuation and a run of AdamW are PyTorch's.
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { verifyFolder } from '../runtime/verify/verify.ts';

process.env.MALC_CACHE ??= join(tmpdir(), 'malc-test-cache');

const test = suite('references');
const references = 'test/fixtures/reference';

/** How many tensors PyTorch has a gradient for: experts are one tensor there, a bias that only selects is none. */
const gradients: Readonly<Record<string, number>> = {
  'deepseek-v2': 30,
  'deepseek-v2-lite': 39,
  'deepseek-v3': 45,
  gemma2: 35,
  'gemma3-text': 41,
  mamba: 32,
  mixtral: 21,
  'qwen3-moe': 36,
};

for (const [name, count] of Object.entries(gradients)) {
  test(`${name} computes what PyTorch computed`, async () => {
    const report = await verifyFolder(join(references, name), 'f32', warning => assert.unreachable(warning));
    assert.ok(report.pass, JSON.stringify(report));
    assert.is(report.grads_compared, count);
  });
}

// Of the routers those that no rounding turns on any path: in mixtral with AMX, and in deepseek-v3 without, a choice between
// two experts that are nearly alike goes the other way.
for (const name of ['gemma2', 'mamba', 'deepseek-v2'])
  test(`${name} computes nearly the same with products of bfloat16`, async () => {
    const report = await verifyFolder(join(references, name), 'bf16', warning => assert.unreachable(warning));
    assert.ok(report.pass, JSON.stringify(report));
    assert.is(report.dtype, 'bf16');
    assert.ok(report.logits_rel_l2 > 1e-4, 'products are rounded');
  });

test('no reference is left out', () => {
  const folders = readdirSync(references, { withFileTypes: true }).filter(entry => entry.isDirectory());
  assert.equal(folders.map(({ name }) => name).sort(), Object.keys(gradients).sort());
});

test.run();
