// What the runs of a sweep came to, read from their folders alone: at any time, also while one goes on.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic } from '../atomic-file.ts';
import { type RunRecord, readProgress, readRun } from '../show/page/run-record.ts';
import { readState } from '../train/checkpoint.ts';
import type { Plan, PlannedVariant } from './plan.ts';

/** How far a run is: at its end, at one before its last step, failed, on its way, or not begun. */
export type RunState = 'done' | 'patience' | 'failed' | 'stopped' | 'training' | 'waiting';

export interface RunResult {
  readonly seed: number;
  readonly state: RunState;
  /** Of the last evaluation, in nats a token and in bits a byte. */
  readonly loss: number | null;
  readonly bitsPerByte: number | null;
  readonly steps: number;
  /** Of the median step. */
  readonly tokensPerSecond: number | null;
  /** Of all steps. */
  readonly seconds: number;
  /** Why it failed. */
  readonly reason: string | null;
}

/** A number over the seeds: its mean, and the standard deviation of the sample where there are two and more. */
export interface Spread {
  readonly mean: number;
  readonly deviation: number | null;
}

export interface VariantResult {
  readonly name: string;
  readonly constants: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, unknown>>;
  readonly parameters: number;
  readonly active: number;
  /** Of training, forward and backward, in one run. */
  readonly flops: number;
  readonly tokens: number;
  readonly steps: number;
  /** What the program holds, exactly. */
  readonly memory: number | null;
  /** Over the runs that are at their end; null where there are none. */
  readonly loss: Spread | null;
  readonly bitsPerByte: Spread | null;
  readonly tokensPerSecond: number | null;
  readonly runs: readonly RunResult[];
}

export interface SweepResult {
  readonly name: string;
  readonly equal: Plan['equal'];
  /** The lowest loss first; those without one last. */
  readonly variants: readonly VariantResult[];
}

const PLAN = 'sweep.json';
/** Why a run failed, in its folder; without this file it is tried again. */
const FAILURE = 'failed.txt';

/** Where a run of a sweep lies. */
export const runPath = (folder: string, variant: string, seed: number): string => join(folder, variant, `seed-${seed}`);

/** Whether a folder is that of a sweep. */
export const holdsSweep = (folder: string): boolean => existsSync(join(folder, PLAN));

/** Keeps the plan. */
export function writePlan(folder: string, plan: Plan): void {
  writeFileAtomic(join(folder, PLAN), `${JSON.stringify(plan, null, 2)}\n`);
}

/** @throws UserError where the folder holds no sweep, or its plan is damaged. */
export function readPlan(folder: string): Plan {
  const path = join(folder, PLAN);
  if (!existsSync(path)) throw new UserError(`${folder} holds no sweep (there is no ${path})`);
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Plan;
  } catch (error) {
    throw new UserError(`${path} cannot be read: ${(error as Error).message}. Remove it, and run the sweep again.`);
  }
}

/** Keeps why a run failed. */
export function writeFailure(path: string, reason: string): void {
  writeFileAtomic(join(path, FAILURE), `${reason}\n`);
}

/** The runs of a sweep that have begun, in the order in which they are made. */
export function readSweepRuns(folder: string, { variants, seeds }: Plan): RunRecord[] {
  return seeds.flatMap(seed =>
    variants.flatMap(({ name }) => {
      const path = runPath(folder, name, seed);
      // The last file of those that stand there before the first step.
      return existsSync(join(path, 'config.json'))
        ? [{ ...readRun(path), name: `${name}, seed ${seed}`, variant: name }]
        : [];
    }),
  );
}

/** What came of it, as far as it is. */
export function resultsOf(folder: string, plan: Plan): SweepResult {
  const variants = plan.variants.map(variant => variantResult(folder, variant, plan.seeds));
  const losses = (each: VariantResult) => each.loss?.mean ?? Number.POSITIVE_INFINITY;
  // Not a difference, which two infinities do not have.
  const order = (a: VariantResult, b: VariantResult) => (losses(a) < losses(b) ? -1 : losses(a) > losses(b) ? 1 : 0);
  return { name: plan.name, equal: plan.equal, variants: variants.toSorted(order) };
}

function variantResult(folder: string, variant: PlannedVariant, seeds: readonly number[]): VariantResult {
  const { name, constants, options, parameters, active, flopsPerToken, tokens, steps, memory, failure } = variant;
  const runs = seeds.map(seed =>
    failure === null ? runResult(runPath(folder, name, seed), seed, variant) : unbuilt(seed, failure),
  );
  const ended = runs.filter(({ state }) => state === 'done' || state === 'patience');
  const rates = runs.flatMap(({ tokensPerSecond }) => tokensPerSecond ?? []);
  return {
    ...{ name, constants, options, parameters, active, flops: flopsPerToken * tokens, tokens, steps, memory },
    loss: spreadOf(ended.flatMap(({ loss }) => loss ?? [])),
    bitsPerByte: spreadOf(ended.flatMap(({ bitsPerByte }) => bitsPerByte ?? [])),
    tokensPerSecond: spreadOf(rates)?.mean ?? null,
    runs,
  };
}

const nothing = { loss: null, bitsPerByte: null, steps: 0, tokensPerSecond: null, seconds: 0, reason: null };

const unbuilt = (seed: number, reason: string): RunResult => ({ seed, state: 'failed', ...nothing, reason });

/** How far one run is, and what it came to. */
export function runResult(path: string, seed: number, { steps, options }: PlannedVariant): RunResult {
  if (!existsSync(join(path, 'metrics.jsonl'))) {
    const reason = failureOf(path);
    return { seed, state: reason === null ? 'waiting' : 'failed', ...nothing, reason };
  }
  const { columns, training } = readProgress(path, 0);
  const { seconds, tokens, step } = columns;
  const lastOf = (values: readonly (number | null)[]) => values.findLast(value => value !== null) ?? null;
  const perStep = (tokens.at(-1) ?? 0) / (step.at(-1) ?? 1);
  const middle = seconds.toSorted((a, b) => a! - b!)[Math.floor(seconds.length / 2)] ?? null;
  const reason = failureOf(path);
  const end = endOf(path, steps, options.patience as number | undefined);
  return {
    seed,
    state: reason !== null ? 'failed' : training ? 'training' : (end ?? 'stopped'),
    loss: lastOf(columns.validation_loss),
    bitsPerByte: lastOf(columns.validation_bits_per_byte),
    steps: step.at(-1) ?? 0,
    tokensPerSecond: middle === null ? null : perStep / middle,
    seconds: seconds.reduce<number>((sum, each) => sum + each!, 0),
    reason,
  };
}

function failureOf(path: string): string | null {
  const file = join(path, FAILURE);
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : null;
}

/** At which end a run is, by its last checkpoint; null where it is at none. */
function endOf(path: string, steps: number, patience: number | undefined): 'done' | 'patience' | null {
  const latest = join(path, 'latest');
  if (!existsSync(latest)) return null;
  const { step, lowest } = readState(join(path, readFileSync(latest, 'utf8').trim()));
  if (step >= steps) return 'done';
  return patience !== undefined && lowest !== null && lowest.evaluationsAgo >= patience ? 'patience' : null;
}

function spreadOf(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: values.length < 2 ? null : Math.sqrt(squares / (values.length - 1)) };
}
