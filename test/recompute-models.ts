// The models of fixtures/recompute.mal, and steps that end in bits to compare.
import { readFileSync } from 'node:fs';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { packagePath } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { NativeModel } from '../runtime/native.ts';
import { batchOf, scramble } from './held-against-oracle.ts';

const { syntax } = parse(readFileSync(packagePath('test/fixtures/recompute.mal'), 'utf8'), 'recompute.mal');

/** One of them. */
export function recomputeModel(name: string): Model {
  const { model } = check(syntax, { model: name });
  if (!model) throw new Error(`recompute.mal: ${name} does not compile`);
  return model;
}

export const stepSize = { microBatches: 2, batch: 2, time: 8 } as const;

/** Some steps of a model: what each returned, and every parameter with its gradient and moments in the end. */
export async function stepsOf(native: NativeModel, model: Model, steps: number) {
  const { microBatches, batch, time } = stepSize;
  scramble(native, 4);
  const adamw = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
  const results = [];
  for (let update = 1; update <= steps; update++) {
    const { tokens, labels } = batchOf(model, microBatches * batch, time, update);
    results.push(await native.step(tokens, labels, { ...stepSize, update: { ...adamw, update } }));
  }
  const parameters = native.parameters.map(({ name, data, gradient, firstMoment, secondMoment }) => ({
    name,
    values: [data, gradient, firstMoment, secondMoment].map(values => values && Float32Array.from(values)),
  }));
  return { results, parameters };
}
