// `--autotune` on a GPU: the products of a model's step, measured in several ways each: the cost model's most promising
// schedules, and cuBLASLt where it is. What wins is kept in the cache for this GPU, driver, library, program and size.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Model } from '../compiler/check/model.ts';
import { MachineError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import type { HopperSchedule } from '../compiler/targets/cuda/hopper-schedule.ts';
import type { CudaProductType } from '../compiler/targets/cuda/kernel-source.ts';
import {
  type ChoiceOf,
  describeChoice,
  type ProductChoice,
  type TunableProduct,
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
  /** Told before anything is measured: how many products there are. Not called where all are known. */
  readonly onStart?: (products: number) => void;
}

/** How long a launch takes in each way. */
export interface Finding {
  /** The function that launches it, and what it makes. */
  readonly product: string;
  /** Sequences and their length. */
  readonly size: readonly [batch: number, time: number];
  /** The cost model's choice first; seconds are null for what cannot be here, as a shape that cuBLASLt has nothing for. */
  readonly ways: readonly { readonly choice: ProductChoice; readonly seconds: number | null }[];
  /** The number of the fastest of our own kernels, which stands in for the library where that is not. */
  readonly own: number;
  /** What is chosen. */
  readonly choice: ProductChoice;
}

export interface Tuned {
  readonly choiceOf: ChoiceOf;
  /** A line for each product that there are several ways for. */
  readonly findings: readonly Finding[];
}

const PROTOTYPES = {
  malc_tune:
    'const char *malc_tune(int32_t number, int64_t batch, int64_t time, int32_t rounds, double seconds, double *took)',
};

/** Shapes of tiles that are measured besides the most promising one. */
const SHAPES = 3;
/** Into more parts no sum is divided. */
const MOST_PARTS = 16;
/** Ways take turns in so many rounds of about so many seconds. */
const ROUNDS = 5;
const SECONDS = 0.01;
/** What comes first stands unless another takes less than this share of its time: less is noise. */
const CLEARLY = 0.97;

/**
 * The fastest way to compute each product of a model, at the run's batch and length.
 *
 * @throws MachineError where the GPU fails or has no memory for a product, or the cache cannot be written.
 */
export async function autotuneCuda(request: CudaTuningRequest, place: TuningPlace): Promise<Tuned> {
  const { batch, time } = request;
  const library = findCublas();
  const products = new Map<string, TunableProduct>();
  compile(request.model, {
    target: 'cuda',
    dtype: request.dtype,
    choiceOf(product) {
      products.set(product.key, product);
      return null;
    },
  });
  const known = new Map<string, Finding>();
  const unknown: { readonly trial: Trial; readonly file: string; readonly size: readonly [number, number] }[] = [];
  const folder = join(cacheFolder(), 'schedules');
  for (const product of products.values()) {
    if (!isOfStep(product)) continue;
    const size =
      product.part === null ? ([batch, time] as const) : ([1, Math.min(batch * time, product.part)] as const);
    const choices = choicesOf(product, size, place, library !== null);
    if (choices.length < 2) continue;
    const trial = { product, choices };
    const file = join(folder, `${identityOf(trial, size, place, library)}.json`);
    if (existsSync(file)) known.set(product.key, JSON.parse(readFileSync(file, 'utf8')) as Finding);
    else unknown.push({ trial, file, size });
  }
  if (unknown.length > 0) {
    request.onStart?.(unknown.length);
    const { libraryPath } = await buildCachedBy(emitTuner(unknown.map(({ trial }) => trial)), place.builder);
    const { malc_tune } = loadLibrary(libraryPath, PROTOTYPES);
    makeFolder(folder);
    for (const [number, { trial, file, size }] of unknown.entries()) {
      const took = new Float64Array(trial.choices.length).fill(-1);
      const failed = (await callAsync(malc_tune, number, ...size, ROUNDS, SECONDS, took)) as string | null;
      if (failed !== null) {
        const choice = trial.choices[took.findIndex(Number.isNaN)];
        const way = choice ? `, ${describeChoice(choice)}` : '';
        throw new MachineError(`tuning ${trial.product.name}${way} on ${place.gpu}: ${failed}`);
      }
      const finding = findingOf(trial, size, took);
      writeFileAtomic(file, `${JSON.stringify(finding, null, 2)}\n`);
      known.set(trial.product.key, finding);
    }
  }
  return {
    choiceOf: ({ key }) => known.get(key)?.choice ?? null,
    findings: [...known.values()],
  };
}

/** What is measured of a product, the cost model's choice first, and the library last. */
function choicesOf(
  product: TunableProduct,
  [batch, time]: readonly [number, number],
  { isHopper, multiprocessors }: TuningPlace,
  hasLibrary: boolean,
): ProductChoice[] {
  const ranked = isHopper ? product.schedules({ tokens: batch * time, multiprocessors }) : [];
  const schedules = ranked.length > 0 ? promising(ranked.map(({ schedule }) => schedule)) : [null];
  // What only differs where it means nothing, as the parts of what cannot be divided, is one kernel.
  const own = new Map<string, ProductChoice>();
  for (const schedule of schedules) {
    const choice = { schedule, library: false };
    const { text } = product.emit(choice);
    if (!own.has(text)) own.set(text, choice);
  }
  return [...own.values(), ...(hasLibrary && product.hasLibrary ? [{ schedule: schedules[0]!, library: true }] : [])];
}

/**
 * The first of ranked schedules, and what the cost model may be wrong about: the order of tiles, the parts of sums, and the
 * shape of tiles.
 */
function promising(ranked: readonly HopperSchedule[]): HopperSchedule[] {
  const first = ranked[0]!;
  const shapeOf = ({ columns, cluster }: HopperSchedule) => `${columns} ${cluster}`;
  const shapes = [...new Map(ranked.toReversed().map(schedule => [shapeOf(schedule), schedule])).values()].reverse();
  const reordered = ranked.slice(1).filter(schedule => shapeOf(schedule) === shapeOf(first));
  const most = Math.max(...first.parts);
  const counts = most === 1 ? [2, 4] : [0.5 * most, 2 * most].map(count => Math.min(MOST_PARTS, Math.ceil(count)));
  const divided = counts.map(count => ({
    ...first,
    parts: first.parts.map(own => (own === most ? count : own)),
  }));
  return [
    first,
    ...reordered.slice(0, 1),
    ...divided,
    ...shapes.filter(schedule => schedule !== first).slice(0, SHAPES),
  ];
}

/** All that times depend on: the GPU and its driver, the library, the kernels with all that they include, and the size. */
function identityOf(trial: Trial, size: readonly [number, number], place: TuningPlace, library: string | null): string {
  const { version, flags } = place.builder;
  const parts = [place.gpu, place.isHopper, library, emitTuner([trial]), size, version, flags];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}

function findingOf({ product, choices }: Trial, size: readonly [number, number], took: Float64Array): Finding {
  const seconds = [...took].map(each => (each < 0 ? Infinity : each));
  const fastest = (among: readonly number[]) =>
    among.reduce((best, way) => (seconds[way]! < seconds[best]! ? way : best));
  const ours = choices.flatMap(({ library }, way) => (library ? [] : [way]));
  const quickest = fastest(ours);
  const own = seconds[quickest]! < CLEARLY * seconds[ours[0]!]! ? quickest : ours[0]!;
  const others = choices.findIndex(({ library }) => library);
  const library = others >= 0 && seconds[others]! < CLEARLY * seconds[own]!;
  return {
    product: product.name,
    size,
    ways: choices.map((choice, way) => ({ choice, seconds: Number.isFinite(seconds[way]) ? seconds[way]! : null })),
    own,
    choice: { schedule: choices[own]!.schedule, library },
  };
}
