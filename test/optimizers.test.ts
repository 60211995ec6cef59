// Optimizers in compiled programs: each rule against its restatement in float64, what is kept for it in memory, averages of
// weights, and what is left alone.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { batchOf, open } from './held-against-oracle.ts';
import { holdUpdates, mixed, muonsRules, type Rules, update } from './held-updates.ts';
import { adamw, lion, sgd } from './optimizer-rules.ts';

const test = suite('optimizers');

const cases: readonly (Rules & { optimizer: 'adamw' | 'muon' | 'lion' | 'sgd'; momentum: boolean })[] = [
  { optimizer: 'adamw', momentum: true, ruleOf: () => adamw, moments: () => 2 },
  { optimizer: 'lion', momentum: true, ruleOf: () => lion, moments: () => 1 },
  { optimizer: 'sgd', momentum: true, ruleOf: () => sgd, moments: () => 1 },
  { optimizer: 'sgd', momentum: false, ruleOf: () => sgd, moments: () => 0 },
  { optimizer: 'muon', momentum: true, ...muonsRules },
];

const { tokens, labels } = batchOf(mixed, 4, 8, 3);
const size = { microBatches: 2, batch: 2, time: 8, update };

for (const { optimizer, momentum, ...rules } of cases) {
  const name = momentum ? optimizer : `${optimizer} without momentum`;
  const opened = (averages: boolean, threads: number) =>
    open(mixed, { fuse: true, optimizer, momentum, averages, threads, flags: ['-O0'] }, { batch: 2, time: 8 });

  test(`${name}: an update is what its papers say`, async () => {
    const native = await opened(true, 2);
    await holdUpdates(native, mixed, rules);
    native.close();
  });

  test(`${name}: memory is for what is kept, and neither threads nor averages change a weight`, async () => {
    const [one, three] = [await opened(false, 1), await opened(true, 3)];
    const numbers = one.parameters.reduce((sum, { data }) => sum + data.length, 0);
    for (const native of [one, three]) {
      await native.initialize(7);
      for (let n = 1; n <= 2; n++) await native.step(tokens, labels, { ...size, update: { ...update, update: n } });
    }
    // Scratch is for each thread; of averages there is one for each weight, and a little padding.
    assert.ok(three.bytes - one.bytes >= 4 * numbers);
    for (const [n, own] of one.parameters.entries()) {
      assert.equal(own.data.slice(), three.parameters[n]!.data.slice(), own.name);
      assert.is(own.average, null);
    }
    for (const native of [one, three]) native.close();
  });
}

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
