// Settings that the user left out: taken from the run that is resumed, or derived from the model and the text.
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { trainingTypeOf } from '../machine.ts';
import { requireUseful, usualUpdate } from './optimizers.ts';
import { type Settings, scheduleOf } from './settings.ts';

export type SettingName = keyof Settings;

/** What the command line gave; an absent setting is to be found. */
export type GivenSettings = Partial<Settings> & {
  /** How long to train, in passes over the text or in tokens, in place of steps. */
  readonly epochs?: number;
  readonly tokens?: number;
  /** Tokens in one update, in place of micro-batches. */
  readonly 'tokens-per-step'?: number;
};

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
export const MOST_TOKENS_PER_STEP = 2 ** 28;

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
  const time = sequenceLength(given, saved, model);
  const perStep = given['tokens-per-step'];
  const accumulation =
    perStep === undefined ? choose('grad-accum', () => 1) : microBatchesFor(perStep, batch, time, automatic);
  if (batch * accumulation * time > MOST_TOKENS_PER_STEP) {
    throw new UserError(
      `--batch-size ${batch}, --grad-accum ${accumulation} and --seq-len ${time} make ` +
        `${batch * accumulation * time} tokens in a step; at most ${MOST_TOKENS_PER_STEP} can be`,
    );
  }
  const samplesFor = ({ epochs = 1, tokens }: GivenSettings) =>
    tokens === undefined ? epochs * samplesPerEpoch(time) : tokens / time;
  const stepsFor = () => Math.max(1, Math.ceil(samplesFor(given) / (batch * accumulation)));
  const isTold = given.epochs !== undefined || given.tokens !== undefined;
  const steps = isTold ? stepsFor() : choose('steps', stepsFor);
  const schedule = choose('schedule', () => 'cosine');
  const optimizer = choose('optimizer', () => 'adamw');
  const usual = usualUpdate(optimizer, model.hidden_size);
  const settings: Settings = {
    steps,
    'batch-size': batch,
    'grad-accum': accumulation,
    'seq-len': choose('seq-len', () => time),
    optimizer,
    lr: choose('lr', () => usual.lr),
    schedule,
    'min-lr-share': choose('min-lr-share', () => (schedule === 'constant' ? 1 : 0.1)),
    warmup: choose('warmup', () => Math.round(steps / 10)),
    'decay-share': choose('decay-share', () => (schedule === 'wsd' ? 0.2 : 0)),
    'weight-decay': choose('weight-decay', () => usual['weight-decay']),
    'grad-clip': choose('grad-clip', () => 1),
    beta1: choose('beta1', () => usual.beta1),
    beta2: choose('beta2', () => usual.beta2),
    momentum: choose('momentum', () => usual.momentum),
    ema: choose('ema', () => 0),
    seed: choose('seed', () => 1337),
    'freeze-layers': choose('freeze-layers', () => 0),
    freeze: choose('freeze', () => []),
    'validation-share': choose('validation-share', () => VALIDATION_SHARE),
    'mask-documents': choose('mask-documents', () => false),
    dtype: choose('dtype', () => trainingTypeOf(target)),
  };
  checkSchedule(settings);
  requireUseful(optimizer, given);
  return { settings, automatic };
}

/** @throws UserError where a setting of the schedule does not fit the run, or the schedule has no use for it. */
function checkSchedule(settings: Settings): void {
  const { steps, schedule, warmup } = settings;
  const { decaySteps } = scheduleOf(settings);
  if (warmup > steps) throw new UserError(`--warmup is ${warmup} steps; the run has ${steps}`);
  if (schedule === 'constant' && settings['min-lr-share'] !== 1)
    throw new UserError('--min-lr-share says where --lr ends, and --schedule constant keeps it; leave one of them out');
  if (schedule !== 'wsd') {
    if (settings['decay-share'] === 0) return;
    throw new UserError(`--decay-share is for --schedule wsd; the way down of ${schedule} takes all steps`);
  }
  if (decaySteps < 1)
    throw new UserError(`--decay-share ${settings['decay-share']} of ${steps} steps is none; give a larger share`);
  if (warmup + decaySteps > steps)
    throw new UserError(
      `--warmup ${warmup} and the ${decaySteps} steps of --decay-share are more than the ${steps} of the run`,
    );
}

/** @throws UserError where no whole number of micro-batches has so many tokens. */
function microBatchesFor(tokens: number, batch: number, time: number, automatic: Set<SettingName>): number {
  const each = batch * time;
  const count = tokens / each;
  if (!Number.isInteger(count)) {
    const below = Math.floor(count) * each;
    const near = below === 0 ? String(each) : `${below} or ${below + each}`;
    throw new UserError(
      `--tokens-per-step is ${tokens}, no whole number of micro-batches: --batch-size ${batch} and --seq-len ${time} ` +
        `make ${each} tokens each; give ${near}`,
    );
  }
  automatic.add('grad-accum');
  return count;
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
