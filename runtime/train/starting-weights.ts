// The weights that a run begins with, where they are another's: of a run's checkpoint, of a folder that transformers or
// hermes-llm saved, or of a safetensors file under malc's names. The run takes nothing else over: no moments, no step.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { HUB } from '../data/hub-data.ts';
import { readJson, readModelConfig } from '../hub/config.ts';
import { importFolder } from '../hub/import.ts';
import { SafetensorsFile } from '../hub/safetensors.ts';
import type { NativeModel } from '../native.ts';
import { readTokenizer, tokenizerHash } from '../tokenizer/json.ts';
import { loadWeights, loadWeightsFile } from './checkpoint.ts';
import { findCheckpoint, isRunWeights } from './run-folder.ts';
import { firstDifference } from './settings.ts';

export interface StartingWeights {
  /** What was given, as an absolute path. */
  readonly path: string;
  /** What they are the weights of; null where nothing says it. */
  readonly model: Model | null;
  /** The MAL file of the model; null where there is none. */
  readonly text: string | null;
  /** The tokenizer.json that lies beside them; null where there is none. */
  readonly tokenizer: string | null;
  /** Rows of the embedding. */
  readonly vocabularySize: number;
  /** Writes them into a model. @throws UserError where it has other tensors. */
  load(native: NativeModel): void;
}

const EMBEDDING = 'model.embed_tokens.weight';

/** @throws UserError where there are no weights that malc can read. */
export function openStartingWeights(given: string): StartingWeights {
  const path = resolve(given);
  const kind = statSync(path, { throwIfNoEntry: false });
  if (!kind && given.startsWith(HUB))
    throw new UserError(`--checkpoint takes a folder; fetch one with malc import ${given} -o DIR, and give that`);
  if (!kind) throw new UserError(`--checkpoint ${given} does not exist`);
  if (kind.isFile() && basename(path).endsWith('.safetensors') && !isRunWeights(path)) return ofFile(given, path);
  const isRun = kind.isFile() || existsSync(join(path, 'state.json')) || hasOwnConfig(path);
  return isRun ? ofRun(path) : ofFolder(path);
}

/** Whether malc wrote the folder, as a run or by importing a model. */
function hasOwnConfig(path: string): boolean {
  const config = join(path, 'config.json');
  if (!existsSync(config))
    throw new UserError(
      `--checkpoint ${path} has no config.json; give a run folder, a step-N folder, a folder that transformers saved, ` +
        'or a safetensors file',
    );
  return (readJson(config) as { malc?: unknown } | null)?.malc !== undefined;
}

function ofRun(path: string): StartingWeights {
  const { folder, run } = findCheckpoint(path);
  const model = readModelConfig(join(run, 'config.json'));
  const text = join(run, 'model.mal');
  return {
    path,
    model,
    text: existsSync(text) ? readFileSync(text, 'utf8') : null,
    tokenizer: tokenizerIn(run),
    vocabularySize: model.vocab_size,
    load: native => loadWeights(folder, native),
  };
}

function ofFolder(path: string): StartingWeights {
  const { model, tensors } = importFolder(path);
  tensors.close();
  return {
    path,
    model,
    text: null,
    tokenizer: tokenizerIn(path),
    vocabularySize: model.vocab_size,
    load(native) {
      const { tensors } = importFolder(path);
      try {
        const targets = new Map(native.writableParameters().map(({ name, data }) => [name, data]));
        tensors.readInto(name => targets.get(name)!);
      } finally {
        tensors.close();
      }
    },
  };
}

function ofFile(given: string, path: string): StartingWeights {
  const file = SafetensorsFile.open(path);
  const shape = file.tensors.get(EMBEDDING)?.shape;
  file.close();
  if (!shape)
    throw new UserError(
      `--checkpoint ${given} has no tensor ${EMBEDDING}: its names are not malc's. Give its folder, whose config.json ` +
        'says what they mean',
    );
  return {
    path,
    model: null,
    text: null,
    tokenizer: tokenizerIn(dirname(path)),
    vocabularySize: shape[0]!,
    load: native => loadWeightsFile(path, native),
  };
}

function tokenizerIn(folder: string): string | null {
  const path = join(folder, 'tokenizer.json');
  return existsSync(path) ? path : null;
}

/** Fields of a Model that may differ from those of the model whose weights it takes: the tensors mean the same. */
const free = ['name', 'description', 'origin', 'dropout', 'init', 'vocab_size', 'max_seq_len', 'untrained_token'];

/**
 * Refuses weights that were trained as something else, where that is known.
 *
 * @throws UserError that names the first field which differs.
 */
export function requireSameArchitecture({ path, model: theirs }: StartingWeights, model: Model): void {
  if (theirs === null) return;
  const bare = (of: Model): unknown =>
    JSON.parse(JSON.stringify(of), (key, value) => (free.includes(key) ? undefined : value));
  const difference = firstDifference(bare(theirs), bare(model), '');
  if (difference === null) return;
  const { place, before, now } = difference;
  throw new UserError(
    `--model does not fit the weights of ${path}: ${place} is ${JSON.stringify(now)}, and ${JSON.stringify(before)} there`,
  );
}

/** What is to be said of a tokenizer that is not the one beside the weights; null where there is nothing to be said. */
export function warningOfTokenizer({ path, tokenizer }: StartingWeights, hash: string): string | null {
  if (tokenizer === null || tokenizerHash(readTokenizer(tokenizer)) === hash) return null;
  return (
    `warning: --tokenizer is not the one beside the weights of ${path}: what these learned of a token is said of another ` +
    'now; leave --tokenizer out to keep theirs'
  );
}
