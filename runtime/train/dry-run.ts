// What a run will take, before it begins: counted where it can be, measured in a few steps where it cannot.
import { flopsPerToken, trainingState } from '../../compiler/check/cost.ts';
import type { Model } from '../../compiler/check/model.ts';
import type { NativeModel } from '../native.ts';
import type { TrainingSamples } from './loop.ts';
import { learningRateAt } from './schedule.ts';
import type { Settings } from './settings.ts';
import { scheduleOf, updateOf } from './settings.ts';

export interface Forecast {
  readonly flopsPerToken: number;
  readonly tokensPerStep: number;
  /** Bytes of weights, gradients and moments; of all else that the program holds; and of the whole at its highest. */
  readonly state: number;
  readonly activations: number;
  readonly peak: number;
  /** Bytes of one checkpoint. */
  readonly checkpoint: number;
  /** Of the median of the measured steps. */
  readonly secondsPerStep: number;
  readonly measuredSteps: number;
}

/** Steps that are thrown away, and what is measured after them. */
const WARM_UP = 2;
const SECONDS = 3;
const FEWEST_STEPS = 3;

/** Runs the first steps of a run, and reckons. The model is left with other weights; nothing is written anywhere. */
export async function forecast(
  native: NativeModel,
  model: Model,
  settings: Settings,
  training: TrainingSamples,
): Promise<Forecast> {
  const { 'batch-size': batch, 'grad-accum': microBatches, 'seq-len': time } = settings;
  const tokensPerStep = batch * microBatches * time;
  const [tokens, labels] = [new Int32Array(tokensPerStep), new Int32Array(tokensPerStep)];
  await native.initialize(settings.seed);
  const seconds: number[] = [];
  const began = performance.now();
  for (let step = 0; step < WARM_UP + FEWEST_STEPS || performance.now() - began < SECONDS * 1000; step++) {
    training.fill(step * batch * microBatches, tokens, labels);
    const started = performance.now();
    const update = updateOf(
      settings,
      step + 1,
      learningRateAt(scheduleOf(settings), Math.min(step, settings.steps - 1)),
    );
    await native.step(tokens, labels, { microBatches, batch, time, update });
    if (step >= WARM_UP) seconds.push((performance.now() - started) / 1000);
  }
  const { total: state, weights, moments } = trainingState(model);
  return {
    flopsPerToken: flopsPerToken(model, time),
    tokensPerStep,
    state,
    activations: native.bytes - state,
    peak: native.options.device ? native.bytes : process.memoryUsage.rss(),
    checkpoint: weights + moments,
    secondsPerStep: seconds.toSorted((a, b) => a - b)[Math.floor(seconds.length / 2)]!,
    measuredSteps: seconds.length,
  };
}
