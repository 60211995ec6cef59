// What texts are written with: weights, the model that they are of and its tokenizer; of a run, or files named one by one.
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { readModelConfig } from '../hub/config.ts';
import type { NativeModel } from '../native.ts';
import { readTokenizer, tokenizerHash } from '../tokenizer/json.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { loadWeights, loadWeightsFile, readState, weightsFile } from '../train/checkpoint.ts';
import { findCheckpoint, isRunWeights } from '../train/run-folder.ts';

export interface TrainedModel {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** Writes the weights into the model. @throws UserError where the file is damaged or of another model. */
  load(native: NativeModel): void;
}

/** Paths, as the command line has them. */
export interface TrainedFiles {
  /** A run folder, a step-N folder, or a file of weights. */
  readonly checkpoint: string;
  /** The config.json of the model; absent for the one beside the weights, as the tokenizer. */
  readonly config?: string | undefined;
  readonly tokenizer?: string | undefined;
  /** Whether the averages of the weights are meant, which a run keeps with --ema. */
  readonly averaged: boolean;
}

/** @throws UserError where a file is missing or damaged, or the tokenizer is not the model's. */
export function openTrainedModel(files: TrainedFiles): TrainedModel {
  const { checkpoint, averaged } = files;
  const isFile = statSync(checkpoint, { throwIfNoEntry: false })?.isFile() && checkpoint.endsWith('.safetensors');
  if (isFile && !isRunWeights(checkpoint)) return ofFile(files);
  const { folder, run } = findCheckpoint(checkpoint);
  weightsFile(folder, averaged); // before anything is compiled
  const model = readModelConfig(files.config ?? join(run, 'config.json'));
  return { model, tokenizer: runTokenizer(folder, run, files), load: native => loadWeights(folder, native, averaged) };
}

/** Weights outside of a run, under malc's names. */
function ofFile({ checkpoint, config, tokenizer, averaged }: TrainedFiles): TrainedModel {
  if (averaged) throw new UserError(`--ema is for a run, which keeps averages; ${checkpoint} is a file of weights`);
  const beside = (name: string, option: string) => {
    const path = join(dirname(checkpoint), name);
    if (existsSync(path)) return path;
    throw new UserError(`there is no ${path}: say with --${option} which ${name} belongs to ${checkpoint}`);
  };
  const model = readModelConfig(config ?? beside('config.json', 'config'));
  const tokenizerPath = tokenizer ?? beside('tokenizer.json', 'tokenizer');
  const found = readTokenizer(tokenizerPath);
  if (found.vocabularySize > model.vocab_size)
    throw new UserError(
      `${tokenizerPath} has ${found.vocabularySize} tokens, and the model knows ${model.vocab_size}: ` +
        'give the tokenizer that it was trained with as --tokenizer',
    );
  return { model, tokenizer: found, load: native => loadWeightsFile(checkpoint, native) };
}

/**
 * The run's tokenizer, and no other: with a strange one the model would write, and write nonsense. An imported model was
 * trained elsewhere (`folder` is `run`, without a state), and nothing says what its tokenizer's hash was.
 */
function runTokenizer(folder: string, run: string, { tokenizer: given }: TrainedFiles): Tokenizer {
  const path = given ?? join(run, 'tokenizer.json');
  if (!given && !existsSync(path))
    throw new UserError(`there is no ${path}: copy the run's tokenizer back, or the whole run`);
  const tokenizer = readTokenizer(path);
  if (folder !== run && tokenizerHash(tokenizer) !== readState(folder).tokenizerHash) {
    const remedy = given ? "leave --tokenizer out, for the run's own" : "copy the run's own back";
    throw new UserError(`${path} is not the tokenizer that ${folder} was trained with: ${remedy}`);
  }
  return tokenizer;
}
