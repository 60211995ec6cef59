// `--autotune`: the schedules of a model's products, measured on this machine. The cost model's best few are held
// against each other once for each shape; what wins is kept beside the tuner's library in the cache, which a change of
// templates, compiler, flags or processor replaces.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Model } from '../compiler/check/model.ts';
import { MachineError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import { readPackageFile } from '../compiler/package-files.ts';
import { amount } from '../compiler/plan/work.ts';
import { headersOf } from '../compiler/targets/cpu/index.ts';
import type { TrainingType } from '../compiler/targets/cpu/kernel-source.ts';
import {
  type ProductSchedule,
  type ProductShape,
  rankSchedules,
  type ScheduleOf,
  schedulesFrom,
  shapeKey,
} from '../compiler/targets/cpu/schedule.ts';
import type { Compiler } from '../compiler/targets/cpu/toolchain.ts';
import { writeFileAtomic } from './atomic-file.ts';
import { buildCached } from './cache.ts';
import { callAsync, loadLibrary, type NativeFunction } from './ffi.ts';

/** What a run is tuned for. */
export interface TuningRequest {
  readonly model: Model;
  /** What its products multiply. */
  readonly dtype: TrainingType;
  readonly batch: number;
  readonly time: number;
  readonly threads: number;
  /** As the program is compiled: what training leaves as it is, and whether documents are masked. */
  readonly frozen?: readonly string[] | undefined;
  readonly masksDocuments?: boolean | undefined;
  /** On a GPU, whether sums may be added up in the order in which they come: `--any-order`. */
  readonly anyOrder?: boolean | undefined;
  /** Told before anything is measured: of how many launches. Not called where all are known. */
  readonly onStart?: (launches: number) => void;
}

const PROTOTYPES = {
  malc_tune:
    'double malc_tune(int64_t rows, int64_t inner, int64_t columns, int32_t left_transposed, ' +
    'int32_t right_transposed, int32_t numbers, int32_t tiles, int64_t step, int64_t task_rows, ' +
    'int64_t task_columns, int64_t depth, int32_t threads, double seconds)',
};

/** FLOATS, ROUNDED and NARROW of templates/cpu/tune.c. */
const numbersOf = ({ rounds }: ProductShape): number => (rounds === null ? 0 : rounds === 'f32' ? 1 : 2);

/** How many of the most promising schedules are measured, by turns, in how many rounds of so many seconds. */
const CANDIDATES = 4;
const ROUNDS = 3;
const SECONDS = 0.03;
/** The first stands unless another takes less than this share of its time: less is noise. */
const CLEARLY = 0.97;

/**
 * The fastest schedule of each product of a model, at the run's batch and length.
 *
 * @throws MachineError where there is no memory for a product, or the cache cannot be written.
 */
export async function autotune(request: TuningRequest, compiler: Compiler): Promise<ScheduleOf> {
  const { batch, time, threads } = request;
  const names = ['runtime.h', 'matmul.h', 'random.h', ...headersOf.bf16];
  const headers = names.map(name => [name, readPackageFile(`templates/cpu/${name}`)]);
  const source = readPackageFile('templates/cpu/tune.c');
  const { libraryPath, sourceFolder } = await buildCached(
    { 'model.c': source, ...Object.fromEntries(headers) },
    compiler,
  );
  const sizes = { batch, time };
  const { model, dtype, frozen = [] } = request;
  const products = compile(model, { dtype, frozen }).products.filter(({ rows, inner }) =>
    [...rows.runtime, ...inner.runtime].every(name => name in sizes),
  );
  const fixed = products.map(shape => ({ shape, sized: sizedShape(shape, sizes) }));
  const fileOf = (shape: ProductShape) => join(sourceFolder, `schedule-${keyOf(shape, threads)}.json`);
  const unknown = new Map(fixed.map(({ sized }) => [fileOf(sized), sized]));
  for (const file of [...unknown.keys()]) if (existsSync(file)) unknown.delete(file);
  if (unknown.size > 0) {
    request.onStart?.(unknown.size);
    const { malc_tune } = loadLibrary(libraryPath, PROTOTYPES);
    for (const [file, shape] of unknown)
      writeFileAtomic(file, `${JSON.stringify(await fastest(shape, threads, malc_tune))}\n`);
  }
  return schedulesFrom(
    new Map(
      fixed.map(({ shape, sized }) => [
        shapeKey(shape),
        JSON.parse(readFileSync(fileOf(sized), 'utf8')) as ProductSchedule,
      ]),
    ),
  );
}

/** The shape with its run-time sizes filled in. */
function sizedShape(shape: ProductShape, sizes: { batch: number; time: number }): ProductShape {
  const [rows, inner] = [shape.rows, shape.inner].map(extent => ({ runtime: [], count: amount([extent], sizes) }));
  return { ...shape, rows: rows!, inner: inner! };
}

const keyOf = (shape: ProductShape, threads: number): string =>
  createHash('sha256')
    .update(`${shapeKey(shape)}, ${threads} threads`)
    .digest('hex')
    .slice(0, 16);

async function fastest(shape: ProductShape, threads: number, measure: NativeFunction): Promise<ProductSchedule> {
  const { rows, inner, columns, leftTransposed, rightTransposed, tiles, step } = shape;
  const candidates = rankSchedules(shape).slice(0, CANDIDATES);
  const best = candidates.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round++)
    for (const [n, schedule] of candidates.entries()) {
      const layout = [Number(leftTransposed), Number(rightTransposed), numbersOf(shape), tiles, step];
      const bounds = [schedule.rows, schedule.columns, schedule.depth, threads, SECONDS];
      const took = Number(await callAsync(measure, rows.count, inner.count, columns, ...layout, ...bounds));
      if (took < 0) throw new MachineError(`there is no memory to tune a product of ${shapeKey(shape)}`);
      best[n] = Math.min(best[n]!, took);
    }
  const winner = best.indexOf(Math.min(...best));
  return best[winner]! < CLEARLY * best[0]! ? candidates[winner]! : candidates[0]!;
}
