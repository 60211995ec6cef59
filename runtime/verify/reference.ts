// A reference folder: a model saved by transformers, a batch, and what PyTorch computed with it.
//
//   batch.json             tokens and labels, [batch][time]; a label of -100 is not scored
//   expected.safetensors   logits, and grad.NAME for every parameter of the file
//   expected.json          the loss, a greedy continuation, and the losses of some AdamW steps
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { readJson } from '../hub/config.ts';
import { SafetensorsFile } from '../hub/safetensors.ts';

/** Tokens and labels as the native program takes them, [batch][time]; a label of -1 is not scored. */
export interface Batch {
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  readonly batch: number;
  readonly time: number;
}

export interface Reference {
  readonly batch: Batch;
  readonly loss: number;
  /** All ids, the prompt's first. */
  readonly greedy: { readonly prompt: readonly number[]; readonly tokens: readonly number[] };
  readonly train: Training;
  /** Logits and gradients. */
  readonly expected: SafetensorsFile;
}

export interface Training {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly clipNorm: number;
  readonly steps: readonly { readonly batch: Batch; readonly learningRate: number; readonly loss: number }[];
  /** On the first batch, after all steps. */
  readonly lossAfter: number;
}

/** What a gradient is called in expected.safetensors. */
export const gradientName = (parameter: string): string => `grad.${parameter}`;

/** Opens a reference. The caller closes `expected`. @throws UserError where a file is missing, damaged or of another form. */
export function openReference(folder: string): Reference {
  for (const name of ['batch.json', 'expected.json', 'expected.safetensors']) {
    if (!existsSync(join(folder, name))) {
      throw new UserError(
        `${folder} holds no ${name}: verify compares with results of PyTorch that are stored beside the model ` +
          '(batch.json, expected.json, expected.safetensors)',
      );
    }
  }
  const { batch, expected } = readJsonFiles(folder);
  return { batch, ...expected, expected: SafetensorsFile.open(join(folder, 'expected.safetensors')) };
}

/** -100 marks positions that are not scored in PyTorch's cross-entropy. */
const NOT_SCORED = -100;

interface BatchFile {
  readonly tokens: readonly number[][];
  readonly labels: readonly number[][];
}

interface ExpectedFile {
  readonly loss: number;
  readonly greedy: Reference['greedy'];
  readonly train: {
    readonly optimizer: {
      readonly name: string;
      readonly betas: readonly [number, number];
      readonly eps: number;
      readonly weight_decay: number;
      readonly clip_norm: number;
    };
    /** [step][batch][time + 1]: each position's label is the token after it. */
    readonly batches: readonly number[][][];
    readonly lr: readonly number[];
    readonly loss: readonly number[];
    readonly loss_on_batch_json_after: number;
  };
}

function readJsonFiles(folder: string): { batch: Batch; expected: Omit<Reference, 'batch' | 'expected'> } {
  const { tokens, labels } = readJson(join(folder, 'batch.json')) as BatchFile;
  const path = join(folder, 'expected.json');
  const { loss, greedy, train } = readJson(path) as ExpectedFile;
  const { name, betas, eps, weight_decay, clip_norm } = train.optimizer;
  if (name !== 'adamw') throw new UserError(`${path}: the optimizer is ${name}; only adamw is supported`);
  const steps = train.batches.map((rows, step) => ({
    batch: batchOf(
      rows.map(row => row.slice(0, -1)),
      rows.map(row => row.slice(1)),
    ),
    learningRate: train.lr[step]!,
    loss: train.loss[step]!,
  }));
  return {
    batch: batchOf(tokens, labels),
    expected: {
      loss,
      greedy,
      train: {
        beta1: betas[0],
        beta2: betas[1],
        epsilon: eps,
        weightDecay: weight_decay,
        clipNorm: clip_norm,
        steps,
        lossAfter: train.loss_on_batch_json_after,
      },
    },
  };
}

function batchOf(tokens: readonly number[][], labels: readonly number[][]): Batch {
  return {
    tokens: Int32Array.from(tokens.flat()),
    labels: Int32Array.from(labels.flat(), label => (label === NOT_SCORED ? -1 : label)),
    batch: tokens.length,
    time: tokens[0]!.length,
  };
}
