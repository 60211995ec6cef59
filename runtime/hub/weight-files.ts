// The weights of a folder: model.safetensors, the pieces that model.safetensors.index.json lists, or the one file of another
// name, such as a checkpoint of hermes-llm.
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { readJson } from './config.ts';
import { SafetensorsFile } from './safetensors.ts';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

export class WeightFiles {
  /** The shape of every tensor. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly #files: readonly SafetensorsFile[];
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;

  private constructor(files: readonly SafetensorsFile[], fileOf: ReadonlyMap<string, SafetensorsFile>) {
    this.#files = files;
    this.#fileOf = fileOf;
    this.shapes = new Map([...fileOf].map(([name, file]) => [name, file.tensors.get(name)!.shape]));
  }

  /** @throws UserError where there are no weights, a piece is missing or damaged, or a tensor is not where the index says. */
  static open(folder: string): WeightFiles {
    const files: SafetensorsFile[] = [];
    try {
      const names = existsSync(join(folder, SINGLE)) ? [SINGLE] : piecesOf(folder);
      for (const name of names) files.push(SafetensorsFile.open(join(folder, name)));
      const fileOf = new Map<string, SafetensorsFile>();
      for (const file of files) {
        for (const name of file.tensors.keys()) {
          const other = fileOf.get(name);
          if (other) throw new UserError(`${other.path} and ${file.path} both hold the tensor '${name}'`);
          fileOf.set(name, file);
        }
      }
      return new WeightFiles(files, fileOf);
    } catch (error) {
      for (const file of files) file.close();
      throw error;
    }
  }

  /** A tensor's values as float32. */
  read(name: string): Float32Array {
    const file = this.#fileOf.get(name);
    if (!file) throw new Error(`there is no tensor ${name}`);
    return file.read(name);
  }

  close(): void {
    for (const file of this.#files) file.close();
  }
}

/** The files that the index lists, each once. */
function piecesOf(folder: string): string[] {
  const path = join(folder, INDEX);
  if (!existsSync(path)) return [onlyFileIn(folder)];
  const map = (readJson(path) as { weight_map?: unknown } | null)?.weight_map;
  const pieces = typeof map === 'object' && map !== null ? Object.values(map) : [];
  if (pieces.length === 0 || !pieces.every(piece => typeof piece === 'string' && piece === basename(piece)))
    throw new UserError(`${path} has no weight_map of tensors to files of the same folder`);
  return [...new Set(pieces as string[])];
}

/** The safetensors file of a folder that has one. */
function onlyFileIn(folder: string): string {
  const names = readdirSync(folder).filter(name => name.endsWith('.safetensors'));
  if (names.length === 1) return names[0]!;
  if (names.length > 1)
    throw new UserError(`${folder} holds ${names.join(', ')}: copy the one to import to ${SINGLE} beside them`);
  throw new UserError(
    `${folder} holds neither ${SINGLE} nor ${INDEX}. malc reads safetensors only; other formats are converted by ` +
      'loading the model in transformers and saving it with save_pretrained.',
  );
}
