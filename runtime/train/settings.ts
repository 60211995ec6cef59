// What decides a training run's mathematics, by the names of the command line's options. A checkpoint keeps it, and a run
// resumes only where all of it is the same.
import { createHash } from 'node:crypto';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import type { Update } from '../native.ts';
import type { Schedule, ScheduleKind } from './schedule.ts';

/** Every setting that changes a weight. Keys are option names of `malc train`. */
export interface Settings {
  readonly steps: number;
  /** Sequences in one micro-batch. */
  readonly 'batch-size': number;
  /** Micro-batches in one step. */
  readonly 'grad-accum': number;
  readonly 'seq-len': number;
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
  readonly beta1: number;
  readonly beta2: number;
  readonly seed: number;
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

/** One update of a run, the `update`-th from 1. */
export function updateOf(settings: Settings, update: number, learningRate: number): Update {
  return {
    learningRate,
    beta1: settings.beta1,
    beta2: settings.beta2,
    epsilon: EPSILON,
    weightDecay: settings['weight-decay'],
    clipNorm: settings['grad-clip'],
    update,
  };
}

/** Settings that runs of older versions do not say, as these had them. */
export const formerly = {
  schedule: 'cosine',
  'decay-share': 0,
  'mask-documents': false,
} as const satisfies Partial<Settings>;

/**
 * Refuses to continue a run as something else.
 *
 * @throws UserError that names the options that differ, with both values.
 */
export function requireSameRun(folder: string, saved: Identity, given: Identity): void {
  const differences: string[] = [];
  for (const name of Object.keys(saved.settings) as (keyof Settings)[]) {
    const [before, now] = [saved.settings[name], given.settings[name]];
    if (before !== now) differences.push(`--${name} is ${now}; the run has ${before}`);
  }
  const path = firstDifference(withoutOrigins(saved.model), withoutOrigins(given.model), '');
  if (path !== null) differences.push(`--model: ${path}`);
  if (saved.dataHash !== given.dataHash)
    differences.push('--data: the text is not the one that the run was trained on');
  if (saved.tokenizerHash !== given.tokenizerHash) differences.push('--tokenizer is not the one that the run has');
  if (differences.length === 0) return;
  throw new UserError(
    `the run in ${folder} cannot be resumed with other mathematics:\n  ${differences.join('\n  ')}\n` +
      'Leave these options out to continue the run as it was, or begin a new one with another --output.',
  );
}

/** Token ids that are hashed at once. */
const HASHED = 2 ** 20;

/** A short hash of texts or token ids, for `Identity`. Ids are hashed as 32 bits each, whatever holds them. */
export function contentHash(parts: Iterable<string | Int32Array | Uint16Array | Uint32Array>): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    if (typeof part === 'string') {
      const bytes = Buffer.from(part);
      hash.update(`${bytes.length}:`).update(bytes);
      continue;
    }
    hash.update(`${4 * part.length}:`);
    for (let start = 0; start < part.length; start += HASHED)
      hash.update(new Int32Array(part.subarray(start, start + HASHED)));
  }
  return hash.digest('hex').slice(0, 32);
}

/** The Model without what does not change its mathematics: what it is called, and where it was written. */
function withoutOrigins({ name: _name, description: _description, ...rest }: Model): unknown {
  return JSON.parse(JSON.stringify(rest), (key, value) => (key === 'origin' ? undefined : value));
}

/** `blocks.0.ffn.hidden_dim is 256; the run has 128`, or null where both values are the same. */
function firstDifference(before: unknown, now: unknown, path: string): string | null {
  if (typeof before === 'object' && typeof now === 'object' && before && now) {
    const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
    for (const key of keys) {
      const difference = firstDifference(
        (before as Record<string, unknown>)[key],
        (now as Record<string, unknown>)[key],
        path ? `${path}.${key}` : key,
      );
      if (difference !== null) return difference;
    }
    return null;
  }
  return Object.is(before, now) ? null : `${path} is ${JSON.stringify(now)}; the run has ${JSON.stringify(before)}`;
}
