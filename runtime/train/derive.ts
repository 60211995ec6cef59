// Settings that the user left out: taken from the run that is resumed, or derived from the model and the text. Every
// setting is checked here, with its option's name in the message.
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { Settings } from './settings.ts';

export type SettingName = keyof Settings;

/** What the command line gave; an absent setting is to be found. */
export type GivenSettings = Partial<Settings> & { readonly epochs?: number };

export interface Derived {
  readonly settings: Settings;
  /** The settings that nobody gave. */
  readonly automatic: ReadonlySet<SettingName>;
}

/** The share of the text that is held out where nothing is said. */
export const VALIDATION_SHARE = 0.1;

/** Positions in a sequence where nothing is said: enough for a paragraph, and affordable on a small machine. */
const SEQUENCE_LENGTH = 256;

/**
 * Finds and checks every setting. A given one wins, then what `saved` has; the rest is derived.
 *
 * @param samplesPerEpoch how many training sequences of a length the text gives
 * @throws UserError that names the option which is out of range.
 */
export function deriveSettings(
  given: GivenSettings,
  saved: Settings | null,
  model: Model,
  samplesPerEpoch: (time: number) => number,
): Derived {
  if (given.steps !== undefined && given.epochs !== undefined) {
    throw new UserError('--steps and --epochs both say how long to train; give one of them');
  }
  const automatic = new Set<SettingName>();
  const choose = (name: SettingName, derive: () => number): number => {
    const value = given[name] ?? saved?.[name];
    if (value !== undefined) return value;
    automatic.add(name);
    return derive();
  };
  const batch = whole(
    'batch-size',
    choose('batch-size', () => 8),
  );
  const accumulation = whole(
    'grad-accum',
    choose('grad-accum', () => 1),
  );
  const time = whole(
    'seq-len',
    choose('seq-len', () => Math.min(SEQUENCE_LENGTH, model.max_seq_len)),
  );
  if (time > model.max_seq_len) {
    throw new UserError(`--seq-len is ${time}; the model's max_seq_len is ${model.max_seq_len}`);
  }
  const epochs = positive('epochs', given.epochs ?? 1);
  const stepsOf = (count: number) => Math.max(1, Math.ceil((count * samplesPerEpoch(time)) / (batch * accumulation)));
  const steps = whole('steps', given.epochs === undefined ? choose('steps', () => stepsOf(epochs)) : stepsOf(epochs));
  const settings: Settings = {
    steps,
    'batch-size': batch,
    'grad-accum': accumulation,
    'seq-len': time,
    lr: positive(
      'lr',
      choose('lr', () => learningRateFor(model.hidden_size)),
    ),
    'min-lr-share': share(
      'min-lr-share',
      choose('min-lr-share', () => 0.1),
    ),
    warmup: whole(
      'warmup',
      choose('warmup', () => Math.round(steps / 10)),
      0,
    ),
    'weight-decay': notNegative(
      'weight-decay',
      choose('weight-decay', () => 0.1),
    ),
    'grad-clip': notNegative(
      'grad-clip',
      choose('grad-clip', () => 1),
    ),
    beta1: share(
      'beta1',
      choose('beta1', () => 0.9),
      true,
    ),
    beta2: share(
      'beta2',
      choose('beta2', () => 0.95),
      true,
    ),
    seed: whole(
      'seed',
      choose('seed', () => 1337),
      0,
    ),
    'validation-share': share(
      'validation-share',
      choose('validation-share', () => VALIDATION_SHARE),
      true,
    ),
  };
  if (settings.warmup > steps) throw new UserError(`--warmup is ${settings.warmup} steps; the run has ${steps}`);
  return { settings, automatic };
}

/**
 * A peak learning rate by the model's width: 6e-4 at 768, as the inverse of the width, which is near Brown et al. 2020,
 * table 2.1; narrow models need no more than 2e-3.
 */
function learningRateFor(hiddenSize: number): number {
  return Number(Math.min(2e-3, (6e-4 * 768) / hiddenSize).toPrecision(2));
}

function whole(name: string, value: number, least = 1): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new UserError(`--${name} is ${value}; a whole number of at least ${least} is needed`);
}

function share(name: string, value: number, belowOne = false): number {
  if (value >= 0 && (belowOne ? value < 1 : value <= 1)) return value;
  throw new UserError(`--${name} is ${value}; a number from 0 to ${belowOne ? 'less than 1' : '1'} is needed`);
}

function positive(name: string, value: number): number {
  if (value > 0 && Number.isFinite(value)) return value;
  throw new UserError(`--${name} is ${value}; a number above 0 is needed`);
}

function notNegative(name: string, value: number): number {
  if (value >= 0 && Number.isFinite(value)) return value;
  throw new UserError(`--${name} is ${value}; 0 or a number above is needed`);
}
