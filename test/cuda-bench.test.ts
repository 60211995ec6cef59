// What `malc bench` runs on a GPU: the ceilings, steps and decoding, on the emulator, whose speed says nothing.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { ceilingSources } from '../runtime/bench/ceilings.ts';
import { benchDecode } from '../runtime/bench/decode.ts';
import { type Place, peakOfProducts } from '../runtime/bench/place.ts';
import { benchSteps } from '../runtime/bench/step.ts';
import { findBuilder } from '../runtime/build.ts';
import { loadLibrary, type NativeFunction } from '../runtime/ffi.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('bench on cuda');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-bench-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
process.env.MALC_CACHE = join(folder, 'cache');

const text = `attention a { num_heads: 2 }
ffn f { hidden_dim: 24 activation: gelu gate: false }
block b { attention: a ffn: f }
model small { vocab_size: 40 hidden_size: 16 num_layers: 1 max_seq_len: 16 block: b }
`;
const model = check(parse(text, 'small.mal').syntax).model!;

test('products of bfloat16 are held against the tensor cores, all others against float32', () => {
  const ceilings = { float32: 1, bfloat16: 8, read: 1, copy: 1, update: 1 };
  assert.is(peakOfProducts(ceilings, { target: 'cuda' }, 'bf16'), 8);
  assert.is(peakOfProducts(ceilings, { target: 'cuda' }, 'f32'), 1);
  assert.is(peakOfProducts(ceilings, { target: 'cpu' }, 'bf16'), 1);
});

const nvcc = await findCudaCompiler().catch(() => null);
if (nvcc)
  test('nvcc has nothing to say of the ceilings', async () => {
    for (const [name, source] of Object.entries(ceilingSources('cuda'))) writeFileSync(join(folder, name), source);
    const { build } = await findBuilder('cuda');
    assert.is(await build(folder, join(folder, 'nvcc.so')), '');
  });
else console.log('no nvcc: the ceilings are compiled for the emulator alone');

if (await emulatorAvailable()) {
  test('the ceilings, with fewer rounds, are measured without a fault', async () => {
    const { 'model.cu': source } = ceilingSources('cuda');
    const fewer = source!.replace('ROUNDS = 1 << 12', 'ROUNDS = 2').replace('EACH = 8', 'EACH = 1');
    writeFileSync(join(folder, 'fewer.cu'), fewer);
    const output = join(folder, 'ceilings.so');
    await buildEmulated({ sources: [join(folder, 'fewer.cu')], output, library: true });
    const ceilings = ['float32', 'bfloat16', 'read', 'copy', 'update'].map(name => `malc_ceiling_${name}`);
    const native: Record<string, NativeFunction> = loadLibrary(output, {
      malc_ceiling_reserve: 'int32_t malc_ceiling_reserve(int32_t threads, int64_t bytes)',
      malc_ceiling_release: 'void malc_ceiling_release(void)',
      ...Object.fromEntries(ceilings.map(name => [name, `double ${name}(int32_t threads, double seconds)`])),
    });
    assert.is(native.malc_ceiling_reserve!(1, 1 << 14), 1);
    for (const name of ceilings) assert.ok(native[name]!(1, 0) > 0, name);
    native.malc_ceiling_release!();
  });

  test('steps and decoding are measured', async () => {
    const place: Place = { target: 'cuda-simt', device: null, builder: await findBuilder('cuda-simt') };
    const shared = { threads: 1, repeats: 1, dtype: 'bf16' } as const;
    const configurations = [{ model, batch: 1, time: 4 }];
    const [step] = await benchSteps({ ...shared, configurations, steps: 1 }, place);
    assert.ok(step!.tokensPerSecond.median > 0 && step!.memoryBytes > 0);
    const decoded = await benchDecode({ ...shared, model, batches: [1], prompt: 3, tokens: 1 }, place);
    assert.ok(decoded[0]!.generation.median > 0);
  });
} else console.log('no g++ that the emulator can use: nothing is measured on it');

test.run();
