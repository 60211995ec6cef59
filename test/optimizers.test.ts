// Optimizers in compiled programs: each rule against its restatement in float64, what is kept for it in memory, averages of
// weights, and what is left alone.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NativeModel } from '../runtime/native.ts';
import { loadTraining, loadWeights, type TrainState, writeCheckpoint } from '../runtime/train/checkpoint.ts';
import { settings } from './fixtures/bigram-run.ts';
import { userError } from './fixtures/user-error.ts';
import { batchOf, open } from './held-against-oracle.ts';
import { holdUpdates, mixed, muonsRules, type Rules, update } from './held-updates.ts';
import { adamw, lion, muon, type Rule, sgd, type Tensor } from './optimizer-rules.ts';
import { relativeError } from './oracle.ts';

const test = suite('optimizers');

const folder = mkdtempSync(join(tmpdir(), 'malc-optimizers-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const cases: readonly (Rules & { optimizer: 'adamw' | 'muon' | 'lion' | 'sgd'; momentum: boolean })[] = [
  { optimizer: 'adamw', momentum: true, ruleOf: () => adamw, moments: () => 2 },
  { optimizer: 'lion', momentum: true, ruleOf: () => lion, moments: () => 1 },
  { optimizer: 'sgd', momentum: true, ruleOf: () => sgd, moments: () => 1 },
  { optimizer: 'sgd', momentum: false, ruleOf: () => sgd, moments: () => 0 },
  { optimizer: 'muon', momentum: true, ...muonsRules },
];

/** Bytes of a model's memory, and those among them that are moments and averages. */
interface State {
  readonly all: number;
  readonly state: number;
}

/** Of the cases, in their order. */
const states: State[] = [];

const { tokens, labels } = batchOf(mixed, 4, 8, 3);
const size = { microBatches: 2, batch: 2, time: 8, update };
const state: TrainState = {
  ...{ step: 2, cursor: 8, settings, target: 'cpu', data: ['/text'], dataHash: 'd', tokenizerHash: 't' },
  ...{ validationLoss: null, lowest: null, journals: { metrics: 0, samples: 0 } },
};

/** What torch.optim computed: test/fixtures/optimizers/make.py. */
interface Stored {
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly start: Readonly<Record<string, readonly number[]>>;
  readonly gradients: readonly Readonly<Record<string, readonly number[]>>[];
  readonly results: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;
}

test('the rules are those of PyTorch', () => {
  const path = join(import.meta.dirname, 'fixtures/optimizers/updates.json');
  const { shapes, start, gradients, results }: Stored = JSON.parse(readFileSync(path, 'utf8'));
  const rules: Readonly<Record<string, Rule>> = { adamw, sgd, plain: sgd, muon };
  for (const [optimizer, tensors] of Object.entries(results))
    for (const [name, expected] of Object.entries(tensors)) {
      const moment = () => (optimizer === 'plain' ? null : new Float64Array(expected.length));
      const shape = shapes[name]!;
      const weights = Float64Array.from(start[name]!);
      let tensor: Tensor = { shape, decays: shape.length > 1, weights, first: moment(), second: moment() };
      for (const [step, gradient] of gradients.entries())
        tensor = rules[optimizer]!(tensor, Float64Array.from(gradient[name]!), { ...update, update: step + 1 });
      const error = relativeError(tensor.weights, expected);
      assert.ok(error < 1e-13, `${optimizer}, ${name}: ${error}`);
    }
});

for (const { optimizer, momentum, ...rules } of cases) {
  const name = momentum ? optimizer : `${optimizer} without momentum`;
  const opened = (averages: boolean, threads: number) =>
    open(mixed, { fuse: true, optimizer, momentum, averages, threads, flags: ['-O0'] }, { batch: 2, time: 8 });

  test(`${name}: an update is what its papers say`, async () => {
    const native = await opened(true, 2);
    await holdUpdates(native, mixed, rules);
    native.close();
  });

  test(`${name}: a checkpoint has all that goes on, bit for bit; neither threads nor averages change a weight`, async () => {
    const checkpoint = join(folder, name.replaceAll(' ', '-'));
    const [whole, resumed, plain] = [await opened(true, 3), await opened(true, 2), await opened(false, 1)];
    const step = (native: NativeModel, n: number) =>
      native.step(tokens, labels, { ...size, update: { ...update, update: n } });
    for (const native of [whole, plain]) {
      await native.initialize(7);
      for (let n = 1; n <= 2; n++) await step(native, n);
    }
    await writeCheckpoint(checkpoint, whole, state);
    loadTraining(checkpoint, resumed);
    for (const native of [whole, resumed, plain]) await step(native, 3);
    for (const [n, own] of whole.parameters.entries()) {
      for (const what of ['data', 'firstMoment', 'secondMoment', 'average'] as const)
        assert.equal(resumed.parameters[n]![what]?.slice(), own[what]?.slice(), `${what} of ${own.name}`);
      assert.equal(plain.parameters[n]!.data.slice(), own.data.slice(), own.name);
      assert.is(plain.parameters[n]!.average, null);
    }
    loadWeights(checkpoint, plain, true);
    assert.is.not(plain.parameters[0]!.data[5], whole.parameters[0]!.data[5], 'averages');
    for (const native of [whole, resumed, plain]) native.close();
  });

  test(`${name}: no memory is for what is not kept`, async () => {
    const bytes = async (averages: boolean) => {
      const native = await opened(averages, 1);
      const numbers = native.parameters.map(own => own.data.length * (Number(averages) + own.moments));
      native.close();
      return { all: native.bytes, state: 4 * numbers.reduce((a, b) => a + b, 0) };
    };
    const [without, withAverages] = [await bytes(false), await bytes(true)];
    // Beginnings of buffers lie at multiples of 64 bytes, and so do those of parameters in them.
    const padding = 64 * (mixed.layers.length + 2) * 20;
    const more = withAverages.all - without.all - (withAverages.state - without.state);
    assert.ok(more >= 0 && more < padding, `${more} bytes`);
    states.push(without);
  });
}

test('programs differ in memory by their moments alone', () => {
  const [adamw, lion, sgd, plain] = states as [State, State, State, State];
  for (const [more, less] of [
    [adamw, lion],
    [sgd, plain],
  ] as const) {
    const difference = more.all - less.all - (more.state - less.state);
    assert.ok(Math.abs(difference) < 0.05 * (more.state - less.state), `${difference} bytes`);
  }
  assert.is(lion.all, sgd.all);
});

test('what another optimizer left is refused', async () => {
  const native = await open(mixed, { fuse: true, optimizer: 'muon', flags: ['-O0'] }, { batch: 2, time: 8 });
  assert.match(
    userError(() => loadTraining(join(folder, 'adamw'), native)),
    /holds the tensor 'model\.\S+\.second_moment', which the model does not have/,
  );
  native.close();
});

test('averages take the place of the weights for as long as they are asked for', async () => {
  const native = await open(mixed, { fuse: true, averages: true, flags: ['-O0'] }, { batch: 2, time: 8 });
  await native.initialize(7);
  for (let n = 1; n <= 3; n++) await native.step(tokens, labels, { ...size, update: { ...update, update: n } });
  const [weights, averages] = (['data', 'average'] as const).map(what =>
    native.parameters.map(own => own[what]!.slice()),
  );
  const losses = { batch: 2, time: 8 };
  const evaluate = async () => (await native.evaluate(tokens.subarray(0, 16), labels.subarray(0, 16), losses)).loss;
  const before = await evaluate();
  const averaged = await native.withAverages(async () => {
    for (const [n, own] of native.parameters.entries()) assert.equal(own.data.slice(), averages![n], own.name);
    return await evaluate();
  });
  assert.is.not(averaged, before);
  assert.is(await evaluate(), before);
  for (const [n, own] of native.parameters.entries()) {
    assert.equal(own.data.slice(), weights![n], own.name);
    assert.equal(own.average!.slice(), averages![n], own.name);
  }
  native.close();
});

test.run();
