// `--autotune` on a GPU: what a model's step can compute in several ways, measured in each: the cost model's most promising
// schedules of products, cuBLASLt where it is, and the orders in which attention's gradient is summed. What wins is kept in
// the cache for this GPU, driver, library, program and size. A way that fails is told of and left out.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Model } from '../compiler/check/model.ts';
import { MachineError, UserError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import type { CudaProductType } from '../compiler/targets/cuda/kernel-source.ts';
import {
  type Choice,
  type ChoiceOf,
  describeChoice,
  isInAnyOrder,
  type Tunable,
} from '../compiler/targets/cuda/tunable.ts';
import { emitTuner, isOfStep, type Trial } from '../compiler/targets/cuda/tuner.ts';
import { makeFolder, writeFileAtomic } from './atomic-file.ts';
import { type Builder, buildCachedBy, cacheFolder } from './cache.ts';
import { findCublas } from './cublas.ts';
import { callAsync, loadLibrary } from './ffi.ts';

/** The GPU that is measured, and what its programs are built with. */
export interface TuningPlace {
  readonly builder: Builder;
  /** Its name and its driver's version. */
  readonly gpu: string;
  readonly multiprocessors: number;
  /** Whether it runs kernels for sm_90a. */
  readonly isHopper: boolean;
}

export interface CudaTuningRequest {
  readonly model: Model;
  /** What its products multiply. */
  readonly dtype: CudaProductType;
  readonly batch: number;
  readonly time: number;
  /** As the program is compiled: what training leaves as it is, and whether documents are masked. */
  readonly frozen?: readonly string[] | undefined;
  readonly masksDocuments?: boolean | undefined;
  /** Whether sums may be added up in the order in which they come: `--any-order`. */
  readonly anyOrder?: boolean | undefined;
  /** Told before anything is measured: of how many launches. Not called where all are known. */
  readonly onStart?: ((launches: number) => void) | undefined;
  /** Told of each launch as it is measured, or at once where it is known. */
  readonly onFinding?: ((finding: Finding) => void) | undefined;
}

/** A way to compute a launch, and how long that takes. */
export interface MeasuredWay {
  readonly choice: Choice;
  /** Null for what cannot be here, as a shape that cuBLASLt has nothing for, and for what failed. */
  readonly seconds: number | null;
  /** What went wrong, where it failed. */
  readonly failed: string | null;
}

/** How long a launch takes in each way. */
export interface Finding {
  /** The function that launches it, and what it makes. */
  readonly launch: string;
  /** Sequences and their length. */
  readonly size: readonly [batch: number, time: number];
  /** The cost model's choice first. */
  readonly ways: readonly MeasuredWay[];
  /** The number of the fastest of our own kernels, which stands in for the library where that is not. */
  readonly own: number;
  /** What is chosen. */
  readonly choice: Choice;
}

/** The ways that failed, and why: a line each. */
export const failuresOf = ({ launch, ways }: Finding): string[] =>
  ways.flatMap(({ choice, failed }) => (failed === null ? [] : [`${launch}, ${describeChoice(choice)}: ${failed}`]));

export interface Tuned {
  readonly choiceOf: ChoiceOf;
  /** One for each launch that there are several ways for. */
  readonly findings: readonly Finding[];
}

const PROTOTYPES = {
  malc_tune:
    'const char *malc_tune(int32_t number, int64_t batch, int64_t time, int32_t rounds, double seconds, double *took)',
  malc_tune_failure: 'const char *malc_tune_failure(int32_t way)',
};

/** Ways take turns in so many rounds of about so many seconds. */
const ROUNDS = 5;
const SECONDS = 0.01;
/** What comes first stands unless another takes less than this share of its time: less is noise. */
const CLEARLY = 0.97;

/** What is to be measured, and where that is kept. */
interface Task {
  readonly trial: Trial;
  readonly size: readonly [batch: number, time: number];
  /** The finding's file; beside it that of ways after which the device did not go on. */
  readonly file: string;
  readonly lostFile: string;
}

/**
 * The fastest way to compute each launch of a model, at the run's batch and length.
 *
 * @throws UserError where any order will do and nothing could make use of it; MachineError where the GPU does not go on after a
 * way, which is left out the next time, or has no memory for it, or the cache cannot be written.
 */
export async function autotuneCuda(request: CudaTuningRequest, place: TuningPlace): Promise<Tuned> {
  const { batch, time, frozen = [], masksDocuments = false, anyOrder = false } = request;
  const library = findCublas();
  const tunables = new Map<string, Tunable>();
  compile(request.model, {
    target: 'cuda',
    dtype: request.dtype,
    frozen,
    masksDocuments,
    choiceOf(tunable) {
      tunables.set(tunable.key, tunable);
      return null;
    },
  });
  const tasks: Task[] = [];
  const folder = join(cacheFolder(), 'schedules');
  for (const tunable of tunables.values()) {
    if (!isOfStep(tunable)) continue;
    const size =
      tunable.part === null ? ([batch, time] as const) : ([1, Math.min(batch * time, tunable.part)] as const);
    const choices = choicesOf(tunable, size, place, library !== null, anyOrder);
    if (choices.length < 2) continue;
    const trial = { tunable, choices };
    const file = join(folder, identityOf(trial, size, place, library));
    tasks.push({ trial, size, file: `${file}.json`, lostFile: `${file}.lost.json` });
  }
  if (anyOrder && !tasks.some(({ trial }) => trial.choices.some(isInAnyOrder))) throw nothingInAnyOrder(place);
  const known = new Map<string, Finding>();
  const keep = ({ trial: { tunable } }: Task, finding: Finding) => {
    known.set(tunable.key, finding);
    request.onFinding?.(finding);
  };
  for (const task of tasks)
    if (existsSync(task.file)) keep(task, JSON.parse(readFileSync(task.file, 'utf8')) as Finding);
  const unknown = tasks.filter(({ trial }) => !known.has(trial.tunable.key));
  if (unknown.length > 0) {
    request.onStart?.(unknown.length);
    const { libraryPath } = await buildCachedBy(emitTuner(unknown.map(({ trial }) => trial)), place.builder);
    const native = loadLibrary(libraryPath, PROTOTYPES);
    makeFolder(folder);
    for (const [number, task] of unknown.entries()) {
      const finding = await measure(task, number, native, place);
      writeFileAtomic(task.file, `${JSON.stringify(finding, null, 2)}\n`);
      keep(task, finding);
    }
  }
  return {
    choiceOf: ({ key }) => known.get(key)?.choice ?? null,
    findings: [...known.values()],
  };
}

/** @throws MachineError where the device does not go on, having noted after which way. */
async function measure(
  { trial, size, lostFile }: Task,
  number: number,
  { malc_tune, malc_tune_failure }: ReturnType<typeof loadLibrary<keyof typeof PROTOTYPES>>,
  { gpu }: TuningPlace,
): Promise<Finding> {
  const { tunable, choices } = trial;
  const lost: Record<number, string> = existsSync(lostFile) ? JSON.parse(readFileSync(lostFile, 'utf8')) : {};
  // NaN: it failed, now or before.
  const took = Float64Array.from(choices, (_, way) => (way in lost ? Number.NaN : -1));
  const stopped = (await callAsync(malc_tune, number, ...size, ROUNDS, SECONDS, took)) as string | null;
  const failures = choices.map((_, way): string | null => {
    if (way in lost) return lost[way]!;
    return Number.isNaN(took[way]) ? (malc_tune_failure(way) as string) : null;
  });
  if (stopped === null) return findingOf(trial, size, took, failures);
  const last = choices.findLastIndex((_, way) => !(way in lost) && failures[way] === stopped);
  if (last < 0) throw new MachineError(`tuning ${tunable.name} on ${gpu}: ${stopped}`);
  writeFileAtomic(lostFile, `${JSON.stringify({ ...lost, [last]: stopped })}\n`);
  throw new MachineError(
    `tuning ${tunable.name}, ${describeChoice(choices[last]!)} on ${gpu}: ${stopped}; ` +
      'the GPU did not go on after it, so that the rest is not measured; the next time this way is left out',
  );
}

/** What is measured of a launch, the cost model's choice first, and the library last. */
function choicesOf(
  tunable: Tunable,
  [batch, time]: readonly [number, number],
  { isHopper, multiprocessors }: TuningPlace,
  hasLibrary: boolean,
  anyOrder: boolean,
): Choice[] {
  const candidates = isHopper ? tunable.candidates({ tokens: batch * time, multiprocessors }, anyOrder) : [];
  // What only differs where it means nothing, as the parts of what cannot be divided, is one kernel.
  const own = new Map<string, Choice>();
  for (const schedule of candidates.length > 0 ? candidates : [null]) {
    const choice = { schedule, library: false };
    const { text } = tunable.emit(choice);
    if (!own.has(text)) own.set(text, choice);
  }
  const schedule = candidates[0] ?? null;
  return [...own.values(), ...(hasLibrary && tunable.hasLibrary ? [{ schedule, library: true }] : [])];
}

/** `--any-order` acts, or is refused. */
const nothingInAnyOrder = ({ gpu, isHopper }: TuningPlace): UserError =>
  new UserError(
    isHopper
      ? '--any-order: no attention of this model has a gradient that can be summed so: it is for heads of up to 128 elements, ' +
          'without scores, masks or dropout of their own; leave it out'
      : `--any-order is for GPUs of compute capability 9.0, and this is ${gpu.split(',')[0]}; leave it out`,
  );

/** All that times depend on: the GPU and its driver, the library, the kernels with all that they include, and the size. */
function identityOf(trial: Trial, size: readonly [number, number], place: TuningPlace, library: string | null): string {
  const { version, flags } = place.builder;
  const parts = [place.gpu, place.isHopper, library, emitTuner([trial]), size, version, flags];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}

function findingOf(
  { tunable, choices }: Trial,
  size: readonly [number, number],
  took: Float64Array,
  failures: readonly (string | null)[],
): Finding {
  const seconds = [...took].map(each => (each >= 0 ? each : Infinity));
  const fastest = (among: readonly number[]) =>
    among.reduce((best, way) => (seconds[way]! < seconds[best]! ? way : best));
  const ours = choices.flatMap(({ library }, way) => (library ? [] : [way]));
  const quickest = fastest(ours);
  const own = seconds[quickest]! < CLEARLY * seconds[ours[0]!]! ? quickest : ours[0]!;
  const others = choices.findIndex(({ library }) => library);
  const library = others >= 0 && seconds[others]! < CLEARLY * seconds[own]!;
  return {
    launch: tunable.name,
    size,
    ways: choices.map((choice, way) => ({
      choice,
      seconds: Number.isFinite(seconds[way]) ? seconds[way]! : null,
      failed: failures[way]!,
    })),
    own,
    choice: { schedule: choices[own]!.schedule, library },
  };
}
