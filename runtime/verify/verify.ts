// The comparison of an imported model with what PyTorch computed: logits, loss, every gradient, a greedy continuation through
// the key-value cache, and the losses of a run of AdamW.
import { basename, resolve } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { TrainingType } from '../../compiler/targets/cpu/kernel-source.ts';
import type { RunTarget } from '../../compiler/targets/names.ts';
import { buildModel } from '../build.ts';
import { generate } from '../generate/generate.ts';
import { importFolder } from '../hub/import.ts';
import { type FileTensor, layoutOf } from '../hub/layout.ts';
import { pack } from '../hub/pack.ts';
import type { SafetensorsFile } from '../hub/safetensors.ts';
import { NativeModel } from '../native.ts';
import { gradientName, openReference, type Reference, type Training } from './reference.ts';

/**
 * What arithmetic in another order, or with products of rounded numbers, may differ by; logits and gradients in relative
 * L2. Rounding may turn a choice of the likeliest token, and with it the rest of a continuation.
 */
export const TOLERANCES = {
  f32: { logits: 1e-5, loss: 1e-5, gradient: 1e-4, trainLoss: 1e-4, greedy: true },
  bf16: { logits: 3e-2, loss: 2e-2, gradient: 8e-2, trainLoss: 2e-2, greedy: false },
} as const satisfies Record<TrainingType, unknown>;

/** The line that `malc verify --json` prints. */
export interface Report {
  readonly case: string;
  readonly target: string;
  readonly dtype: TrainingType;
  readonly logits_rel_l2: number;
  readonly loss: number;
  readonly loss_expected: number;
  readonly grad_rel_l2: { readonly worst: string; readonly value: number };
  readonly grads_compared: number;
  readonly greedy_match: boolean;
  /** The largest relative difference of a step's loss. */
  readonly train_loss_max_rel: number;
  /** On the batch, after training. */
  readonly loss_after: number;
  readonly pass: boolean;
}

/** What a model is compiled for, and how: resolves to its library. */
export interface VerifyTarget {
  readonly name: string;
  build(model: Model, dtype: TrainingType): Promise<{ readonly libraryPath: string }>;
}

/** What a command names, built as for training. */
export const verifyTarget = (name: RunTarget): VerifyTarget => ({
  name,
  build: (model, dtype) => buildModel(model, { target: name, dtype }),
});

/**
 * Imports a reference folder as a user's model and compares.
 *
 * @param onWarning told what the import warns of
 * @throws UserError where the folder cannot be imported or is no reference.
 */
export async function verifyFolder(
  folder: string,
  dtype: TrainingType,
  onWarning: (text: string) => void,
  target: VerifyTarget = verifyTarget('cpu'),
): Promise<Report> {
  const reference = openReference(folder);
  try {
    const { model, architecture, tensors, warnings } = importFolder(folder);
    try {
      for (const warning of warnings) onWarning(warning);
      // PyTorch computed its results without dropout.
      const { libraryPath } = await target.build(withoutDropout(model), dtype);
      const batches = [reference.batch, ...reference.train.steps.map(step => step.batch)];
      const native = NativeModel.open(libraryPath, {
        maxBatch: Math.max(...batches.map(({ batch }) => batch)),
        maxTime: Math.max(...batches.map(({ time }) => time), reference.greedy.prompt.length),
        maxContext: reference.greedy.tokens.length,
        training: true,
      });
      try {
        const parameters = new Map(native.writableParameters().map(({ name, data }) => [name, data]));
        tensors.readInto(name => parameters.get(name)!);
        const stored = (name: string) => reference.expected.tensors.has(gradientName(name));
        const layout = layoutOf(architecture, model, stored).filter(({ trained }) => trained);
        return await compare(
          { name: basename(resolve(folder)), dtype, target: target.name },
          native,
          layout,
          reference,
        );
      } finally {
        native.close();
      }
    } finally {
      tensors.close();
    }
  } finally {
    reference.expected.close();
  }
}

function withoutDropout(model: Model): Model {
  const dropout = 0;
  const blocks = model.blocks.map(({ attention, ffn, ...block }) => ({
    ...block,
    attention: attention && { ...attention, dropout },
    ffn: ffn && { ...ffn, dropout },
    dropout,
  }));
  return { ...model, embeddings: { ...model.embeddings, dropout }, blocks };
}

async function compare(
  { name, dtype, target }: { name: string; dtype: TrainingType; target: string },
  native: NativeModel,
  layout: readonly FileTensor[],
  reference: Reference,
): Promise<Report> {
  const { batch, expected, greedy, train } = reference;
  const limits = TOLERANCES[dtype];
  const logits = await native.forward(batch.tokens, batch);
  const logitsError = relativeL2(logits, expected.read('logits'));
  const greedyMatch = await continuesAs(native, greedy);
  const { loss } = await native.step(batch.tokens, batch.labels, { ...batch, microBatches: 1, update: null });
  const gradients = gradientErrors(native, layout, expected);
  const worst = gradients.reduce((a, b) => (b.value > a.value || Number.isNaN(b.value) ? b : a));
  const trainError = await trainingError(native, train);
  const { loss: lossAfter } = await native.evaluate(batch.tokens, batch.labels, batch);
  return {
    case: name,
    target,
    dtype,
    logits_rel_l2: logitsError,
    loss,
    loss_expected: reference.loss,
    grad_rel_l2: worst,
    grads_compared: gradients.length,
    greedy_match: greedyMatch,
    train_loss_max_rel: trainError,
    loss_after: lossAfter,
    pass:
      logitsError <= limits.logits &&
      relativeError(loss, reference.loss) <= limits.loss &&
      worst.value <= limits.gradient &&
      (greedyMatch || !limits.greedy) &&
      trainError <= limits.trainLoss &&
      relativeError(lossAfter, train.lossAfter) <= limits.trainLoss,
  };
}

/** Whether the likeliest tokens, one after the other, are those of the reference. */
async function continuesAs(native: NativeModel, { prompt, tokens }: Reference['greedy']): Promise<boolean> {
  const continuation = tokens.slice(prompt.length);
  const written = await generate(native, Int32Array.from(prompt), {
    sampler: { temperature: 0, seed: 0 },
    maxTokens: continuation.length,
    endOfText: null,
    contextLength: tokens.length,
  });
  return written.tokens.join() === continuation.join();
}

/** The relative difference of every parameter's gradient, in the file's own names and layouts. */
function gradientErrors(native: NativeModel, layout: readonly FileTensor[], expected: SafetensorsFile) {
  const gradients = new Map(native.parameters.map(({ name, gradient }) => [name, gradient!]));
  const names = new Set(layout.map(({ name }) => gradientName(name)));
  const surplus = [...expected.tensors.keys()].find(name => name !== 'logits' && !names.has(name));
  if (surplus !== undefined) throw new UserError(`${expected.path} holds '${surplus}', which the model does not have`);
  return layout.map(tensor => {
    const actual = pack(tensor, name => gradients.get(name)!);
    return { worst: tensor.name, value: relativeL2(actual, expected.read(gradientName(tensor.name))) };
  });
}

/** The largest relative difference between a step's loss and the reference's, each before the step's update. */
async function trainingError(native: NativeModel, { steps, lossAfter: _, ...adamw }: Training): Promise<number> {
  let largest = 0;
  for (const [index, { batch, learningRate, loss: expected }] of steps.entries()) {
    const update = { ...adamw, learningRate, update: index + 1 };
    const { loss } = await native.step(batch.tokens, batch.labels, { ...batch, microBatches: 1, update });
    const error = relativeError(loss, expected);
    if (!(error <= largest)) largest = error;
  }
  return largest;
}

/** |actual - expected| / |expected| over all elements; where nothing but zeros is expected, |actual|. */
export function relativeL2(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length)
    throw new UserError(`the reference has ${expected.length} values where the model has ${actual.length}`);
  let difference = 0;
  let size = 0;
  for (let i = 0; i < actual.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    size += expected[i]! ** 2;
  }
  return Math.sqrt(size === 0 ? difference : difference / size);
}

const relativeError = (actual: number, expected: number): number => Math.abs(actual - expected) / Math.abs(expected);
