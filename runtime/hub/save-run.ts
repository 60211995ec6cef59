// An imported model as a run folder: config.json, weights under malc's names, and the tokenizer where malc can read it.
import { copyFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic } from '../atomic-file.ts';
import { readTokenizer } from '../tokenizer/json.ts';
import { runConfig } from './config.ts';
import { makeModelFolder, writeWeights } from './export.ts';
import type { Imported } from './import.ts';
import { configText } from './write-config.ts';

/**
 * @param folder that the model was imported from
 * @returns why there is no tokenizer in the run folder, null where there is one
 * @throws UserError where `output` holds a model already or cannot be written
 */
export async function saveAsRun(imported: Imported, folder: string, output: string): Promise<string | null> {
  const { model, architecture, config, tensors } = imported;
  makeModelFolder(output);
  const tokenizer = join(folder, 'tokenizer.json');
  const fault = existsSync(tokenizer) ? tokenizerFault(tokenizer, model.vocab_size) : `${folder} has none`;
  if (fault === null) copyFileSync(tokenizer, join(output, 'tokenizer.json'));
  await writeWeights(join(output, 'model.safetensors'), tensors.parameters());
  const { bos_token_id = null, eos_token_id = null, pad_token_id = null } = config;
  const described = {
    ...runConfig(model, { bos_token_id, eos_token_id, pad_token_id }),
    imported_from: architecture.model_type,
  };
  // Last, so that a folder with a config.json is whole.
  writeFileAtomic(join(output, 'config.json'), configText(described));
  return fault;
}

/** Why malc cannot use the tokenizer with a vocabulary of this size, or null where it can. */
function tokenizerFault(path: string, vocabularySize: number): string | null {
  try {
    const size = readTokenizer(path).vocabularySize;
    return size <= vocabularySize ? null : `${path} has ${size} tokens, the model ${vocabularySize}`;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}
