// Whole programs for CUDA, run by the emulator: what PyTorch computed with every access to memory checked, steps that are the
// CPU's, and what is refused; and nvcc's word on them.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { MachineError, UserError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { chooseSchedule } from '../compiler/targets/cpu/schedule.ts';
import { buildCudaLibrary, findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { NativeModel } from '../runtime/native.ts';
import { verifyFolder } from '../runtime/verify/verify.ts';
import { emulatedTarget, openEmulated, programFolder } from './cuda/build.ts';
import { batchOf, open, scramble } from './held-against-oracle.ts';
import { relativeError } from './oracle.ts';
import { randomModel } from './random-models.ts';
import { emulatorAvailable } from './simt/build.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('cuda programs');

const models = fc.sample(randomModel, { seed: 20, numRuns: 20 });

function example(file: string): Model {
  const path = `mal/examples/${file}.mal`;
  return check(parse(readFileSync(packagePath(path), 'utf8'), path).syntax).model!;
}

function parsed(text: string): Model {
  return check(parse(text, 'wide.mal').syntax).model!;
}

test('what it does not have is refused by name', () => {
  const wide = (block: string) =>
    parsed(`model wide { vocab_size: 64  max_seq_len: 64  hidden_size: 1032  num_layers: 1  block { ${block} } }`);
  const refuses = (block: string, message: string) =>
    assert.throws(
      () => compile(wide(block), { target: 'cuda' }),
      (error: unknown) => error instanceof UserError && error.message.startsWith(message),
    );
  const ffn = 'ffn { hidden_dim: 64 }';
  refuses(`attention { num_heads: 1 } ${ffn}`, 'wide needs attention heads of more than 1024 elements, which');
  const experts = 'ffn { hidden_dim: 8  moe { experts: 4097  top_k: 2 } }';
  refuses(`attention { num_heads: 4 } ${experts}`, 'wide needs more than 4096 experts, which');
  assert.throws(() => compile(models[0]!, { target: 'cuda', dtype: 'int8' }), /no weights of 8 bits yet/);
  assert.throws(() => compile(models[0]!, { target: 'cuda', scheduleOf: chooseSchedule }), /takes no schedules/);
});

const nvcc = await findCudaCompiler('sm_80,sm_90a').catch(error => {
  if (!(error instanceof MachineError)) throw error;
  return null;
});
if (nvcc)
  test('nvcc has nothing to say of a program, and its library loads without a GPU', async () => {
    const folder = programFolder();
    const { files } = compile(example('01-stories'), { target: 'cuda', dtype: 'bf16' });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const library = join(folder, 'model.so');
    assert.is(await buildCudaLibrary(folder, nvcc, library), '');
    const options = { maxBatch: 1, maxTime: 8, maxContext: 0, training: true };
    try {
      NativeModel.open(library, options).close();
    } catch (error) {
      assert.match((error as Error).message, /^no GPU can be used: /);
    }
  });
else console.log('no nvcc: programs for CUDA are compiled for the emulator alone');

if (await emulatorAvailable()) {
  test('gemma2 computes what PyTorch computed, with every access to memory checked', async () => {
    const warn = (warning: string) => assert.unreachable(warning);
    const report = await verifyFolder('test/fixtures/reference/gemma2', 'f32', warn, emulatedTarget(true));
    assert.ok(report.pass, JSON.stringify(report));
    assert.is(report.target, 'cuda');
  });

  test("a run's initial weights are the CPU's, and so, rounding aside, are its clipped steps", async () => {
    const model = models.find(({ blocks }) => blocks.every(block => block.dropout === 0 && !block.ffn?.moe))!;
    const sizes = { batch: 4, time: 6 };
    const cpu = await open(model, { fuse: true }, sizes);
    const cuda = await openEmulated(model, { dtype: 'f32' }, sizes);
    const both = [cpu, cuda] as const;
    for (const native of both) await native.initialize(11);
    for (const [n, { name, data }] of cuda.parameters.entries())
      assert.equal(data.slice(), cpu.parameters[n]!.data.slice(), name);
    const { tokens, labels, roles } = batchOf(model, 8, 6, 3);
    const adamw = { learningRate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 0.1 };
    for (let update = 1; update <= 3; update++) {
      const size = { microBatches: 2, batch: 4, time: 6, roles, update: { ...adamw, update } };
      const [expected, actual] = [await cpu.step(tokens, labels, size), await cuda.step(tokens, labels, size)];
      assert.ok(Math.abs(actual.loss - expected.loss) < 1e-5 * expected.loss);
      assert.ok(Math.abs(actual.gradientNorm - expected.gradientNorm) < 1e-4 * expected.gradientNorm);
      assert.ok(expected.gradientNorm > adamw.clipNorm, 'clipped');
      assert.is(actual.scored, expected.scored);
    }
    for (const [n, { name, data, firstMoment }] of cuda.parameters.entries()) {
      const expected = cpu.parameters[n]!;
      assert.ok(relativeError(firstMoment!, Float32Array.from(expected.firstMoment!)) < 1e-3, `moment of ${name}`);
      assert.ok(relativeError(data, Float32Array.from(expected.data)) < 1e-3, name);
    }
    // What is written is what the next call reads; what a step changed is read anew.
    const weights = scramble(cuda, 5);
    const kept = new Map([...weights].map(([name, data]) => [name, data.slice()]));
    await cuda.evaluate(tokens.slice(0, 24), labels.slice(0, 24), { batch: 4, time: 6 });
    for (const { name, data } of cuda.parameters) assert.equal(data.slice(), kept.get(name), name);
    const update = { ...adamw, clipNorm: 0, update: 1 };
    await cuda.step(tokens, labels, { microBatches: 2, batch: 4, time: 6, roles, update });
    assert.not.equal(cuda.parameters[0]!.data.slice(), kept.get(cuda.parameters[0]!.name));
    for (const native of both) native.close();
  });
} else console.log('no g++ that the emulator can use: programs for CUDA are compiled, not run');

test.run();
