// malc verify: every stored reference of PyTorch is met, and a model that differs is seen to differ.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { verify } from '../runtime/commands/verify.ts';
import { relativeL2, verifyFolder } from '../runtime/verify/verify.ts';

process.env.MALC_CACHE ??= join(tmpdir(), 'malc-test-cache');

const test = suite('verify');
const folder = mkdtempSync(join(tmpdir(), 'malc-verify-'));
test.after(() => rmSync(folder, { recursive: true }));

const references = '../shared/reference';
const cases = existsSync(references)
  ? readdirSync(references).filter(name => existsSync(join(references, name, 'expected.json')))
  : [];
if (cases.length === 0) console.log(`no ${references}: models are not compared with PyTorch`);

const gradients: Readonly<Record<string, number>> = {
  gpt2: 40,
  llama: 30,
  'llama3-scaled-rope': 29,
  'mistral-window': 30,
  olmo2: 36,
  qwen2: 38,
};

for (const name of cases) {
  test(`${name} computes what PyTorch computed`, async () => {
    const report = await verifyFolder(join(references, name), 'f32', () => {});
    assert.ok(report.pass, JSON.stringify(report));
    assert.is(report.case, name);
    if (gradients[name] !== undefined) assert.is(report.grads_compared, gradients[name]);
  });
}

/** A copy of a reference in which `change` has altered a file's bytes. */
function changed(name: string, file: string, change: (bytes: Buffer) => void): string {
  const copy = join(folder, `${name}-${file}`);
  mkdirSync(copy);
  for (const each of readdirSync(join(references, name))) copyFileSync(join(references, name, each), join(copy, each));
  const bytes = readFileSync(join(references, name, file));
  change(bytes);
  rmSync(join(copy, file));
  writeFileSync(join(copy, file), bytes);
  return copy;
}

if (cases.includes('llama')) {
  test('one weight of another value is seen', async () => {
    // The last element of model.safetensors is that of the output norm, which every logit depends on.
    const copy = changed('llama', 'model.safetensors', bytes => bytes.writeFloatLE(3, bytes.length - 4));
    const report = await verifyFolder(copy, 'f32', () => {});
    assert.not.ok(report.pass);
    assert.ok(report.logits_rel_l2 > 1e-3, String(report.logits_rel_l2));
  });

  test('one gradient of another value is seen, and named', async () => {
    const copy = changed('llama', 'expected.safetensors', bytes => bytes.writeFloatLE(3, bytes.length - 4));
    const report = await verifyFolder(copy, 'f32', () => {});
    assert.not.ok(report.pass);
    assert.ok(report.grad_rel_l2.value > 1e-3 || report.logits_rel_l2 > 1e-3, JSON.stringify(report));
  });
}

test('what is no reference is refused by name', async () => {
  const refusal = (args: Record<string, unknown>) =>
    verify.run({ target: 'cpu', dtype: 'f32', json: true, dir: folder, ...args }).catch(error => error.message);
  assert.match(await refusal({}), /holds no batch\.json: verify compares with results of PyTorch/);
});

test('the relative difference is that of the whole, and of zeros it is the size itself', () => {
  assert.is(relativeL2(Float32Array.of(3, 4), Float32Array.of(3, 4)), 0);
  assert.is(relativeL2(Float32Array.of(0, 0), Float32Array.of(3, 4)), 1);
  assert.is(relativeL2(Float32Array.of(3, 4), Float32Array.of(0, 0)), 5);
  assert.throws(() => relativeL2(Float32Array.of(3), Float32Array.of(0, 0)), /2 values where the model has 1/);
});

test.run();
