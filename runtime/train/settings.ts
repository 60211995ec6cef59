// What decides a training run's mathematics, by the names of the command line's options. A checkpoint keeps it, and a run
// resumes only where all of it is the same.
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { Optimizer } from '../../compiler/emission/optimizer.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { ContentHash } from '../data/content-hash.ts';
import type { Update } from '../native.ts';
import { averageKept } from './optimizers.ts';
import type { Schedule, ScheduleKind } from './schedule.ts';

/** Every setting that changes a weight. Keys are option names of `malc train`. */
export interface Settings {
  readonly steps: number;
  /** Sequences in one micro-batch. */
  readonly 'batch-size': number;
  /** Micro-batches in one step. */
  readonly 'grad-accum': number;
  readonly 'seq-len': number;
  readonly optimizer: Optimizer;
  /** The peak of the schedule. */
  readonly lr: number;
  readonly schedule: ScheduleKind;
  readonly 'min-lr-share': number;
  readonly warmup: number;
  /** The share of the steps in which the schedule `wsd` goes down; 0 for the others. */
  readonly 'decay-share': number;
  readonly 'weight-decay': number;
  /** Global gradient norm above which gradients are scaled down; 0 for none. */
  readonly 'grad-clip': number;
  /** Of AdamW and Lion; 0 for others. */
  readonly beta1: number;
  readonly beta2: number;
  /** Of SGD and Muon; 0 for others, and for SGD without any. */
  readonly momentum: number;
  /** What the averages of weights keep of themselves in an update; 0 for no averages. */
  readonly ema: number;
  readonly seed: number;
  /** Layers that stay as they are, from the bottom, with the embedding below them; 0 for none. */
  readonly 'freeze-layers': number;
  /** Regular expressions of the names of parameters that stay as they are. */
  readonly freeze: readonly string[];
  readonly 'validation-share': number;
  /** Whether no position sees another document than its own. */
  readonly 'mask-documents': boolean;
  /** What products multiply. */
  readonly dtype: TrainingType;
}

/** What a run is: its settings, and hashes of what it reads. */
export interface Identity {
  readonly settings: Settings;
  readonly model: Model;
  readonly dataHash: string;
  readonly tokenizerHash: string;
}

/** AdamW's epsilon, as every recipe has it. */
export const EPSILON = 1e-8;

/** The learning rates of a run. */
export function scheduleOf(settings: Settings): Schedule {
  const { steps } = settings;
  return {
    kind: settings.schedule,
    peak: settings.lr,
    floor: settings['min-lr-share'],
    warmupSteps: settings.warmup,
    decaySteps: Math.round(settings['decay-share'] * steps),
    steps,
  };
}

/** How the program of a run updates its weights, as it is compiled. */
export const updatingOf = ({ optimizer, momentum }: Pick<Settings, 'optimizer' | 'momentum'>) => ({
  optimizer,
  momentum: momentum > 0,
});

/** One update of a run, the `update`-th from 1. */
export function updateOf(settings: Settings, update: number, learningRate: number): Update {
  return {
    learningRate,
    beta1: settings.beta1,
    beta2: settings.beta2,
    epsilon: EPSILON,
    momentum: settings.momentum,
    average: averageKept(settings.ema, update),
    weightDecay: settings['weight-decay'],
    clipNorm: settings['grad-clip'],
    update,
  };
}

/** Settings that runs of older versions do not say, as these had them. */
export const formerly = {
  schedule: 'cosine',
  'decay-share': 0,
  optimizer: 'adamw',
  momentum: 0,
  ema: 0,
  'freeze-layers': 0,
  freeze: [],
  'mask-documents': false,
} as const satisfies Partial<Settings>;

/** A setting as a person reads it. */
export const describeSetting = (value: Settings[keyof Settings]): string =>
  Array.isArray(value) ? value.join(' ') || 'nothing' : String(value);

/**
 * Refuses to continue a run as something else.
 *
 * @throws UserError that names the options that differ, with both values.
 */
export function requireSameRun(folder: string, saved: Identity, given: Identity): void {
  const differences: string[] = [];
  for (const name of Object.keys(saved.settings) as (keyof Settings)[]) {
    const [before, now] = [saved.settings[name], given.settings[name]].map(describeSetting);
    if (before !== now) differences.push(`--${name} is ${now}; the run has ${before}`);
  }
  const path = modelDifference(saved.model, given.model);
  if (path !== null) differences.push(`--model: ${path}`);
  if (saved.dataHash !== given.dataHash)
    differences.push('--data: the text is not the one that the run was trained on, or has other weights');
  if (saved.tokenizerHash !== given.tokenizerHash) differences.push('--tokenizer is not the one that the run has');
  if (differences.length === 0) return;
  throw new UserError(
    `the run in ${folder} cannot be resumed with other mathematics:\n  ${differences.join('\n  ')}\n` +
      'Leave these options out to continue the run as it was, or begin a new one with another --output.',
  );
}

/** A short hash of texts, for `Identity`; of long ones and of tokens see `ContentHash`. */
export function contentHash(texts: Iterable<string>): string {
  const hash = new ContentHash();
  for (const text of texts) {
    const bytes = Buffer.from(text);
    hash.begin(bytes.length);
    hash.add(bytes);
  }
  return hash.digest();
}

/** The Model without what does not change its mathematics: what it is called, and where it was written. */
function withoutOrigins({ name: _name, description: _description, ...rest }: Model): unknown {
  return JSON.parse(JSON.stringify(rest), (key, value) => (key === 'origin' ? undefined : value));
}

/** `blocks.0.ffn.hidden_dim is 256; the run has 128`, or null where both models compute the same. */
export function modelDifference(saved: Model, given: Model): string | null {
  const difference = firstDifference(withoutOrigins(saved), withoutOrigins(given), '');
  if (difference === null) return null;
  const { place, before, now } = difference;
  return `${place} is ${JSON.stringify(now)}; the run has ${JSON.stringify(before)}`;
}

/** Where two values differ first, such as at `blocks.0.ffn.hidden_dim`, and what stands there. */
export interface Difference {
  readonly place: string;
  readonly before: unknown;
  readonly now: unknown;
}

/** The first difference of two values of JSON, null where they are the same. */
export function firstDifference(before: unknown, now: unknown, place: string): Difference | null {
  if (typeof before !== 'object' || typeof now !== 'object' || !before || !now)
    return Object.is(before, now) ? null : { place, before, now };
  for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
    const [was, is] = [before, now].map(value => (value as Record<string, unknown>)[key]);
    const difference = firstDifference(was, is, place ? `${place}.${key}` : key);
    if (difference !== null) return difference;
  }
  return null;
}
