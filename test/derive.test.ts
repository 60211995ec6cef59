// Settings of a training run: what is given wins, then the saved run, then what is derived; what does not fit is named.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { UserError } from '../compiler/diagnostic.ts';
import type { Optimizer } from '../compiler/emission/optimizer.ts';
import { usualTrainingType } from '../runtime/machine.ts';
import { deriveSettings, type GivenSettings } from '../runtime/train/derive.ts';
import { bigramModel, settings as saved } from './fixtures/bigram-run.ts';

const test = suite('derive');

const model = { ...bigramModel, hidden_size: 768, max_seq_len: 1024 };
/** A text of 25600 tokens. */
const derive = (given: GivenSettings, from = null as typeof saved | null) =>
  deriveSettings(given, from, model, time => 25600 / time);

test('with nothing given, everything is derived, and marked so', () => {
  const { settings, automatic } = derive({});
  assert.equal(settings, {
    steps: 13,
    'batch-size': 8,
    'grad-accum': 1,
    'seq-len': 256,
    optimizer: 'adamw',
    lr: 6e-4,
    schedule: 'cosine',
    'min-lr-share': 0.1,
    warmup: 1,
    'decay-share': 0,
    'weight-decay': 0.1,
    'grad-clip': 1,
    beta1: 0.9,
    beta2: 0.95,
    momentum: 0,
    ema: 0,
    seed: 1337,
    'freeze-layers': 0,
    freeze: [],
    'validation-share': 0.1,
    'mask-documents': false,
    dtype: usualTrainingType(),
  });
  assert.equal([...automatic].sort(), Object.keys(settings).sort());
});

test('what is given wins over what the run has, and that over what is derived', () => {
  const { settings, automatic } = derive({ lr: 0.5 }, saved);
  assert.equal(settings, { ...saved, lr: 0.5 });
  assert.is(automatic.size, 0);
});

test('epochs become steps of whole batches', () => {
  assert.is(derive({ epochs: 3, 'batch-size': 7, 'grad-accum': 2 }).settings.steps, Math.ceil(300 / 14));
  assert.is(derive({ epochs: 0.001 }).settings.steps, 1);
  assert.not(derive({ epochs: 2 }).automatic.has('steps'));
});

test('a run is as long as its tokens, and a step has as many as are asked for', () => {
  assert.is(derive({ tokens: 20_000, 'batch-size': 4 }).settings.steps, Math.ceil(20_000 / 256 / 4));
  const { settings, automatic } = derive({ 'tokens-per-step': 8192, 'batch-size': 4 });
  assert.is(settings['grad-accum'], 8);
  assert.ok(automatic.has('grad-accum'));
});

test('each schedule has the settings that it uses', () => {
  assert.is(derive({ schedule: 'wsd' }).settings['decay-share'], 0.2);
  assert.is(derive({ schedule: 'linear' }).settings['decay-share'], 0);
  assert.is(derive({ schedule: 'constant' }).settings['min-lr-share'], 1);
});

test('each optimizer has what its paper says, and no more', () => {
  const usual = (optimizer: Optimizer, given: GivenSettings = {}) => {
    const { lr, 'weight-decay': decay, beta1, beta2, momentum } = derive({ optimizer, ...given }).settings;
    return [lr, decay, beta1, beta2, momentum];
  };
  assert.equal(usual('adamw'), [6e-4, 0.1, 0.9, 0.95, 0]);
  assert.equal(usual('muon'), [6e-4, 0.1, 0.9, 0.95, 0.95]);
  assert.equal(usual('lion'), [2e-4, 0.3, 0.9, 0.99, 0]);
  assert.equal(usual('sgd'), [0.1, 1e-4, 0, 0, 0.9]);
  assert.equal(usual('sgd', { momentum: 0 }).at(-1), 0);
  assert.is(derive({ ema: 0.999 }).settings.ema, 0.999);
  // As run.json of a run has it, whose settings are all there.
  assert.is(derive(derive({ optimizer: 'sgd' }).settings).settings.optimizer, 'sgd');
});

test('what does not fit the model or another setting is refused by its option', () => {
  const cases: readonly (readonly [GivenSettings, RegExp])[] = [
    [{ 'seq-len': 2000 }, /--seq-len is 2000; the model's max_seq_len is 1024/],
    [
      { 'batch-size': 2 ** 20, 'grad-accum': 2 },
      /--batch-size 1048576, --grad-accum 2 and --seq-len 256 make 536870912/,
    ],
    [{ steps: 5, warmup: 6 }, /--warmup is 6 steps; the run has 5/],
    [{ steps: 10, warmup: 9, schedule: 'wsd' }, /--warmup 9 and the 2 steps of --decay-share are more than the 10/],
    [{ steps: 2, schedule: 'wsd', 'decay-share': 0.1 }, /--decay-share 0.1 of 2 steps is none/],
    [{ 'decay-share': 0.1 }, /--decay-share is for --schedule wsd; the way down of cosine takes all steps/],
    [{ schedule: 'constant', 'min-lr-share': 0.1 }, /--schedule constant keeps it; leave one of them out/],
    [{ 'tokens-per-step': 5000 }, /--batch-size 8 and --seq-len 256 make 2048 tokens each; give 4096 or 6144/],
    [
      { optimizer: 'sgd', beta2: 0.9 },
      /--beta2 is of no use to --optimizer sgd; .*take one that has it: AdamW, Muon, Lion$/,
    ],
    [{ momentum: 0.9 }, /--momentum is of no use to --optimizer adamw; .*: Muon, SGD$/],
    [{ 'tokens-per-step': 100 }, /make 2048 tokens each; give 2048/],
  ];
  for (const [given, expected] of cases) {
    assert.throws(
      () => derive(given),
      (error: Error) => error instanceof UserError && expected.test(error.message),
    );
  }
});

test('bfloat16 where the processor is the faster with it, else float32', () => {
  assert.is(usualTrainingType(['avx512f', 'avx512_bf16', 'avx512_fp16', 'amx_bf16']), 'bf16');
  assert.is(usualTrainingType(['avx512f', 'avx512_bf16', 'avx512_fp16']), 'f32');
  assert.is(usualTrainingType(['avx512f', 'avx512_bf16']), 'bf16');
  assert.is(usualTrainingType(['avx2', 'fma']), 'f32');
  assert.is(usualTrainingType(['asimd']), 'f32');
});

test.run();
