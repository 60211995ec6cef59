// What is run to be measured: random tokens, a usual update, steps after one another. The same each time.
import { Random } from '../data/random.ts';
import type { NativeModel } from '../native.ts';
import { EPSILON } from '../train/settings.ts';

/** The sizes of a measured step. */
export interface StepSize {
  readonly batch: number;
  readonly time: number;
}

/** Tokens of the vocabulary, each as likely as the others: what is read from the embedding lies everywhere in it. */
export function randomTokens(vocabularySize: number, count: number): Int32Array {
  const random = new Random(1);
  return Int32Array.from({ length: count }, () => random.below(vocabularySize));
}

/** A function that runs the next training step, of one micro-batch, and returns how many seconds it took. */
export function stepper(native: NativeModel, { batch, time }: StepSize): () => Promise<number> {
  const tokens = randomTokens(native.vocabularySize, batch * time);
  const labels = Int32Array.from(tokens, (_, place) => tokens[(place + 1) % tokens.length]!);
  let update = 0;
  return async () => {
    update += 1;
    const began = performance.now();
    await native.step(tokens, labels, {
      microBatches: 1,
      batch,
      time,
      update: {
        learningRate: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: EPSILON,
        weightDecay: 0.1,
        clipNorm: 1,
        update,
      },
    });
    return (performance.now() - began) / 1000;
  };
}

/** Steps that are thrown away: the first ones find the memory untouched and the processor's clock low. */
const WARM_UP = 2;

/** Warms up; returns the seconds of a step then. */
export async function warmUp(step: () => Promise<number>): Promise<number> {
  let seconds = 0;
  for (let n = 0; n < WARM_UP; n++) seconds = await step();
  return seconds;
}
