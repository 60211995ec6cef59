// The options of `malc train` that are numbers of the run: its mathematics, and its habits.
import { optimizers } from '../../compiler/emission/optimizer.ts';
import { trainingTypes } from '../../compiler/targets/cpu/kernel-source.ts';
import type { GivenSettings } from '../train/derive.ts';
import type { Cadence } from '../train/loop.ts';
import { scheduleKinds } from '../train/schedule.ts';
import type { Option } from './command.ts';

/** Options that are settings of the run's mathematics; what is left out is derived or, on --resume, as the run has it. */
export const settingOptions: Readonly<Record<keyof GivenSettings, Option>> = {
  steps: {
    ...setting('count', 'Updates of the weights', 'one pass over the text', ['iters', 'max-steps']),
    instead: ['epochs', 'tokens'],
  },
  epochs: {
    ...setting('aboveZero', 'Passes over the text, in place of --steps', undefined, 'e'),
    instead: ['steps', 'tokens'],
  },
  tokens: { ...setting('count', 'Tokens to learn from, in place of --steps'), instead: ['steps', 'epochs'] },
  'batch-size': {
    ...setting('count', 'Sequences in one micro-batch; auto for as many as there is memory for', '8', 'b'),
    auto: true,
  },
  'seq-len': setting('count', 'Tokens in a sequence', 'the model’s, at most 256', 'block-size'),
  lr: setting('aboveZero', 'Peak learning rate', 'by the model’s width'),
  optimizer: { type: 'string', choices: optimizers, describe: 'How gradients move the weights', whenAbsent: 'adamw' },
  schedule: { type: 'string', choices: scheduleKinds, describe: 'How --lr goes down', whenAbsent: 'cosine' },
  'grad-accum': { ...advanced('count', 'Micro-batches in one update', '1'), instead: ['tokens-per-step'] },
  'tokens-per-step': {
    ...advanced('count', 'Tokens in one update, in place of --grad-accum'),
    instead: ['grad-accum'],
  },
  warmup: advanced('countOrNone', 'Steps up to the peak of --lr', 'a tenth of the steps'),
  'min-lr-share': advanced('share', 'Where --lr ends, as a share of its peak', '0.1'),
  'decay-share': advanced('share', 'Share of the steps in which --schedule wsd goes down', '0.2'),
  'weight-decay': advanced('zeroOrAbove', 'Decay of tensors of 2 and more dimensions', '0.1; lion 0.3, sgd 0.0001'),
  'grad-clip': advanced('zeroOrAbove', 'Largest gradient norm, 0 for any', '1'),
  beta1: advanced('shareBelowOne', 'Decay of AdamW’s first moment, and of Lion’s direction', '0.9'),
  beta2: advanced('shareBelowOne', 'Decay of AdamW’s second moment, and of Lion’s only one', '0.95; lion 0.99'),
  momentum: advanced('shareBelowOne', 'What sgd and muon keep of past gradients', 'sgd 0.9, muon 0.95'),
  ema: advanced('shareBelowOne', 'Keep a moving average of weights, such as 0.999', '0, none'),
  seed: advanced('countOrNone', 'Seed of the first weights and of the text’s order', '1337'),
  'freeze-layers': advanced('countOrNone', 'Layers that stay as they are, from the bottom, and the embedding', 'none'),
  freeze: {
    type: 'string',
    array: true,
    advanced: true,
    describe: 'Parameters that stay as they are: regular expressions of their names',
    whenAbsent: 'none',
  },
  'validation-share': advanced('shareBelowOne', 'Share of the text held out, 0 for none', '0.1'),
  'mask-documents': {
    type: 'boolean',
    describe: 'Let no token see documents before its own; each ends at the tokenizer’s end of text',
    whenAbsent: 'a sequence is read as one',
  },
  dtype: {
    type: 'string',
    choices: trainingTypes,
    describe: 'The number type of matrix products',
    whenAbsent: 'the faster',
  },
};

function setting(
  number: NonNullable<Option['number']>,
  describe: string,
  whenAbsent?: string,
  alias?: string | readonly string[],
): Option {
  return {
    type: 'number',
    number,
    describe,
    ...(whenAbsent !== undefined && { whenAbsent }),
    ...(alias !== undefined && { alias }),
  };
}

export function advanced(number: NonNullable<Option['number']>, describe: string, whenAbsent?: string): Option {
  return { ...setting(number, describe, whenAbsent), advanced: true };
}

/** The loop's cadence by the option that sets it. */
export const cadenceOptions = {
  'eval-every': 'evaluate',
  'save-every': 'save',
  'save-minutes': 'saveMinutes',
  'sample-every': 'sample',
} as const satisfies Record<string, keyof Cadence>;

const others = ['log-every', 'keep', 'patience', 'prompt', 'text-field', 'autotune', 'any-order', 'recompute'];

/**
 * Options that a resumed run has from the folder where they are not given again: they change no weight, but for `autotune`
 * and `any-order`, which may change a GPU's order of sums, and so the last bits; and `text-field`, of which the data's hash tells.
 */
export const habits = [...Object.keys(cadenceOptions), ...others];

/** Checkpoints that stay, besides the best. */
export const usuallyKept = 2;

/** The settings that the command line gives; what is `auto` is to be found. */
export function givenSettings(args: Readonly<Record<string, unknown>>): GivenSettings {
  const given = Object.keys(settingOptions).filter(name => args[name] !== undefined && args[name] !== 'auto');
  return Object.fromEntries(given.map(name => [name, args[name]]));
}

/** The cadence that the command line gives. */
export function givenCadence(args: Readonly<Record<string, unknown>>): Partial<Cadence> {
  const given = Object.entries(cadenceOptions).filter(([name]) => args[name] !== undefined);
  return Object.fromEntries(given.map(([name, key]) => [key, args[name]]));
}
