// `malc bench`: the profile of a real step, rows and their shares, the history and what it says, tables, and every refusal.
// Nothing here depends on how fast the machine is.
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { ProgramLaunch } from '../compiler/targets/cpu/index.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import {
  appendHistory,
  type BenchRecord,
  circumstances,
  compareRecords,
  lastAlike,
  type Result,
  readHistory,
} from '../runtime/bench/history.ts';
import { rowsOf } from '../runtime/bench/kernels.ts';
import { summarize } from '../runtime/bench/measurement.ts';
import type { Place } from '../runtime/bench/place.ts';
import { benchSteps } from '../runtime/bench/step.ts';
import { stepper } from '../runtime/bench/workload.ts';
import { findBuilder } from '../runtime/build.ts';
import { buildCached } from '../runtime/cache.ts';
import { bench } from '../runtime/commands/bench.ts';
import { UsageError } from '../runtime/commands/command.ts';
import { NativeModel } from '../runtime/native.ts';
import { changeTable, kernelTable } from '../runtime/show/bench-tables.ts';
import { ship } from './fixtures/shipped.ts';

const test = suite('bench');
const compiler = await findCompiler();
const place: Place = { target: 'cpu', device: null, builder: await findBuilder('cpu') };
const folder = mkdtempSync(join(tmpdir(), 'malc-bench-test-'));
process.env.MALC_CACHE = join(folder, 'cache');
const shipped = ship();
test.after(() => {
  shipped.remove();
  rmSync(folder, { recursive: true, force: true });
});

const text = `attention a { num_heads: 2 }
ffn f { hidden_dim: 24 activation: gelu gate: false }
block b { attention: a ffn: f }
model small { vocab_size: 40 hidden_size: 16 num_layers: 2 max_seq_len: 16 block: b }
`;
writeFileSync(join(shipped.folder, 'small.mal'), text);
const model = check(parse(text, 'small.mal').syntax).model!;

const ceilings = { float32: 1e9, bfloat16: 0, read: 1e8, copy: 5e7, update: 1e8 };

test('a profile has every launch of a step, and its calls', async () => {
  const { files, launches } = compile(model, { profile: true });
  const { libraryPath } = await buildCached(files, compiler);
  const native = NativeModel.open(libraryPath, { maxBatch: 3, maxTime: 8, maxContext: 0, training: true, threads: 2 });
  try {
    await native.initialize(1);
    const step = stepper(native, { batch: 3, time: 8 });
    assert.equal(
      native.profile().map(({ name }) => name),
      launches.map(({ name }) => name),
    );
    const seconds = (await step()) + (await step());
    const profile = native.profile();
    const calls = Object.fromEntries(profile.map(launch => [launch.name, launch.calls]));
    for (const { name, function: of, count } of launches) {
      const runs = /decode|logits$|loss$/.test(of) ? 0 : of.startsWith('block_') ? 2 : 1;
      assert.is(calls[name], 2 * runs * count, name);
    }
    const inLaunches = profile.reduce((sum, launch) => sum + launch.seconds, 0);
    assert.ok(inLaunches > 0 && inLaunches <= seconds, `${inLaunches} of ${seconds} s`);
    const rows = rowsOf([{ profile }], launches, { batch: 3, time: 8 }, ceilings);
    const ofRows = rows.reduce((sum, row) => sum + row.seconds, 0);
    assert.ok(Math.abs(ofRows - inLaunches) < 1e-9 * inLaunches, 'rows add up');
    native.resetProfile();
    assert.ok(native.profile().every(launch => launch.calls === 0 && launch.seconds === 0));
  } finally {
    native.close();
  }
});

test('a program without a profile has no lines in it', async () => {
  const { libraryPath } = await buildCached(compile(model).files, compiler);
  const native = NativeModel.open(libraryPath, { maxBatch: 1, maxTime: 4, maxContext: 0, training: true });
  try {
    native.resetProfile();
    assert.equal(native.profile(), []);
  } finally {
    native.close();
  }
});

const launchOf = (name: string, count: number, part: number | null, perToken: number): ProgramLaunch => ({
  name,
  function: name.split('/')[0]!,
  kernel: name.split('/')[1]!,
  count,
  part,
  work: {
    operations: [{ runtime: ['batch', 'time'], count: perToken }],
    reads: [{ runtime: [], count: 3000 }],
    writes: [{ runtime: [], count: 1000 }],
    shapes: [],
  },
});

test('rows: one for each kernel, work of all its runs, the nearer ceiling', () => {
  const launches = [
    launchOf('block_forward/norm', 2, null, 10),
    launchOf('head_train/norm', 1, 512, 10),
    launchOf('head_train/product', 1, 512, 1000),
    launchOf('block_decode/other', 1, null, 10),
  ];
  // Two layers, each with two norms; the head in two parts of the 1,000 tokens.
  const seconds = [0.004, 0.002, 0.006, 0];
  const calls = [4, 2, 2, 0];
  const profile = launches.map(({ name }, n) => ({ name, seconds: seconds[n]!, calls: calls[n]! }));
  const [first, second, ...none] = rowsOf([{ profile }], launches, { batch: 2, time: 500 }, ceilings);
  assert.equal(none, []);
  assert.is(first!.name, 'norm', 'a tie keeps the order of the program');
  assert.equal(
    [first!.functions, first!.calls, first!.operations, first!.bytes],
    [['block_forward', 'head_train'], 6, 3 * 10_000, 3 * 4000],
  );
  assert.equal([second!.name, second!.calls, second!.operations, second!.bound], ['product', 2, 1e6, 'arithmetic']);
  assert.is(first!.bound, 'memory');
  assert.is(first!.needed, 12_000 / 1e8);
  assert.is(second!.needed, 1e6 / 1e9);
  const rows = [first!, second!];
  const table = kernelTable({
    ceilings,
    rows,
    step: summarize([0.015]),
    schedules: new Map(),
    findings: [],
    stepSeconds: 0.015,
    outside: 0.003,
    steps: 1,
    counted: 1,
  });
  const shareOf = (line: string) => Number(/ ([\d.]+)%/.exec(line)![1]);
  const lines = table.split('\n').slice(1);
  const parts = lines.slice(0, -1).map(shareOf);
  assert.equal(parts, [40, 40, 20]);
  assert.is(shareOf(lines.at(-1)!), 100);
});

test('a measurement is a median and a range', () => {
  assert.equal(summarize([3, 1, 2]), { median: 2, low: 1, high: 3 });
  assert.equal(summarize([4, 1, 2, 3]), { median: 2.5, low: 1, high: 4 });
  assert.throws(() => summarize([]), 'nothing was measured');
});

test('steps by turns: every configuration is measured', async () => {
  const configurations = [
    { model, batch: 1, time: 4 },
    { model, batch: 2, time: 16 },
  ];
  const results = await benchSteps({ configurations, dtype: 'f32', threads: 1, repeats: 2, steps: 1 }, place);
  assert.is(results.length, 2);
  for (const { tokensPerSecond, memoryBytes, buildSeconds, compileSeconds } of results) {
    assert.ok(tokensPerSecond.low > 0 && tokensPerSecond.low <= tokensPerSecond.high);
    assert.ok(memoryBytes > 0 && buildSeconds > 0 && compileSeconds > 0);
  }
  assert.ok(results[1]!.memoryBytes > results[0]!.memoryBytes);
});

// ---- The history ----

const common = circumstances(place, 2);
const rate = (median: number): Result => ({ median, low: median - 1, high: median + 1, unit: 'tokens/s' });
const span = (median: number): Result => ({ ...rate(median), unit: 'ms' });
const record = (results: BenchRecord['results'], over: Partial<BenchRecord> = {}): BenchRecord => ({
  bench: 'step',
  ...common,
  configuration: { model: 'small', batch: 1, time: 4 },
  results,
  ceilings,
  ...over,
});

test('results are appended, each a line, and read again', () => {
  const path = join(folder, 'a/deep/history.jsonl');
  assert.equal(readHistory(path), { records: [], damaged: [] });
  const [first, second] = [record({ training: rate(10) }), record({ training: rate(20) })];
  appendHistory(path, [first]);
  appendHistory(path, [second, first]);
  assert.equal(readHistory(path), { records: [first, second, first], damaged: [] });
  assert.is(readFileSync(path, 'utf8').split('\n').length, 4);
  // A line that a crash tore is told of, and the next one begins on its own.
  appendFileSync(path, '{"bench":"st');
  appendHistory(path, [second]);
  assert.equal(readHistory(path), { records: [first, second, first, second], damaged: [4] });
});

test('the last record alike: same bench, machine, threads and configuration', () => {
  const now = record({ training: rate(10) });
  const alike = record({ training: rate(12) }, { date: '2020-01-01T00:00:00.000Z', commit: 'abc' });
  const others = [
    record({ training: rate(1) }, { bench: 'decode' }),
    record({ training: rate(2) }, { threads: 1 }),
    record({ training: rate(3) }, { machine: { ...common.machine, features: ['NEON'] } }),
    record({ training: rate(4) }, { configuration: { model: 'small', batch: 2, time: 4 } }),
  ];
  assert.is(lastAlike([now, alike, ...others], now), alike);
  assert.is(lastAlike(others, now), undefined);
});

test('what moved: beyond both ranges, in the direction of its unit', () => {
  const before = record({ a: rate(100), b: rate(100), c: rate(100), d: span(10), e: span(10), old: span(1) });
  const now = record({ a: rate(110), b: rate(90), c: rate(102), d: span(20), e: span(5), fresh: span(1) });
  const changes = compareRecords(before, now);
  assert.equal(
    changes.map(({ name, verdict, ratio }) => [name, verdict, ratio]),
    [
      ['a', 'faster', 1.1],
      ['b', 'slower', 0.9],
      ['c', 'same', 1.02],
      ['d', 'slower', 2],
      ['e', 'faster', 0.5],
      ['fresh', 'new', null],
      ['old', 'gone', null],
    ],
  );
  const table = changeTable(before, now, changes);
  assert.match(table, /the machine itself: 1\.0 GFLOP\/s then, 1\.0 now/);
  assert.match(table, /^ {2}b +tokens\/s +100\.0 +90\.0 +0\.90 +SLOWER$/m);
  assert.match(table, /^ {2}c +tokens\/s +100\.0 +102\.0 +1\.02$/m);
});

// ---- The command ----

const history = join(folder, 'history.jsonl');
const run = (words: string) =>
  shipped.run([...words.split(' '), '--history', history], { MALC_CACHE: process.env.MALC_CACHE! });

test('bench kernels: a table, JSON, and a line of history', async () => {
  const { status, stdout, stderr } = await run('bench kernels -m small.mal -b 2 --seq-len 8 --steps 2 --json');
  assert.is(status, 0, stderr);
  const found = JSON.parse(stdout);
  assert.equal(found.configuration, { model: 'small', batch: 2, time: 8, dtype: 'f32' });
  assert.equal(found.steps, { measured: 2, counted: 1 });
  for (const name of ['float32', 'read', 'copy', 'update']) assert.ok(found.ceilings[name] > 0, name);
  const shares = found.kernels.reduce((sum: number, kernel: { share: number }) => sum + kernel.share, 0);
  assert.ok(Math.abs(shares + found.outside_seconds / found.step_seconds - 1) < 1e-9, 'shares add up');
  const names = found.kernels.map((kernel: { name: string }) => kernel.name);
  for (const name of ['update', 'gradient_norm', 'clear_gradients', 'block_attention'])
    assert.ok(names.includes(name), `${name} is not in ${names}`);
  const { records } = readHistory(history);
  assert.equal([records.length, records[0]!.bench, 'step' in records[0]!.results], [1, 'kernels', true]);
});

test('bench decode: one text and several, and what moved since', async () => {
  const words = 'bench decode -m small.mal --prompt 4 --tokens 2 --repeats 2 -b 3 --threads 1';
  const first = await run(`${words} --compare`);
  assert.is(first.status, 0, first.stderr);
  assert.match(first.stdout, /^ {2}texts at once +prompt tokens\/s +range +tokens\/s +range +memory$/m);
  assert.match(first.stdout, /^ {2}3 +[\d.]+k? /m);
  assert.match(first.stdout, /^ {2}3, different +[\d.]+k? /m);
  assert.match(first.stdout, /not measured here before/);
  const { compared } = JSON.parse((await run(`${words} --compare --json`)).stdout);
  assert.equal(
    compared.map((each: { changes: { name: string }[] }) => each.changes.map(({ name }) => name)),
    [
      ['prompt', 'generation'],
      ['prompt', 'generation'],
      ['prompt', 'generation'],
    ],
  );
});

test('the command line refuses before anything is measured', async () => {
  for (const [words, says] of [
    ['bench', /WHAT is needed/],
    ['bench kernels -m small.mal -b 0', /--batch-size is 0; a whole number of at least 1/],
  ] as const) {
    const { status, stdout, stderr } = await run(words);
    assert.match(stderr, says);
    assert.equal([status, stdout], [2, '']);
  }
});

const small = join(shipped.folder, 'small.mal');
const usage = UsageError.name;
const user = UserError.name;
const refusals: readonly (readonly [args: object, error: string, says: RegExp])[] = [
  [{ what: 'speed' }, usage, /^bench measures kernels, step, decode, not speed$/],
  [{ what: 'kernels' }, usage, /^bench kernels needs --model/],
  [{ what: 'kernels', model: 'nosuch' }, user, /no well-known model `nosuch`/],
  [{ what: 'kernels', model: small, 'seq-len': 17 }, user, /small sees 16 tokens, and --seq-len needs 17/],
  [{ what: 'kernels', model: small, config: ['a:1:1'] }, usage, /--config means nothing to bench kernels/],
  [{ what: 'kernels', model: small, dtype: 'int8' }, usage, /bench kernels trains, and int8 is for inference alone/],
  [{ what: 'step', model: small }, usage, /--model means nothing to bench step; it is for kernels and decode/],
  [{ what: 'step', config: [`${small}:0:8`] }, usage, /--config expects MODEL:BATCH:TIME/],
  [{ what: 'step', config: [small] }, usage, /--config expects MODEL:BATCH:TIME/],
  [{ what: 'step', config: [`${small}:1:99`] }, user, /:1:99 needs 99/],
  [{ what: 'step', config: ['nosuch:1:8'] }, user, /no well-known model `nosuch`/],
  [
    { what: 'step', config: [`${small}:1:8`], recompute: ['half'] },
    usage,
    /--recompute expects none, block or a share/,
  ],
  [
    { what: 'kernels', model: small, recompute: ['none', 'block'] },
    usage,
    /measures one program; give --recompute one/,
  ],
  [{ what: 'decode', model: small, recompute: ['block'] }, usage, /--recompute means nothing to bench decode/],
  [{ what: 'decode', model: small, prompt: 10, tokens: 10 }, user, /--prompt with --tokens needs 20/],
  [{ what: 'decode', model: small, steps: 3 }, usage, /--steps means nothing to bench decode/],
];
for (const [args, error, says] of refusals)
  test(`${JSON.stringify(args).replaceAll(shipped.folder, '')}: refused`, async () => {
    const before = readHistory(history).records.length;
    const thrown = await bench
      .run({ target: 'cpu', compare: false, json: false, history, ...args })
      .catch(reason => reason);
    assert.is(thrown?.name, error, thrown);
    assert.match(thrown.message, says);
    assert.is(readHistory(history).records.length, before, 'nothing is kept of it');
  });

test('a history that cannot be a file is told of before anything is measured', async () => {
  const args = { what: 'decode', model: small, target: 'cpu', compare: false, json: false, history: folder };
  const thrown = await bench.run(args).catch(reason => reason);
  assert.ok(thrown instanceof UserError);
  assert.match(thrown.message, /cannot read the history .*--history/);
});

test.run();
