// `--autotune` on a GPU: what is measured, chosen and kept, with a tuner whose times are written down here; the real one on the
// emulator, whose times mean nothing; and programs that follow choices.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { ChoiceOf, TunableProduct } from '../compiler/targets/cuda/tunable.ts';
import { emitTuner, isOfStep } from '../compiler/targets/cuda/tuner.ts';
import { autotuneCuda, type TuningPlace } from '../runtime/autotune-cuda.ts';
import type { Builder } from '../runtime/cache.ts';
import { loadLibrary } from '../runtime/ffi.ts';
import { NativeModel } from '../runtime/native.ts';
import { tuningTable } from '../runtime/show/bench-tables.ts';
import { buildEmulatedModel, programFolder } from './cuda/build.ts';
import { buildStandIn } from './cuda/stand-in.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('autotune on cuda');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-autotune-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
process.env.MALC_SIMT_CAPABILITY = '9.0';

const text = `attention a { num_heads: 2 }
ffn f { hidden_dim: 48 activation: gelu gate: false }
block b { attention: a ffn: f }
model small { vocab_size: 40 hidden_size: 32 num_layers: 1 max_seq_len: 32 block: b }
`;
const model = check(parse(text, 'small.mal').syntax).model!;

/** The products of the model, with what is chosen for them. */
function productsOf(choiceOf: ChoiceOf = () => null): TunableProduct[] {
  const products = new Map<string, TunableProduct>();
  compile(model, {
    target: 'cuda',
    dtype: 'bf16',
    choiceOf(product) {
      products.set(product.key, product);
      return choiceOf(product);
    },
  });
  return [...products.values()];
}

test('products of a training step are measured, and none of decoding', () => {
  const products = productsOf().filter(isOfStep);
  const there = products.map(({ name }) => name);
  assert.ok(there.includes('block_forward: query, key, value'), there.join('\n'));
  const head = products.filter(({ name }) => name.startsWith('head_'));
  assert.ok(head.length > 0 && head.every(({ part }) => part === 4096));
});

test('a choice of what the cost model says is no change, another is', () => {
  const files = (choiceOf?: ChoiceOf) =>
    compile(model, { target: 'cuda', dtype: 'bf16', ...(choiceOf && { choiceOf }) }).files;
  const usual = files();
  assert.equal(
    files(() => ({ schedule: null, library: false })),
    usual,
  );
  const other = files(product => ({
    schedule: product.schedules({ tokens: 64, multiprocessors: 132 }).at(-1)?.schedule ?? null,
    library: true,
  }));
  const changed = Object.keys(other).filter(name => other[name] !== usual[name]);
  assert.equal(
    changed.filter(name => name.endsWith('.cu')),
    ['model.cu', 'products.cu'],
  );
  assert.ok('cublas.h' in other && !('cublas.h' in usual));
  // It is opened before graphs are captured.
  assert.match(other['model.cu']!, 'malc_find_cublas();');
  assert.not.match(usual['model.cu']!, 'cublas');
});

test('each product says how it is divided, and what was measured is a table', () => {
  const { kernels } = compile(model, {
    target: 'cuda',
    dtype: 'bf16',
    choiceOf: () => ({ schedule: null, library: true }),
  });
  const scheduled = kernels.filter(({ schedule }) => schedule !== null);
  assert.ok(scheduled.length > 5 && scheduled.every(({ kind }) => kind === 'matmul'));
  for (const { schedule } of scheduled) assert.match(schedule!, /^128 x \d+, .*; cuBLASLt where it is$/);
  const own = { schedule: null, library: false };
  const library = { schedule: null, library: true };
  const ways = [
    { choice: own, seconds: 3e-5 },
    { choice: library, seconds: 2e-5 },
  ];
  const table = tuningTable([{ product: 'head: y', size: [1, 64], ways, own: 0, choice: library }]);
  assert.match(table, /head: y +1 x 64 +30\.0 +30\.0 +20\.0 +1\.50 x +cuBLASLt$/);
});

/** A tuner whose first two ways take `times`, and others cannot be; text where the second fails. */
function paperPlace(times: readonly number[] | string): { place: TuningPlace; builds: () => number } {
  let builds = 0;
  const source = `static const double times[] = {${typeof times === 'string' ? '0, __builtin_nan("")' : times.join(', ')}};
    const char *malc_tune(int number, long long batch, long long time, int rounds, double seconds, double *took) {
      for (unsigned n = 0; n < sizeof times / sizeof *times; n++) took[n] = times[n];
      return ${typeof times === 'string' ? JSON.stringify(times) : '0'};
    }`;
  const builder: Builder = {
    command: 'paper',
    leadingArguments: [],
    version: JSON.stringify(times),
    flags: [],
    async build(where, output) {
      builds++;
      writeFileSync(join(where, 'paper.c'), source);
      execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', join(where, 'paper.c'), '-o', output]);
      return '';
    },
  };
  return {
    place: { builder, gpu: 'Paper GPU, driver 13.0', multiprocessors: 132, isHopper: true },
    builds: () => builds,
  };
}

const request = { model, dtype: 'bf16', batch: 4, time: 32 } as const;

/** Runs with a cache of its own, and this said of cuBLASLt. */
async function inCache<T>(cublas: string, run: (cache: string) => Promise<T>): Promise<T> {
  const before = { ...process.env };
  const cache = mkdtempSync(join(folder, 'cache-'));
  Object.assign(process.env, { MALC_CACHE: cache, MALC_CUBLAS: cublas });
  try {
    return await run(cache);
  } finally {
    process.env.MALC_CACHE = before.MALC_CACHE;
    delete process.env.MALC_CUBLAS;
  }
}

test('the first choice stands unless another is clearly faster', () =>
  inCache('0', async () => {
    const near = await autotuneCuda(request, paperPlace([1e-3, 0.98e-3]).place);
    assert.ok(near.findings.length > 5);
    for (const { own, ways, choice } of near.findings) assert.equal([own, choice], [0, ways[0]!.choice]);
    const clear = await autotuneCuda(request, paperPlace([1e-3, 0.9e-3]).place);
    for (const { own, ways, choice } of clear.findings) assert.equal([own, choice], [1, ways[1]!.choice]);
    const products = productsOf(clear.choiceOf).filter(isOfStep);
    assert.ok(products.some(product => clear.choiceOf(product)?.schedule));
  }));

test('what was measured is kept for this GPU, program and size', () =>
  inCache('0', async cache => {
    const { place, builds } = paperPlace([1e-3, 0.5e-3]);
    const started: number[] = [];
    const told = { ...request, onStart: (products: number) => void started.push(products) };
    const first = await autotuneCuda(told, place);
    const second = await autotuneCuda(told, place);
    assert.equal([builds(), started], [1, [first.findings.length]]);
    assert.equal(second.findings, first.findings);
    const kept = () => readdirSync(join(cache, 'schedules')).length;
    assert.is(kept(), first.findings.length);
    await autotuneCuda(told, { ...place, gpu: 'Paper GPU, driver 13.1' });
    assert.is(kept(), 2 * first.findings.length);
    await autotuneCuda({ ...told, batch: 8 }, place);
    assert.is(kept(), 3 * first.findings.length);
  }));

test('a GPU that fails is told of with the product and the way', () =>
  inCache('0', async () => {
    const { place } = paperPlace('out of memory');
    try {
      await autotuneCuda(request, place);
      assert.unreachable();
    } catch (error) {
      assert.match(
        (error as Error).message,
        /^tuning \w+: .*, 128 x \d+, .* stages, .* on Paper GPU, driver 13\.0: out of memory$/,
      );
    }
  }));

test('a library that is named and not there is refused', () =>
  inCache('/none/libcublasLt.so', async () => {
    try {
      await autotuneCuda(request, paperPlace([1]).place);
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, /^MALC_CUBLAS names \/none\/libcublasLt\.so, which is no cuBLASLt: /);
    }
  }));

if (await emulatorAvailable()) {
  const standIn = await buildStandIn(folder);

  test('cuBLASLt is a candidate where it is, and is taken where it is clearly faster', () =>
    inCache(standIn, async () => {
      // With one schedule only, the library's time is the second.
      const place = { ...paperPlace([1e-3, 0.9e-3]).place, isHopper: false };
      const { findings } = await autotuneCuda(request, place);
      for (const { ways, choice } of findings) {
        assert.equal(
          ways.map(way => way.choice.library),
          [false, true],
        );
        assert.equal(choice, { schedule: null, library: true });
      }
      const none = await autotuneCuda(request, { ...paperPlace([1e-3, -1]).place, isHopper: false });
      for (const { ways, choice } of none.findings) assert.equal([ways[1]!.seconds, choice.library], [null, false]);
    }));

  test('the tuner runs every way', async () => {
    const circumstances = { tokens: 128, multiprocessors: 4 };
    const trials = productsOf()
      .filter(({ name }) => name.includes('k_proj_weight_gradient'))
      .map(product => ({
        product,
        choices: [
          ...product
            .schedules(circumstances)
            .slice(0, 2)
            .map(({ schedule }) => ({ schedule, library: false })),
          { schedule: null, library: true },
        ],
      }));
    assert.is(trials.length, 1);
    const sources = programFolder();
    const files = emitTuner(trials);
    for (const [name, source] of Object.entries(files)) writeFileSync(join(sources, name), source);
    const units = Object.keys(files).filter(name => name.endsWith('.cu'));
    for (const [library, cublas] of [
      ['found', standIn],
      ['off', '0'],
    ] as const) {
      const output = join(sources, `${library}.so`);
      if (library === 'found')
        await buildEmulated({
          sources: units.map(name => join(sources, name)),
          include: [sources],
          output,
          library: true,
          checked: false,
        });
      else execFileSync('cp', [join(sources, 'found.so'), output]);
      process.env.MALC_CUBLAS = cublas;
      const { malc_tune } = loadLibrary(output, {
        malc_tune:
          'const char *malc_tune(int32_t number, int64_t batch, int64_t time, int32_t rounds, double seconds, double *took)',
      });
      for (const number of trials.keys()) {
        const took = new Float64Array(3);
        assert.is(malc_tune(number, 2, 24, 1, 0, took), null);
        assert.ok(took[0]! > 0 && took[1]! > 0, took.join());
        assert.ok(cublas === '0' ? took[2] === -1 : took[2]! > 0, took.join());
      }
      delete process.env.MALC_CUBLAS;
    }
  });

  test('a program that was tuned computes the same, by the library and without it', async () => {
    const choiceOf: ChoiceOf = product => {
      const last = product.schedules({ tokens: 40, multiprocessors: 4 }).at(-1);
      return { schedule: last?.schedule ?? null, library: true };
    };
    const tuned = await buildEmulatedModel(model, { dtype: 'bf16', choiceOf });
    const without = join(folder, 'without.so');
    execFileSync('cp', [tuned, without]);
    const expected = await inCache('0', () => stepOf(without));
    const { stand_in_products: products } = loadLibrary(standIn, { stand_in_products: 'int stand_in_products()' });
    const actual = await inCache(standIn, () => stepOf(tuned));
    assert.ok(products() > 20, `${products()} products by the library`);
    assert.ok(Math.abs(actual.loss - expected.loss) < 1e-3 * expected.loss, `${actual.loss}, not ${expected.loss}`);
    assert.ok(
      Math.abs(actual.gradientNorm - expected.gradientNorm) < 1e-2 * expected.gradientNorm,
      `${actual.gradientNorm}, not ${expected.gradientNorm}`,
    );
  });
} else console.log('no g++ that the emulator can use: no tuner runs');

/** The loss and the gradients' norm of a step of two micro-batches. */
async function stepOf(libraryPath: string) {
  const [batch, time] = [2, 20];
  const native = NativeModel.open(libraryPath, {
    maxBatch: batch,
    maxTime: time,
    maxContext: 0,
    training: true,
    seed: 1,
  });
  try {
    await native.initialize(1);
    const tokens = Int32Array.from({ length: 2 * batch * time }, (_, n) => (n * 7) % native.vocabularySize);
    return await native.step(tokens, tokens, { microBatches: 2, batch, time, update: null });
  } finally {
    native.close();
  }
}

test.run();
