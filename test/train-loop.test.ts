// The training loop on the bigram fixture: it learns, resumes bit for bit after every kind of stop, and ends cleanly.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import { StepLine } from '../runtime/show/step-line.ts';
import type { StepRecord } from '../runtime/train/metrics.ts';
import { learningRateAt, type Schedule, scheduleKinds } from '../runtime/train/schedule.ts';
import { runBigram } from './fixtures/bigram-run.ts';

const test = suite('train loop');
const root = mkdtempSync(join(tmpdir(), 'malc-train-'));
test.after(() => rmSync(root, { recursive: true }));

let folders = 0;
const newFolder = () => join(root, `run-${folders++}`);

/** All that a run leaves behind and that must not depend on when it was stopped: everything but times and memory. */
function traceOf(folder: string) {
  const records = readFileSync(join(folder, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  const metrics = records.map(line => {
    const { seconds: _seconds, memory_bytes: _memory, ...rest } = JSON.parse(line);
    return JSON.stringify(rest);
  });
  const last = readFileSync(join(folder, 'latest'), 'utf8').trim();
  const bytes = (name: string) => readFileSync(join(folder, name)).toString('hex');
  return {
    metrics,
    samples: readFileSync(join(folder, 'samples.md'), 'utf8'),
    last,
    best: readFileSync(join(folder, 'best'), 'utf8'),
    weights: bytes(`${last}/model.safetensors`),
    optimizer: bytes(`${last}/optimizer.safetensors`),
    published: bytes('model.safetensors'),
  };
}

let uninterrupted: ReturnType<typeof traceOf>;
test.before(async () => {
  const folder = newFolder();
  await runBigram(folder);
  uninterrupted = traceOf(folder);
});

/** Starts the run as a process of its own and calls `onStep` as it tells its steps. */
function start(folder: string, words: readonly string[], onStep: (step: number, child: ChildProcess) => void) {
  const program = join(import.meta.dirname, 'fixtures/bigram-run.ts');
  const child = spawn(process.execPath, ['--import', 'tsx', program, folder, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child.stdout.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().trim().split('\n')) onStep(Number(line), child);
  });
  return new Promise<{ code: number | null; signal: string | null }>(resolve =>
    child.on('close', (code, signal) => resolve({ code, signal })),
  );
}

const schedule: Schedule = { kind: 'cosine', peak: 1, floor: 0.1, warmupSteps: 4, decaySteps: 0, steps: 12 };
const ratesOf = (other: Partial<Schedule>) =>
  Array.from({ length: 12 }, (_, step) => learningRateAt({ ...schedule, ...other }, step));

test('every schedule warms up and peaks; all but one fall from there to the floor', () => {
  for (const kind of scheduleKinds) {
    const rates = ratesOf({ kind, decaySteps: kind === 'wsd' ? 4 : 0 });
    assert.equal(rates.slice(0, 5), [0.25, 0.5, 0.75, 1, 1]);
    assert.ok(rates.slice(4).every((rate, index, all) => index === 0 || rate <= all[index - 1]!));
    if (kind !== 'constant') assert.ok(rates[11]! > 0.1 && rates[11]! < 0.23, `${kind} ends at ${rates[11]}`);
    assert.is(learningRateAt({ ...schedule, kind, warmupSteps: 0, decaySteps: 4 }, 0), 1);
  }
});

test('each schedule goes down in its own way', () => {
  const near = (value: number, expected: number) => assert.ok(Math.abs(value - expected) < 1e-12, `${value}`);
  near(ratesOf({ kind: 'cosine' })[8]!, 0.55);
  near(ratesOf({ kind: 'linear' })[6]!, 0.775);
  const stable = ratesOf({ kind: 'wsd', decaySteps: 4 });
  assert.equal(stable.slice(3, 9), [1, 1, 1, 1, 1, 1]);
  near(stable[9]!, 0.1 + 0.9 * 0.5);
  assert.equal(ratesOf({ kind: 'constant' }).slice(3), Array(9).fill(1));
});

test('a run whose validation loss no longer falls ends, and goes on to the same end when it is resumed', async () => {
  const settings = { lr: 1e-30, 'weight-decay': 0 };
  const folder = newFolder();
  const whole = await runBigram(folder, { settings, patience: 2 });
  assert.equal([whole.step, whole.ending], [12, 'patience']);
  const stopped = newFolder();
  const stop = new AbortController();
  const onStep = ({ step }: StepRecord) => step === 9 && stop.abort();
  assert.is((await runBigram(stopped, { settings, patience: 2, stop: stop.signal, onStep })).ending, 'interrupted');
  assert.equal(await runBigram(stopped, { settings, patience: 2, resume: true }), whole);
  assert.equal(traceOf(stopped), traceOf(folder));
  assert.equal(await runBigram(stopped, { settings, patience: 2, resume: true }), whole, 'it ended already');
  assert.is((await runBigram(stopped, { settings, patience: 3, resume: true })).step, 16);
});

test('it learns, and leaves a whole run folder', () => {
  const folder = join(root, 'run-0');
  const losses = uninterrupted.metrics.map(line => JSON.parse(line).loss);
  assert.is(losses.length, 24);
  assert.ok(losses[23] < losses[0] - 0.5, `${losses[0]} to ${losses[23]}`);
  assert.is(uninterrupted.published, uninterrupted.weights);
  assert.is(uninterrupted.samples.match(/^## step \d+$/gm)!.length, 3);
  assert.is(uninterrupted.last, 'step-24');
  assert.equal(
    readdirSync(folder).sort(),
    ['best', 'config.json', 'latest', 'metrics.jsonl', 'model.mal', 'model.safetensors', 'samples.md'].concat([
      'step-20',
      'step-24',
    ]),
  );
});

test('stopped at any step and resumed, it gives the same bits', async () => {
  for (const stopAt of [1, 4, 11, 23]) {
    const folder = newFolder();
    const stop = new AbortController();
    const onStep = (record: StepRecord) => record.step === stopAt && stop.abort();
    const first = await runBigram(folder, { stop: stop.signal, onStep });
    assert.equal([first.step, first.ending], [stopAt, 'interrupted']);
    assert.is(readFileSync(join(folder, 'latest'), 'utf8'), `step-${stopAt}\n`);
    await runBigram(folder, { resume: true });
    assert.equal(traceOf(folder), uninterrupted, `stopped at step ${stopAt}`);
  }
});

test('the cadence of checkpoints changes nothing but which of them there are', async () => {
  const folder = newFolder();
  await runBigram(folder, { cadence: { save: 1, saveMinutes: 0 } });
  assert.equal({ ...traceOf(folder), best: '' }, { ...uninterrupted, best: '' });
});

test('killed at any moment and resumed, it gives the same bits', async () => {
  const folder = newFolder();
  const wishes = [3, 13, 22];
  for (const wish of wishes) {
    const resume = existsSync(folder) ? ['--resume'] : [];
    const end = await start(folder, resume, (step, child) => step >= wish && child.kill('SIGKILL'));
    assert.is(end.signal, 'SIGKILL');
    // A torn line and an unfinished checkpoint, as a kill in the midst of writing leaves them.
    writeFileSync(join(folder, 'metrics.jsonl'), '{"step": 99, "lo', { flag: 'a' });
  }
  await runBigram(folder, { resume: true });
  assert.equal(traceOf(folder), uninterrupted);
  assert.equal(
    readdirSync(folder).filter(name => name.startsWith('.')),
    [],
  );
});

test('Ctrl-C finishes the step, saves and leaves with 130', async () => {
  const folder = newFolder();
  const end = await start(folder, [], (step, child) => step === 5 && child.kill('SIGINT'));
  assert.equal(end, { code: 130, signal: null });
  const saved = Number(/^step-(\d+)\n$/.exec(readFileSync(join(folder, 'latest'), 'utf8'))![1]);
  assert.ok(saved >= 5 && saved < 24, `saved at step ${saved}`);
  await runBigram(folder, { resume: true });
  assert.equal(traceOf(folder), uninterrupted);
});

test('a second Ctrl-C leaves at once, in the midst of a step', async () => {
  const folder = newFolder();
  const end = await start(folder, ['--slow'], (step, child) => {
    if (step !== 1) return;
    child.kill('SIGINT');
    setTimeout(() => child.kill('SIGINT'), 100);
  });
  assert.equal(end, { code: null, signal: 'SIGINT' });
  assert.not(existsSync(join(folder, 'latest')));
});

test('averages are evaluated, saved and gone on with, and change nothing else', async () => {
  const [whole, parted] = [newFolder(), newFolder()];
  const settings = { ema: 0.9 };
  const result = await runBigram(whole, { settings });
  await runBigram(parted, { settings, stop: AbortSignal.abort() });
  await runBigram(parted, { settings, resume: true });
  const { metrics, ...rest } = traceOf(whole);
  const { metrics: parts, ...others } = traceOf(parted);
  assert.equal(others, rest);
  assert.equal({ ...rest, metrics: '' }, { ...uninterrupted, metrics: '' });
  const averages = (folder: string) => readFileSync(join(folder, 'step-24/ema.safetensors')).toString('hex');
  assert.is(averages(parted), averages(whole));
  assert.is.not(averages(whole).slice(-64), rest.weights.slice(-64));
  const losses = [metrics, parts].map(lines =>
    lines.map(line => (JSON.parse(line) as StepRecord).averaged_validation_loss).filter(loss => loss !== undefined),
  );
  assert.is(losses[0]!.length, 6);
  assert.equal(losses[0], losses[1]);
  assert.is(result.averagedLoss, losses[0]!.at(-1));
  assert.not.equal(result.averagedLoss, result.validationLoss);
});

test('a run that is complete resumes to nothing', async () => {
  const folder = newFolder();
  await runBigram(folder);
  assert.is((await runBigram(folder, { resume: true })).step, 24);
  assert.equal(traceOf(folder), uninterrupted);
});

test('a loss that is not finite stops, names the tensor and keeps the checkpoint', async () => {
  const folder = newFolder();
  const fault = await runBigram(folder, { settings: { lr: 1e38, warmup: 8 } }).catch(error => error);
  assert.instance(fault, UserError);
  assert.match(fault.message, /^step \d+: the loss is (NaN|Infinity|-Infinity|\d)/);
  assert.match(fault.message, /The first tensor that is not finite is the (gradient of|parameter) table\.weight/);
  assert.match(fault.message, /There is no checkpoint yet|The last good checkpoint: .*step-4/);
  assert.match(fault.message, /lower --lr/);
});

test('a gradient that is not finite stops with the step before it saved', async () => {
  const folder = newFolder();
  const fault = await runBigram(folder, { breakAt: 7 }).catch(error => error);
  assert.instance(fault, UserError);
  assert.match(fault.message, /^step 7: .*the gradient's norm NaN/);
  assert.match(fault.message, /The first tensor that is not finite is the gradient of table\.weight/);
  assert.match(fault.message, /The step before it is saved: .*step-6/);
  assert.ok(existsSync(join(folder, 'step-6', 'model.safetensors')));
});

test('other mathematics are refused by the option’s name', async () => {
  const folder = newFolder();
  const stop = new AbortController();
  await runBigram(folder, { stop: stop.signal, onStep: () => stop.abort() });
  const fault = await runBigram(folder, { resume: true, settings: { lr: 0.01, steps: 30 } }).catch(error => error);
  assert.instance(fault, UserError);
  assert.match(fault.message, /--steps is 30; the run has 24/);
  assert.match(fault.message, /--lr is 0.01; the run has 0.05/);
});

test('a folder that holds a run is refused without --resume', async () => {
  const folder = newFolder();
  await runBigram(folder, { settings: { steps: 5 } });
  const fault = await runBigram(folder).catch(error => error);
  assert.instance(fault, UserError);
  assert.match(fault.message, /already holds a run. Continue it with --resume, or choose another --output/);
});

test('the step line shows logged steps under a header and marks a spike', () => {
  let screen = '';
  const options = { steps: 100, start: 0, logEvery: 10, tokensPerStep: 1000 };
  const line = new StepLine({ write: (text: string) => (screen += text) }, options);
  for (let step = 1; step <= 60; step++) {
    line.step({
      step,
      loss: step === 55 ? 9 : 3 + (step % 2) / 10,
      ...(step === 30 && { validation_loss: 3.25 }),
      gradient_norm: 1,
      learning_rate: 5.2e-4,
      tokens: step * 1000,
      seconds: 0.1,
      memory_bytes: 2 ** 30,
    });
  }
  line.sample('Once upon\na time');
  const lines = screen.trimEnd().split('\n');
  assert.match(lines[0]!, /^ {2}step +loss +val +norm +lr +tok\/s +mem +left$/);
  assert.equal(
    lines.slice(1).map(each => each.trim().split(/\s+/)[0]),
    ['1/100', '10/100', '20/100', '30/100', '40/100', '50/100', '55/100', '60/100', '>'],
  );
  assert.match(lines[4]!, /^ {2}30\/100 +3\.000 +3\.250 +1\.00 +5\.2e-4 +10\.0k +1\.0GiB +7s$/);
  assert.match(lines[7]!, / 9\.000! /);
  assert.is(lines[9], '  > Once upon a time');

  let averaged = '';
  const both = new StepLine({ write: (text: string) => (averaged += text) }, { ...options, averages: true });
  const evaluated = { validation_loss: 3.25, averaged_validation_loss: 3.125 };
  const numbers = { gradient_norm: 1, learning_rate: 1e-3, tokens: 1000, seconds: 1, memory_bytes: 2 ** 30 };
  both.step({ step: 1, loss: 4, ...evaluated, ...numbers });
  assert.match(averaged, /^ {2}step +loss +val +ema +norm .*\n {2}1\/100 +4\.000 +3\.250 +3\.125 +1\.00 /);
});

test.run();
