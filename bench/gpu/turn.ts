// malc as a program that trains by turns (bench/peers/turns.ts): one model, built and opened, that steps when it is told.
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import { flopsPerToken } from '../../compiler/check/cost.ts';
import { countParameters } from '../../compiler/check/count.ts';
import type { Model } from '../../compiler/check/model.ts';
import { readModel } from '../../compiler/check/read-model.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import { stepper, warmUp } from '../../runtime/bench/workload.ts';
import { buildModel } from '../../runtime/build.ts';
import { findCudaDevice } from '../../runtime/cuda-device.ts';
import { NativeModel } from '../../runtime/native.ts';
import { tune } from '../../runtime/tuning.ts';
import { targetOf } from './programs.ts';

/** What malc tells of itself before it is ready. */
export interface TurnFacts {
  readonly build_seconds: number;
  /** The program's memory, all of it. */
  readonly memory_bytes: number;
  readonly flops_per_token: number;
}

/** Where `npx tsx` and the bundle find the models that bench/peers/torch_step.py knows by the same names. */
const files: Readonly<Record<string, string>> = { 'llama-1b': 'llama3-1b' };

export interface TurnOptions {
  readonly dtype: TrainingType;
  readonly dry: boolean;
  /** Whether products are measured in several ways before, and computed in the fastest. */
  readonly tunes: boolean;
}

/** @param text `MODEL:BATCH:TIME` */
export async function takeTurns(text: string, { dtype, dry, tunes }: TurnOptions): Promise<void> {
  const [name = '', batch, time] = text.split(':');
  const { model } = readModel(files[name] ?? name);
  const size = { batch: Number(batch), time: Number(time) };
  const target = targetOf(dry);
  const device = dry ? null : findCudaDevice();
  const tuneHere = () => tune({ model, dtype, ...size, threads: availableParallelism() }, device);
  const { libraryPath, seconds } = await buildModel(model, { target, dtype, ...(tunes && { tune: tuneHere }) });
  const native = NativeModel.open(libraryPath, {
    maxBatch: size.batch,
    maxTime: size.time,
    maxContext: 0,
    training: true,
    device,
  });
  await native.initialize(1);
  const step = stepper(native, size);
  await warmUp(step);
  const facts = {
    build_seconds: seconds,
    memory_bytes: native.bytes,
    flops_per_token: publishedFlops(model, size.time),
  } satisfies TurnFacts;
  console.log(JSON.stringify(facts));
  console.log('ready');
  for await (const _ of createInterface(process.stdin)) console.log(await step());
  native.close();
}

/**
 * Operations for a token as the trainers count them whose MFU is published (llm.c): 6 N + 6 L H Q T, N being all weights,
 * and half of the scores taken off, which a causal mask removes.
 */
function publishedFlops(model: Model, time: number): number {
  const scores = flopsPerToken(model, time) - flopsPerToken(model, 0);
  return 6 * countParameters(model).total + scores / 2;
}
