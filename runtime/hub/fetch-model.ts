// A model of the hub, `hf:OWNER/NAME[@REVISION]`, as a folder of malc's cache that holds what an import needs.
import { UserError } from '../../compiler/diagnostic.ts';
import type { OnProgress } from '../data/progress.ts';
import { pageOf } from './client.ts';
import { commitFolder, fetchFiles, readRevision } from './repository.ts';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/**
 * The folder of a model's config.json, its tokenizer.json where it has one, and its weights.
 *
 * @throws UserError where the hub refuses, or has no weights as safetensors
 */
export async function fetchModel(word: string, onProgress: OnProgress): Promise<string> {
  const [, name, revision = 'main'] = /^hf:([\w.-]+(?:\/[\w.-]+)?)(?:@([^:@]+))?$/.exec(word) ?? [];
  if (name === undefined) throw new UserError(`${word} names no model; write hf:OWNER/NAME or hf:OWNER/NAME@REVISION`);
  const repository = { kind: 'models', name } as const;
  const commit = await readRevision(repository, revision);
  const has = (path: string) => commit.files.some(file => file.path === path);
  const isPiece = (path: string) => /^[^/]+\.safetensors$/.test(path);
  if (!commit.files.some(({ path }) => isPiece(path)))
    throw new UserError(`${word} has no weights as safetensors; see ${pageOf(repository)}/tree/main`);
  // Beside the one file, pieces are the same weights again.
  const isWanted = (path: string) =>
    ['config.json', 'tokenizer.json'].includes(path) ||
    (has(SINGLE) ? path === SINGLE : path === INDEX || isPiece(path));
  const files = commit.files.filter(({ path }) => isWanted(path));
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  await fetchFiles(commit, files, done => onProgress({ phase: 'fetch', done, total }));
  return commitFolder(commit);
}
