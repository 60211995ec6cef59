// Settings that the user left out: taken from the run that is resumed, or derived from the model and the text.
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { trainingTypeOf } from '../machine.ts';
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

/** Tokens in one step, at the most: a hundred times what the largest models take, and still two arrays of 1 GiB. */
const MOST_TOKENS_PER_STEP = 2 ** 28;

/**
 * Finds every setting. A given one wins, then what `saved` has; the rest is derived. Each is in its own range, which the
 * command line has seen to; here they are held against the model and one another.
 *
 * @param samplesPerEpoch how many training sequences of a length the text gives
 * @param target whose type of products is the usual one
 * @throws UserError that names the option which does not fit.
 */
export function deriveSettings(
  given: GivenSettings,
  saved: Settings | null,
  model: Model,
  samplesPerEpoch: (time: number) => number,
  target: RunTarget = 'cpu',
): Derived {
  const automatic = new Set<SettingName>();
  const choose = <Name extends SettingName>(name: Name, derive: () => Settings[Name]): Settings[Name] => {
    const value = given[name] ?? saved?.[name];
    if (value !== undefined) return value as Settings[Name];
    automatic.add(name);
    return derive();
  };
  const batch = choose('batch-size', () => 8);
  const accumulation = choose('grad-accum', () => 1);
  const time = sequenceLength(given, saved, model);
  if (batch * accumulation * time > MOST_TOKENS_PER_STEP) {
    throw new UserError(
      `--batch-size ${batch}, --grad-accum ${accumulation} and --seq-len ${time} make ` +
        `${batch * accumulation * time} tokens in a step; at most ${MOST_TOKENS_PER_STEP} can be`,
    );
  }
  const stepsOf = (epochs: number) => Math.max(1, Math.ceil((epochs * samplesPerEpoch(time)) / (batch * accumulation)));
  const steps = given.epochs === undefined ? choose('steps', () => stepsOf(1)) : stepsOf(given.epochs);
  const settings: Settings = {
    steps,
    'batch-size': batch,
    'grad-accum': accumulation,
    'seq-len': choose('seq-len', () => time),
    lr: choose('lr', () => learningRateFor(model.hidden_size)),
    'min-lr-share': choose('min-lr-share', () => 0.1),
    warmup: choose('warmup', () => Math.round(steps / 10)),
    'weight-decay': choose('weight-decay', () => 0.1),
    'grad-clip': choose('grad-clip', () => 1),
    beta1: choose('beta1', () => 0.9),
    beta2: choose('beta2', () => 0.95),
    seed: choose('seed', () => 1337),
    'validation-share': choose('validation-share', () => VALIDATION_SHARE),
    dtype: choose('dtype', () => trainingTypeOf(target)),
  };
  if (settings.warmup > steps) throw new UserError(`--warmup is ${settings.warmup} steps; the run has ${steps}`);
  return { settings, automatic };
}

/**
 * The tokens in a sequence: given, saved or derived.
 *
 * @throws UserError where the model does not know as many.
 */
export function sequenceLength(given: GivenSettings, saved: Settings | null, model: Model): number {
  const time = given['seq-len'] ?? saved?.['seq-len'] ?? Math.min(SEQUENCE_LENGTH, model.max_seq_len);
  if (time <= model.max_seq_len) return time;
  throw new UserError(`--seq-len is ${time}; the model's max_seq_len is ${model.max_seq_len}`);
}

/**
 * A peak learning rate by the model's width: 6e-4 at 768, as the inverse of the width, which is near Brown et al. 2020,
 * table 2.1; narrow models need no more than 2e-3.
 */
export function learningRateFor(hiddenSize: number): number {
  return Number(Math.min(2e-3, (6e-4 * 768) / hiddenSize).toPrecision(2));
}
