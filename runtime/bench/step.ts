// Whole training steps of one or several configurations, round by round: tokens a second.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { flopsPerToken } from '../../compiler/check/cost.ts';
import type { Model } from '../../compiler/check/model.ts';
import { type CompileOptions, compile } from '../../compiler/index.ts';
import type { Recompute } from '../../compiler/plan/recompute.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { compiledFor } from '../../compiler/targets/names.ts';
import { tellTuning } from '../autotune-option.ts';
import { NativeModel } from '../native.ts';
import { tune, untuned } from '../tuning.ts';
import { type Measurement, summarize } from './measurement.ts';
import type { Place } from './place.ts';
import { type StepSize, stepper, warmUp } from './workload.ts';

export interface StepConfiguration extends StepSize {
  readonly model: Model;
  /** Whose forward pass runs again; none where absent. */
  readonly recompute?: Recompute;
}

export interface StepResult {
  readonly configuration: StepConfiguration;
  readonly tokensPerSecond: Measurement;
  /** Operations of the model's mathematics for one token, forward and backward: what `malc info` says for this length. */
  readonly flopsPerToken: number;
  /** The program's memory, all of it: nothing is allocated while it trains. */
  readonly memoryBytes: number;
  /** From the model to source, and from source to the library, nothing cached. */
  readonly compileSeconds: number;
  readonly buildSeconds: number;
}

export interface StepsRequest {
  readonly configurations: readonly StepConfiguration[];
  /** What products multiply. */
  readonly dtype: TrainingType;
  readonly threads: number;
  readonly repeats: number;
  /** In each repeat; absent: as many as take some seconds. */
  readonly steps?: number | undefined;
  /** Whether they are tuned before, and whether sums may then be added up in any order. */
  readonly tunes?: boolean | undefined;
  readonly anyOrder?: boolean | undefined;
}

const SECONDS = 2;

/** A library that was built anew, for its time. */
interface Built {
  readonly library: string;
  readonly compileSeconds: number;
  readonly buildSeconds: number;
}

/** Each repeat runs every configuration, so that heat and neighbours hurt all alike. */
export async function benchSteps(request: StepsRequest, place: Place): Promise<StepResult[]> {
  const { configurations, dtype, threads, anyOrder } = request;
  const folder = await mkdtemp(join(tmpdir(), 'malc-bench-'));
  const opened: { configuration: StepConfiguration; native: NativeModel; built: Built }[] = [];
  try {
    // Untuned, a model's program is the same for any batch and length.
    const libraries: (Built & Pick<StepConfiguration, 'model' | 'recompute'>)[] = [];
    for (const configuration of configurations) {
      const { model, batch, time, recompute = 'none' } = configuration;
      const { options: tuned } = request.tunes
        ? await tune({ model, dtype, batch, time, threads, anyOrder, onStart: tellTuning }, place.device)
        : untuned;
      const known = libraries.find(each => each.model === model && each.recompute === recompute && !request.tunes);
      const own = () => mkdtemp(join(folder, 'build-'));
      const built = known ?? (await build(model, { dtype, recompute, ...tuned }, await own(), place));
      if (!known) libraries.push({ ...built, model, recompute });
      const { device } = place;
      const options = { maxBatch: batch, maxTime: time, maxContext: 0, training: true, threads, device };
      opened.push({ configuration, built, native: NativeModel.open(built.library, options) });
    }
    const runs: { configuration: StepSize; step: () => Promise<number>; steps: number; rates: number[] }[] = [];
    for (const { configuration, native } of opened) {
      await native.initialize(1);
      const step = stepper(native, configuration);
      const typical = await warmUp(step);
      runs.push({ configuration, step, steps: request.steps ?? Math.ceil(SECONDS / typical), rates: [] });
    }
    for (let repeat = 0; repeat < request.repeats; repeat++) {
      for (const { configuration, step, steps, rates } of runs) {
        let seconds = 0;
        for (let n = 0; n < steps; n++) seconds += await step();
        rates.push((steps * configuration.batch * configuration.time) / seconds);
      }
    }
    return opened.map(({ configuration, native, built: { compileSeconds, buildSeconds } }, n) => ({
      configuration,
      tokensPerSecond: summarize(runs[n]!.rates),
      flopsPerToken: flopsPerToken(configuration.model, configuration.time),
      memoryBytes: native.bytes,
      compileSeconds,
      buildSeconds,
    }));
  } finally {
    for (const { native } of opened) native.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Builds a library in a folder of its own, whatever the cache holds. */
async function build(
  model: Model,
  options: CompileOptions,
  folder: string,
  { target, builder }: Place,
): Promise<Built> {
  const began = performance.now();
  const { files } = compile(model, { ...options, target: compiledFor(target) });
  const compiled = performance.now();
  for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text);
  const library = join(folder, 'model.so');
  await builder.build(folder, library);
  const ended = performance.now();
  return { library, compileSeconds: (compiled - began) / 1000, buildSeconds: (ended - compiled) / 1000 };
}
