// The GPU run (bench/gpu), as far as a machine without a GPU shows it: what it says then, a dry run of quick parts, programs
// that train by turns, and the device's own library in the emulator.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { peakOf } from '../bench/gpu/devices.ts';
import type { Kernel, Kernels } from '../bench/gpu/kernels.ts';
import { type Item, markdownTable } from '../bench/gpu/part.ts';
import { allParts, plans } from '../bench/gpu/parts.ts';
import { describe } from '../bench/gpu/peers.ts';
import { assumed, estimateProducts, measuredModels, predictStep } from '../bench/gpu/predict.ts';
import { writeRun } from '../bench/gpu/report.ts';
import type { Compared } from '../bench/gpu/steps.ts';
import { summaryOf } from '../bench/gpu/summary.ts';
import { kindOfTorch } from '../bench/gpu/torch-profile.ts';
import { tuning } from '../bench/gpu/tuning.ts';
import { byTurns, startRunner } from '../bench/peers/turns.ts';
import { flopsPerToken } from '../compiler/check/cost.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { packagePath } from '../compiler/package-files.ts';
import type { Extent } from '../compiler/plan/extent.ts';
import type { AttentionSchedule } from '../compiler/targets/cuda/hopper-attention.ts';
import { architectureOf, findCudaDevice } from '../runtime/cuda-device.ts';
import { emulatorAvailable } from './simt/build.ts';

process.env.MALC_CACHE ??= join(tmpdir(), 'malc-test-cache');

const test = suite('gpu run');
const folder = mkdtempSync(join(tmpdir(), 'malc-gpu-run-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

function run(...words: string[]): Promise<{ code: number; output: string }> {
  return runIn({}, ...words);
}

function runIn(environment: Record<string, string>, ...words: string[]): Promise<{ code: number; output: string }> {
  const program = ['--import', 'tsx', packagePath('bench/gpu/run.ts'), ...words];
  // Whatever Python the machine has, PyTorch takes its time to load.
  const settings = {
    cwd: packagePath('.'),
    env: { ...process.env, PYTHON: 'no-python-for-this-test', ...environment },
  };
  return new Promise(resolve => {
    execFile(process.execPath, program, settings, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr });
    });
  });
}

/** What a run wrote. */
function resultsOf(out: string) {
  const [json, page] = ['.json', '.md'].map(ending => readdirSync(out).find(name => name.endsWith(ending))!);
  return {
    parts: JSON.parse(readFileSync(join(out, json!), 'utf8')).parts as {
      name: string;
      status: string;
      items: Item[];
    }[],
    page: readFileSync(join(out, page!), 'utf8'),
  };
}

if (!findCudaDevice())
  test('without a GPU it says so, and how to go on', async () => {
    const { code, output } = await run('--out', folder);
    assert.is(code, 3);
    assert.match(output, /^no GPU: /);
    assert.match(output, '--dry');
  });

test('what is no part, plan or option is refused by name', async () => {
  const [part, option, plan] = await Promise.all([
    run('--dry', '--parts', 'machine,steps'),
    run('--minute', '3'),
    run('--dry', '--plan', 'fourth'),
  ]);
  assert.is(plan.code, 2);
  assert.match(plan.output, "there is no plan 'fourth': there are first, second and third");
  assert.is(part.code, 2);
  assert.match(part.output, "there is no part 'steps': there are machine, ");
  assert.is(option.code, 2);
  assert.match(option.output, '--minute');
});

const ceilings = (await emulatorAvailable()) ? ['ceilings'] : [];
if (ceilings.length === 0)
  console.log('  no g++ 12 or newer on Linux: what the part `ceilings` launches is not emulated');

test('a dry run runs its parts and writes what they found', async () => {
  const out = join(folder, 'dry');
  const { code, output } = await run('--dry', '--parts', ['machine', ...ceilings].join(), '--out', out);
  assert.is(code, 0, output);
  const { parts, page } = resultsOf(out);
  assert.equal(
    parts.map(({ name, status }) => [name, status]),
    ['machine', ...ceilings].map(name => [name, 'done']),
  );
  assert.match(page, 'A dry run, on the CPU: no number here says anything.');
  assert.match(page, '| PyTorch | no-python-for-this-test is not there |');
  if (ceilings.length > 0) assert.match(page, '| a launch in a graph | ');
});

test('a part without time is not run, and the run is no success', async () => {
  const out = join(folder, 'short');
  const { code } = await run('--dry', '--parts', 'sanitizer', '--minutes', '0.01', '--out', out);
  assert.is(code, 1);
  assert.equal(
    resultsOf(out).parts.map(({ status }) => status),
    ['not run'],
  );
});

test('llm.c is built by its own Makefile and its steps are read', async () => {
  const source = join(folder, 'llm.c');
  mkdirSync(source);
  const line = (step: number) =>
    `step ${step}/24 | loss 10.9 (+nanz)| norm 1.0 (+nanz)| lr 1e-4 | 128.00 ms | 38.1% bf16 MFU | 1 tok/s`;
  const program = Array.from({ length: 6 }, (_, step) => `echo '${line(step + 1)}'`).join('\n');
  writeFileSync(join(source, 'train_gpt2.cu'), '');
  writeFileSync(join(source, 'program'), `#!/bin/sh\ntest -s tokens.bin || exit 1\n${program}\n`);
  writeFileSync(join(source, 'Makefile'), 'train_gpt2cu: program\n\tcp program $@ && chmod +x $@\n');
  const [there, absent] = [join(folder, 'with-llm.c'), join(folder, 'without-llm.c')];
  await runIn({ LLM_C: source }, '--dry', '--parts', 'llm.c', '--out', there);
  await runIn({ LLM_C: join(folder, 'nothing') }, '--dry', '--parts', 'llm.c', '--out', absent);
  assert.match(resultsOf(there).page, '| 512.0k (512.0 to 512.0) |');
  assert.match(resultsOf(absent).page, 'holds no train_gpt2.cu');
});

test('what PyTorch launches is told apart by its names', () => {
  const names = {
    products: [
      'nvjet_tst_128x256_64x4_2x1_v_bz_TNT',
      'sm90_xmma_gemm_bf16bf16_bf16f32',
      'cutlass_80_wmma_tensorop_bf16',
    ],
    attention: ['cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma', 'fmha_cutlassF_bf16_aligned_64x64_rf_sm80'],
    update: ['void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>', 'LpNormFunctor'],
    rows: ['triton_red_fused_native_layer_norm_3', 'Memcpy DtoD'],
  };
  for (const [kind, own] of Object.entries(names)) for (const name of own) assert.is(kindOfTorch(name), kind, name);
});

test('a page begins with what the run comes to', () => {
  const speed = (median: number) => ({ median, low: median, high: median });
  const side = (median: number) => ({ tokens_per_second: speed(median), mfu: 0.5, memory_bytes: 1, start_seconds: 1 });
  const compared: Compared = {
    configuration: 'gpt2-small:64:1024',
    variant: 'compile bf16',
    malc: side(660_000),
    torch: side(500_000),
    ratio: speed(1.32),
    problem: null,
  };
  const kernel: Kernel = {
    name: 'block_y',
    kind: 'products',
    calls: 12,
    seconds: 0.005,
    share: 0.1,
    operations: 1,
    bytes: 1,
    of_ceiling: 0.7,
    bound: 'arithmetic',
    shapes: [],
    schedule: null,
    predicted_seconds: 0.004,
    peer: { libraries: ['cublaslt'], seconds: 0.0035 },
    limit: 'latency',
  };
  const kernels: Kernels = { configuration: 'gpt2-small:64:1024', kernels: [kernel], libraries: [], problems: [] };
  const part = (name: string, items: readonly Item[]) => ({
    name,
    status: 'done' as const,
    seconds: 1,
    items,
    output: null,
    clock: null,
  });
  const summary = summaryOf([
    part('references', [{}, { failed: 'differs' }]),
    part('gpt2-step', [compared]),
    part('gpt2-kernels', [kernels]),
  ]);
  for (const text of [
    'Right on the device: 1 of 2 references.',
    '**gpt2-small:64:1024: 660,000 tokens/s**, 50.0% MFU; PyTorch: 1.32 x compile bf16. The goal of 650,000: reached.',
    '| products | 5.00 | 4.00 |',
    '| block_y | 1.50 | latency |',
  ])
    assert.match(summary, text);
  assert.is(summaryOf([part('machine', [])]), '');
});

test('every part has a name and a table of nothing', () => {
  assert.is(new Set(allParts.map(({ name }) => name)).size, allParts.length);
  for (const { name, table } of allParts) assert.type(table([]), 'string', name);
  // Two stages of compiler and correctness; in every other one a part has the device for itself.
  for (const stage of plans.first.slice(2)) assert.is(stage.length, 1);
});

test('each tuned launch is a finding of its own, with what failed of it', () => {
  const way = (schedule: AttentionSchedule, seconds: number | null, failed: string | null) => ({
    choice: { schedule, library: false },
    seconds,
    failed,
  });
  const ways = [
    way({ queryGradient: 'in-turn' }, null, 'too large'),
    way({ queryGradient: 'second-pass' }, 2e-6, null),
  ];
  const finding = { launch: 'block_backward: dq', size: [2, 8], ways, own: 1, choice: ways[1]!.choice } as const;
  const items = [
    { configuration: 'a:2:8', finding, failed: 'too large' },
    { configuration: 'b:2:8', finding: null, failed: 'no memory' },
  ];
  const page = tuning.table(items);
  assert.match(page, /^a:2:8:\n/);
  assert.match(page, /block_backward: dq \| 2 x 8 \| five products at once, dQ added up in turn \| +\| failed \|/);
  assert.match(page, /seven products, dQ by a pass of its own \| 2\.0 \| chosen \|/);
  assert.match(page, /\n\nb:2:8:\n/);
});

test('predictions are of every product of a step, each once forward and twice backward', () => {
  for (const { model: name, batch, time } of measuredModels) {
    const { model } = readModel(name);
    const predictions = predictStep(model, { batch, time });
    const multiplied = predictions
      .flatMap(({ shapes }) => shapes)
      .map(shape => (shape.kind === 'product' ? shape.rows * shape.columns * shape.inner * shape.times : 0));
    // Without positions there are no scores: what is left is matrices.
    const operations = 2 * multiplied.reduce((a, b) => a + b, 0);
    assert.is(operations / batch / time, flopsPerToken(model, 0), name);
    assert.ok(predictions.every(({ seconds }) => seconds > 0 && seconds < 0.1));
  }
});

test('shapes are those that a library would be asked for: operands that are shared are read once', () => {
  const joined: Readonly<Record<string, readonly string[]>> = {
    // Query, key and value forward; the gradients of their weights, and of their input.
    'gpt2-small': ['65536 x 2304 x 768 nt', '2304 x 768 x 65536 tn', '65536 x 768 x 2304 nn'],
    // Gate and up; three gradients alike.
    'llama3-1b': ['32768 x 16384 x 2048 nt', '16384 x 2048 x 32768 tn', '32768 x 2048 x 16384 nn'],
  };
  for (const { model: name, batch, time } of measuredModels) {
    const predictions = predictStep(readModel(name).model, { batch, time });
    const texts = predictions.flatMap(({ shapes }) => shapes.map(describe));
    for (const text of joined[name]!) assert.ok(texts.includes(text), `${name}: no ${text} among ${texts.join(', ')}`);
    const attention = texts.filter(text => text.includes('heads'));
    const heads = name === 'gpt2-small' ? '12 heads' : '32 heads over 8';
    const passes = ['backward', 'forward'].map(pass => `${batch} x ${time}, ${heads} of 64, ${pass}`);
    assert.equal(attention.sort(), passes);
  }
});

test('products are predicted by the cost model, those of weights in parts', () => {
  const tokens = { runtime: ['batch', 'time'], count: 1 };
  const width = { runtime: [], count: 768 };
  const product = (rows: Extent, inner: Extent) =>
    ({ kind: 'product', rows, columns: width, inner, layout: 'tn' }) as const;
  const sizes = { batch: 64, time: 1024 };
  const ideal = (2 * 65536 * 768 * 768) / assumed.products;
  for (const [shape, isInParts] of [
    [product(tokens, width), false],
    [product(width, tokens), true],
  ] as const) {
    const { schedule, seconds } = estimateProducts([shape], sizes);
    assert.is(schedule.parts[0]! > 1, isInParts);
    assert.ok(seconds > ideal && seconds < 1.4 * ideal, `${seconds} s, at best ${ideal} s`);
  }
});

test('a page has the failures and the ends of parts that died', () => {
  const part = {
    name: 'tests',
    status: 'failed',
    seconds: 3,
    output: 'SIGSEGV',
    clock: { mhz: 1980, watts: 640 },
  } as const;
  const items = [{ file: 'one', passed: 1, total: 2, failed: 'FAIL of the second' }];
  const about = {
    date: '2026-01-02T03:04:05Z',
    malc: '1',
    commit: 'abc',
    gpu: 'NVIDIA H200',
    plan: 'first',
    minutes: 8,
  };
  const path = writeRun(folder, { ...about, parts: [{ ...part, items }] }, allParts);
  assert.is(path, join(folder, '2026-01-02-h200-abc-first'));
  const page = readFileSync(`${path}.md`, 'utf8');
  for (const text of ['| one | 1 | 2 |', 'FAIL of the second', 'SIGSEGV', '1980 MHz and 640 W'])
    assert.match(page, text);
});

test('a table stands right where all are numbers, and keeps to its columns', () => {
  assert.is(markdownTable(['a', 'b'], [['x|y', '3%']]), '| a | b |\n| --- | --: |\n| x\\|y | 3% |');
});

test('Hopper and what is newer is compiled for by its own name', () => {
  assert.is(architectureOf({ capability: [9, 0] }), 'sm_90a');
  assert.is(architectureOf({ capability: [8, 6] }), 'sm_86');
  assert.is(peakOf('NVIDIA H200'), 989.4e12);
  assert.is(peakOf('NVIDIA Unheard-of'), null);
});

const stepping = (before: string) => [
  '-e',
  `${before}; console.log('{"memory_bytes": 7}'); console.log('ready');
   require('readline').createInterface(process.stdin).on('line', () => console.log(0.25));`,
];

test('programs step by turns until they are closed', async () => {
  const runners = await Promise.all(
    ['one', 'two'].map(name => startRunner(name, process.execPath, stepping("console.log('hello')"))),
  );
  assert.is(runners[0]!.facts.memory_bytes, 7);
  assert.equal(await byTurns(runners, 3), [
    [0.25, 0.25, 0.25],
    [0.25, 0.25, 0.25],
  ]);
  // Time is over before the first round, which is run all the same.
  assert.equal(await byTurns(runners, 3, 0), [[0.25], [0.25]]);
  for (const runner of runners) await runner.close();
});

/** Is ready, and never says anything again. */
const HANGS = "console.log('ready'); setInterval(() => {}, 1000)";

async function faultOf(words: readonly string[], limit?: number): Promise<string> {
  try {
    await startRunner('it', process.execPath, words, {}, limit);
    return 'none';
  } catch (error) {
    return (error as Error).message;
  }
}

test('a program that ends, or is not ready in time, is told with its last words', async () => {
  const ended = await faultOf(['-e', "console.error('out of memory'); process.exitCode = 4"]);
  assert.is(ended, 'it ended (exit status 4)\nout of memory');
  assert.match(await faultOf(['-e', 'setInterval(() => {}, 1000)'], 0.3), 'it was not ready after 0 s');
  const hangs = await startRunner('it', process.execPath, ['-e', HANGS], {}, 10, 0.3);
  assert.match(await hangs.step().catch(error => error.message), 'it gave no answer in 0 s');
  assert.match(await startRunner('it', 'no-such-program', []).catch(error => error.message), 'ENOENT');
});

test.run();
