// What a run will take, before it begins: counted where it can be, measured in a few steps where it cannot.
import { flopsPerToken } from '../../compiler/check/cost.ts';
import type { MemoryParts, NativeModel } from '../native.ts';
import { evaluate } from './loop.ts';
import type { Prepared } from './prepare.ts';
import { learningRateAt } from './schedule.ts';
import { scheduleOf, updateOf } from './settings.ts';

export interface Forecast {
  readonly flopsPerToken: number;
  readonly tokensPerStep: number;
  /** Bytes of the program, and what they are. */
  readonly parts: MemoryParts;
  /** Bytes of the whole process at its highest; of a device, those of the program. */
  readonly peak: number;
  /** Bytes of one checkpoint. */
  readonly checkpoint: number;
  /** Of the medians of the measured steps. */
  readonly secondsPerStep: number;
  readonly measuredSteps: number;
}

/** Steps that are thrown away, and what is measured after them. */
const WARM_UP = 2;
const SECONDS = 3;
const FEWEST_STEPS = 3;

/**
 * Runs the first steps of a run, an evaluation and a sample, and reckons. Steps of many micro-batches are not run whole: what
 * one more of them takes is seen in steps of one and of two. The model is left with other weights; nothing is written
 * anywhere.
 *
 * @param sample writes a sample, as the run will
 */
export async function forecast(
  native: NativeModel,
  { model, settings, training, validation }: Prepared,
  sample: () => Promise<string>,
): Promise<Forecast> {
  const { 'batch-size': batch, 'grad-accum': microBatches, 'seq-len': time } = settings;
  const counts = microBatches > 2 ? [1, 2] : [microBatches];
  // As large as the run's own, which are the largest that Node holds.
  const [tokens, labels] = [0, 1].map(() => new Int32Array(batch * microBatches * time)) as [Int32Array, Int32Array];
  let peak = 0;
  const look = () => {
    peak = Math.max(peak, process.memoryUsage.rss());
  };
  await native.initialize(settings.seed);
  const seconds = counts.map((): number[] => []);
  const began = performance.now();
  const isMeasured = () => seconds.every(({ length }) => length >= FEWEST_STEPS);
  for (let step = 0; !isMeasured() || performance.now() - began < SECONDS * 1000; step++) {
    training.fill(step * batch * microBatches, tokens, labels);
    const which = step % counts.length;
    const count = counts[which]!;
    const size = count * batch * time;
    const rate = learningRateAt(scheduleOf(settings), Math.min(step, settings.steps - 1));
    const started = performance.now();
    await native.step(tokens.subarray(0, size), labels.subarray(0, size), {
      ...{ microBatches: count, batch, time },
      update: updateOf(settings, step + 1, rate),
    });
    if (step >= WARM_UP) seconds[which]!.push((performance.now() - started) / 1000);
    look();
  }
  if (validation) await evaluate(native, validation, settings);
  look();
  await sample();
  look();
  const [first, second] = seconds.map(medianOf) as [number, number?];
  const { parts } = native;
  return {
    flopsPerToken: flopsPerToken(model, time),
    tokensPerStep: batch * microBatches * time,
    parts,
    peak: native.options.device ? native.bytes : peak,
    // Averages are saved as weights are: of what is frozen, too.
    checkpoint: (parts.averages > 0 ? 2 : 1) * parts.weights + parts.moments,
    secondsPerStep: first + (second === undefined ? 0 : (microBatches - 1) * Math.max(0, second - first)),
    measuredSteps: seconds.flat().length,
  };
}

const medianOf = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
