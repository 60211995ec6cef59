// Every launch of a training step: its time, its work, and the time that this machine's ceilings would allow for it.
import type { Model } from '../../compiler/check/model.ts';
import { compile } from '../../compiler/index.ts';
import type { Recompute } from '../../compiler/plan/recompute.ts';
import { type Shape, shapeAt } from '../../compiler/plan/shapes.ts';
import { amount } from '../../compiler/plan/work.ts';
import type { ProgramLaunch } from '../../compiler/targets/cpu/index.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { compiledFor } from '../../compiler/targets/names.ts';
import type { Finding } from '../autotune-cuda.ts';
import { tellTuning } from '../autotune-option.ts';
import { buildCachedBy } from '../cache.ts';
import { type LaunchTime, NativeModel } from '../native.ts';
import { tune, untuned } from '../tuning.ts';
import { type Ceilings, measureCeilings, memorySeconds } from './ceilings.ts';
import { type Measurement, summarize } from './measurement.ts';
import { type Place, peakOfProducts } from './place.ts';
import { type StepSize, stepper, warmUp } from './workload.ts';

/** A kernel in a step: all its launches together. Numbers are those of one step. */
export interface KernelRow {
  readonly name: string;
  /** The functions that launch it. */
  readonly functions: readonly string[];
  readonly calls: number;
  readonly seconds: number;
  /** Over the steps that count. */
  readonly range: Measurement;
  readonly operations: number;
  readonly bytes: number;
  /** What it multiplies, and how often. */
  readonly shapes: readonly RepeatedShape[];
  /** What the ceilings allow: the longer of the times for its operations and for its bytes. */
  readonly needed: number;
  readonly bound: 'arithmetic' | 'memory';
}

export type RepeatedShape = Shape & { readonly times: number };

export interface KernelsResult {
  readonly ceilings: Ceilings;
  /** The slowest first. */
  readonly rows: readonly KernelRow[];
  /** How launches are computed that there are several ways for, by kernel, in words. */
  readonly schedules: ReadonlyMap<string, string>;
  /** What was measured before: how long each launch takes in each way. */
  readonly findings: readonly Finding[];
  /** Seconds of a step, and of that what no launch took: calls, and what of the step is not launched. */
  readonly step: Measurement;
  readonly stepSeconds: number;
  readonly outside: number;
  /** Steps that were measured, and the quieter ones among them, which count. */
  readonly steps: number;
  readonly counted: number;
}

export interface KernelsRequest extends StepSize {
  readonly model: Model;
  /** What products multiply. */
  readonly dtype: TrainingType;
  /** Whose forward pass runs again; none where absent. */
  readonly recompute?: Recompute;
  readonly threads: number;
  /** Absent: as many as take some seconds. */
  readonly steps?: number | undefined;
  /** Whether it is tuned before, and whether sums may then be added up in any order. */
  readonly tunes?: boolean | undefined;
  readonly anyOrder?: boolean | undefined;
}

/** Kernels that multiply numbers of the program's type. */
const productKinds: ReadonlySet<string> = new Set([
  'matmul',
  'attention',
  'attention-gradient',
  'grouped',
  'grouped-gradient',
  'contract-each',
]);

const SECONDS = 5;
const FEWEST_STEPS = 6;

/** One measured step. */
interface Sample {
  readonly seconds: number;
  readonly profile: readonly LaunchTime[];
}

/**
 * Measures the ceilings and then the launches of training steps. The half of the steps that were quicker counts: another
 * process that takes the cores for a moment is no property of a kernel. Their mean is shown, so that rows add up.
 */
export async function benchKernels(request: KernelsRequest, place: Place): Promise<KernelsResult> {
  const { model, batch, time, dtype, recompute = 'none', threads, anyOrder } = request;
  const tuned = request.tunes
    ? await tune({ model, dtype, batch, time, threads, anyOrder, onStart: tellTuning }, place.device)
    : untuned;
  const target = compiledFor(place.target);
  const { files, launches, kernels } = compile(model, {
    ...{ target, dtype, recompute },
    profile: true,
    ...tuned.options,
  });
  const { libraryPath } = await buildCachedBy(files, place.builder);
  const ceilings = await measureCeilings(place, threads);
  const multiplying = new Set(kernels.filter(({ kind }) => productKinds.has(kind)).map(({ name }) => name));
  const peakOf = (kernel: string) =>
    multiplying.has(kernel) ? peakOfProducts(ceilings, place, dtype) : ceilings.float32;
  const native = NativeModel.open(libraryPath, {
    maxBatch: batch,
    maxTime: time,
    maxContext: 0,
    training: true,
    threads,
    device: place.device,
  });
  try {
    await native.initialize(1);
    const step = stepper(native, { batch, time });
    const typical = await warmUp(step);
    const steps = request.steps ?? Math.max(FEWEST_STEPS, Math.ceil(SECONDS / typical));
    const samples: Sample[] = [];
    for (let n = 0; n < steps; n++) {
      native.resetProfile();
      const seconds = await step();
      samples.push({ seconds, profile: native.profile() });
    }
    const counted = samples.toSorted((a, b) => a.seconds - b.seconds).slice(0, Math.ceil(steps / 2));
    const stepSeconds = meanOf(counted.map(({ seconds }) => seconds));
    const rows = rowsOf(counted, launches, { batch, time }, ceilings, peakOf);
    return {
      ceilings,
      rows,
      schedules: new Map(kernels.flatMap(({ name, schedule }) => (schedule === null ? [] : [[name, schedule]]))),
      findings: tuned.findings,
      step: summarize(counted.map(({ seconds }) => seconds)),
      stepSeconds,
      outside: stepSeconds - rows.reduce((sum, { seconds }) => sum + seconds, 0),
      steps,
      counted: counted.length,
    };
  } finally {
    native.close();
  }
}

const meanOf = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0) / numbers.length;

/**
 * One row for each kernel, whichever functions launch it. Profiles have the launches in the compiler's order.
 * @param samples profiles of a step each
 * @param peakOf operations a second that a kernel is held against
 */
export function rowsOf(
  samples: readonly Pick<Sample, 'profile'>[],
  launches: readonly ProgramLaunch[],
  size: StepSize,
  ceilings: Ceilings,
  peakOf: (kernel: string) => number = () => ceilings.float32,
): KernelRow[] {
  const kernels = new Map<string, number[]>();
  for (const [index, { name, kernel }] of launches.entries()) {
    const { name: measured, calls } = samples[0]!.profile[index]!;
    if (name !== measured) throw new Error(`the profile has ${measured} where the compiler says ${name}`);
    if (calls > 0) kernels.set(kernel, [...(kernels.get(kernel) ?? []), index]);
  }
  const rows = [...kernels].map(([name, places]): KernelRow => {
    const seconds = samples.map(({ profile }) => places.reduce((sum, place) => sum + profile[place]!.seconds, 0));
    const timed = places.map(place => ({ launch: launches[place]!, calls: samples[0]!.profile[place]!.calls }));
    const sum = (of: (timed: { launch: ProgramLaunch; calls: number }) => number) =>
      timed.reduce((total, each) => total + of(each), 0);
    const sizes = { batch: size.batch, time: size.time };
    const operations = sum(each => amount(each.launch.work.operations, sizes) * runsOf(each, size));
    const reads = sum(each => amount(each.launch.work.reads, sizes) * runsOf(each, size));
    const writes = sum(each => amount(each.launch.work.writes, sizes) * runsOf(each, size));
    const forOperations = operations / peakOf(name);
    const forBytes = memorySeconds(ceilings, reads, writes);
    return {
      name,
      functions: timed.map(({ launch }) => launch.function),
      calls: sum(each => each.calls),
      seconds: meanOf(seconds),
      range: summarize(seconds),
      operations,
      bytes: reads + writes,
      shapes: timed.flatMap(each => shapesOf(each, size)),
      needed: Math.max(forOperations, forBytes),
      bound: forOperations > forBytes ? 'arithmetic' : 'memory',
    };
  });
  return rows.sort((a, b) => b.seconds - a.seconds);
}

/** What a launch multiplied in a step, each shape as often as its function ran. */
function shapesOf(
  { launch, calls }: { launch: ProgramLaunch; calls: number },
  { batch, time }: StepSize,
): RepeatedShape[] {
  const positions = batch * time;
  const sizes = launch.part === null ? { batch, time } : { batch: 1, time: Math.min(launch.part, positions) };
  return launch.work.shapes.map(shape => ({ ...shapeAt(shape, sizes), times: calls / launch.count }));
}

/** How often the function ran over all positions: what takes a part of them at a time runs once for all parts. */
function runsOf({ launch, calls }: { launch: ProgramLaunch; calls: number }, { batch, time }: StepSize): number {
  const parts = launch.part === null ? 1 : Math.ceil((batch * time) / launch.part);
  return calls / launch.count / parts;
}
