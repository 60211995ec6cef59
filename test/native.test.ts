// The native model: malc.h through koffi, held against the bigram fixture; the toolchain and the cache that build it.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MachineError } from '../compiler/diagnostic.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { buildCached } from '../runtime/cache.ts';
import { NativeModel, type NativeOptions } from '../runtime/native.ts';
import { buildBigram, openBigram } from './fixtures/bigram.ts';

const test = suite('native');

const adamw = {
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0,
  clipNorm: 0,
  update: 1,
};

function tokensOf(...values: number[]): Int32Array {
  return Int32Array.from(values);
}

async function rejection(work: () => unknown): Promise<Error> {
  try {
    await work();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

test('parameters are the native memory itself', async () => {
  const model = await openBigram();
  const [table, bias] = model.writableParameters();
  assert.is(model.architecture, 'bigram');
  assert.is(model.vocabularySize, 32);
  assert.equal(table!.shape, [32, 32]);
  assert.equal([table!.decays, bias!.decays], [true, false]);
  assert.is(table!.data.length, 1024);
  table!.data[5 * 32 + 7] = 2.5;
  bias!.data[7] = 0.25;
  const logits = await model.forward(tokensOf(5), { batch: 1, time: 1 });
  assert.is(logits[7], 2.75);
  assert.is(model.bytes, 4 * 4 * (1024 + 32) + 4 * 4 * 64);
  model.close();
});

test('the gradient agrees with a central difference', async () => {
  const model = await openBigram();
  const tokens = tokensOf(3, 4, 3, 9);
  const labels = tokensOf(4, 3, 9, -1);
  const size = { batch: 2, time: 2 };
  const before = await model.step(tokens, labels, { microBatches: 1, ...size, update: null });
  assert.is(before.scored, 3);
  const table = model.writableParameters()[0]!;
  const index = 3 * 32 + 9;
  const expected = table.gradient![index]!;
  const start = table.data[index]!;
  table.data[index] = start + 0.5 ** 6;
  const above = await model.evaluate(tokens, labels, size);
  model.writableParameters()[0]!.data[index] = start - 0.5 ** 6;
  const below = await model.evaluate(tokens, labels, size);
  const difference = (above.loss - below.loss) / (2 * 0.5 ** 6);
  assert.ok(Math.abs(difference - expected) < 1e-4, `${difference} against ${expected}`);
  model.close();
});

test('a step moves weights only with an update, and micro-batches change nothing', async () => {
  const model = await openBigram();
  const tokens = tokensOf(1, 2, 3, 4, 5, 6, 7, 8);
  const labels = tokensOf(2, 3, 4, 5, 6, 7, 8, -1);
  const start = model.parameters[0]!.data.slice();
  const whole = await model.step(tokens, labels, { microBatches: 1, batch: 4, time: 2, update: null });
  assert.equal(model.parameters[0]!.data.slice(), start);
  const split = await model.step(tokens, labels, { microBatches: 2, batch: 2, time: 2, update: adamw });
  assert.equal([split.loss, split.gradientNorm], [whole.loss, whole.gradientNorm]);
  assert.not.equal(model.parameters[0]!.data.slice(), start);
  const after = await model.step(tokens, labels, { microBatches: 1, batch: 4, time: 2, update: null });
  assert.ok(after.loss < whole.loss);
  model.close();
});

test('the main thread lives while native code runs, and a second call at once is refused', async () => {
  const model = await openBigram({}, { stepMicroseconds: 100_000 });
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  const size = { microBatches: 1, batch: 1, time: 1, update: null };
  const running = model.step(tokensOf(1), tokensOf(2), size);
  const error = await rejection(() => model.evaluate(tokensOf(1), tokensOf(2), { batch: 1, time: 1 }));
  assert.match(error.message, /malc_evaluate was called while malc_step runs/);
  assert.match((await rejection(() => model.close())).message, /cannot be closed while malc_step runs/);
  await running;
  clearInterval(timer);
  assert.ok(ticks > 2, `${ticks} ticks`);
  model.close();
});

test('a refused argument carries the library’s own sentence', async () => {
  const model = await openBigram();
  const outside = await rejection(() => model.forward(tokensOf(99), { batch: 1, time: 1 }));
  assert.match(outside.message, /malc_forward: a token is outside the vocabulary/);
  const length = await rejection(() => model.forward(tokensOf(1, 2), { batch: 1, time: 1 }));
  assert.match(length.message, /forward: 1 tokens expected, 2 given/);
  model.close();
});

test('decoding step by step gives what the whole gives', async () => {
  const model = await openBigram({ training: false });
  assert.is(model.parameters[0]!.gradient, null);
  const tokens = tokensOf(4, 9, 1);
  const whole = await model.forward(tokens, { batch: 1, time: 3 });
  await model.decode(tokens.subarray(0, 2), { batch: 1, time: 2, starts: Int32Array.of(0) });
  const last = await model.decode(tokens.subarray(2), { batch: 1, time: 1, starts: Int32Array.of(2) });
  assert.equal(last, whole.slice(2 * 32));
  const full = await rejection(() => model.decode(tokensOf(1), { batch: 1, time: 1, starts: Int32Array.of(64) }));
  assert.match(full.message, /cache is full/);
  model.close();
});

test('after close every use is an error', async () => {
  const model = await openBigram();
  model.close();
  model.close();
  assert.throws(() => model.parameters, /was closed/);
  assert.match((await rejection(() => model.initialize(1))).message, /was closed/);
  assert.match((await rejection(() => model.forward(tokensOf(1), { batch: 1, time: 1 }))).message, /was closed/);
});

test('memory that cannot be had is the machine’s lack, with the bytes', async () => {
  const library = await buildBigram();
  const options: NativeOptions = { maxBatch: 1, maxTime: 1, maxContext: 2 ** 52, training: false };
  const error = await rejection(() => NativeModel.open(library, options));
  assert.instance(error, MachineError);
  assert.match(error.message, /needs 16384TiB \(18014398509\d+ bytes\) of memory, which this machine could not give/);
  const device = { name: 'Paper GPU', memory: 80 * 2 ** 30, capability: [9, 0], multiprocessors: 132 } as const;
  const onDevice = await rejection(() => NativeModel.open(library, { ...options, device }));
  assert.match(onDevice.message, /of memory, which Paper GPU, of 80\.0GiB, could not give/);
});

test('OpenMP is told to sleep while it waits, unless the user said otherwise', async () => {
  await openBigram();
  assert.is(process.env.OMP_WAIT_POLICY, 'passive');
});

test('a compiler that is not there is named, with the way to get one', async () => {
  const before = process.env.CC;
  process.env.CC = 'no-such-compiler';
  const error = await rejection(findCompiler);
  if (before === undefined) delete process.env.CC;
  else process.env.CC = before;
  assert.instance(error, MachineError);
  assert.match(error.message, /no-such-compiler: not found/);
  assert.match(error.message, /Unset CC/);
  assert.match(error.message, /To install one: /);
});

test('the cache builds once, for one content, also for two at the same time', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'malc-cache-'));
  const before = process.env.MALC_CACHE;
  process.env.MALC_CACHE = folder;
  try {
    const compiler = await findCompiler();
    const files = { 'model.c': 'int answer(void) { return 42; }\n' };
    const [first, second] = await Promise.all([buildCached(files, compiler), buildCached(files, compiler)]);
    assert.is(first.libraryPath, second.libraryPath);
    assert.ok((await buildCached(files, compiler)).cached);
    assert.equal(readdirSync(folder), [dirname(first.libraryPath).slice(folder.length + 1)]);
    const other = await buildCached({ 'model.c': 'int answer(void) { return 43; }\n' }, compiler);
    assert.not(other.cached);
    const broken = await rejection(() => buildCached({ 'model.c': 'int answer(void) { return }\n' }, compiler));
    assert.not.instance(broken, MachineError);
    const kept = /The source is kept: (.+)$/.exec(broken.message)?.[1];
    assert.ok(kept && existsSync(kept), broken.message);
  } finally {
    process.env.MALC_CACHE = before;
    rmSync(folder, { recursive: true });
  }
});

test('a cache that cannot be written says so', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'malc-cache-'));
  const before = process.env.MALC_CACHE;
  // A file where a folder should be fails for every user, root included.
  writeFileSync(join(folder, 'file'), '');
  process.env.MALC_CACHE = join(folder, 'file', 'cache');
  try {
    const compiler = await findCompiler();
    const error = await rejection(() => buildCached({ 'model.c': '' }, compiler));
    assert.instance(error, MachineError);
    assert.match(error.message, /cannot be written.*Set MALC_CACHE/);
  } finally {
    process.env.MALC_CACHE = before;
    rmSync(folder, { recursive: true });
  }
});

test.run();
