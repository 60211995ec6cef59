// config.json of a run folder: the Model under the key `malc` and, where a class of transformers computes the same and has
// the same tensors, that class's own fields beside it, so that the folder loads there as it is.
import { readFileSync } from 'node:fs';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { architectureNames, architectureOf } from './architecture.ts';
import { type SpecialTokens, writeConfig } from './write-config.ts';

const MODEL_KEYS = [
  'name',
  'vocab_size',
  'max_seq_len',
  'hidden_size',
  'embeddings',
  'blocks',
  'layers',
  'output',
  'init',
  'mtp',
  'formulas',
] as const satisfies readonly (keyof Model)[];

/** The object that config.json holds. `endOfText` is the tokenizer's id for the end of a text, null where it has none. */
export function configOf(model: Model, endOfText: number | null): Record<string, unknown> {
  return runConfig(model, { bos_token_id: endOfText, eos_token_id: endOfText, pad_token_id: null });
}

/** The same with other special tokens than those of a tokenizer that malc trained. */
export function runConfig(model: Model, tokens: SpecialTokens): Record<string, unknown> {
  for (const name of architectureNames()) {
    const architecture = architectureOf(name);
    // A run's tensors have malc's names; where a class has others, `malc export` writes them.
    if (architecture.tensors) continue;
    const written = writeConfig(model, architecture, tokens);
    if ('config' in written) return { ...written.config, malc: model };
  }
  return { model_type: 'malc', architectures: [], ...tokens, malc: model };
}

/**
 * What a run folder's config.json holds.
 *
 * @throws UserError where the file is missing, is not JSON, or was not written by this version of malc.
 */
export function readRunConfig(path: string): Readonly<Record<string, unknown>> & { readonly malc: Model } {
  const config = readJson(path) as { malc?: Model } | null;
  if (!config?.malc)
    throw new UserError(`${path} has no key 'malc': malc did not write it; malc import reads what transformers wrote`);
  const missing = MODEL_KEYS.find(key => config.malc![key] === undefined);
  if (missing !== undefined)
    throw new UserError(
      `${path}: the model has no '${missing}'. It was changed by hand or written by another version; copy the file again`,
    );
  return config as { malc: Model };
}

/** The Model that a run folder's config.json describes. @throws UserError as `readRunConfig`. */
export function readModelConfig(path: string): Model {
  return readRunConfig(path).malc;
}

/** @throws UserError where the file is missing or is not JSON. */
export function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new UserError(
      code === 'ENOENT'
        ? `there is no ${path}, which says what the model is: copy the whole run folder, or give another one`
        : `${path} cannot be read: ${message}. It was cut short or changed by hand; copy it again`,
    );
  }
}
