// A model that transformers saved, as a Model with its parameters: config.json through well-known/architectures, weights
// from safetensors through the same.
import { basename, join, resolve } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { Architecture } from './architecture.ts';
import { readJson } from './config.ts';
import { atLayer, type FileTensor, layoutOf, unpack } from './layout.ts';
import { readConfig } from './read-config.ts';
import type { Tensor } from './safetensors.ts';
import { WeightFiles } from './weight-files.ts';

export interface Imported {
  readonly model: Model;
  readonly architecture: Architecture;
  /** config.json as it is. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ImportedTensors;
  /** What the user should know, though nothing is wrong. */
  readonly warnings: readonly string[];
}

/**
 * Reads a folder that transformers saved. Every tensor has been found and has the right shape when this returns; values
 * are read when they are asked for. The caller closes `tensors`.
 *
 * @throws UserError that names the field of config.json or the tensors that are not supported, missing or misshaped.
 */
export function importFolder(folder: string): Imported {
  const path = join(folder, 'config.json');
  const config = readJson(path) as Readonly<Record<string, unknown>>;
  const { model, architecture, warnings } = readConfig(config, basename(resolve(folder)), path);
  return { model, architecture, config, warnings, tensors: ImportedTensors.open(folder, architecture, model) };
}

export class ImportedTensors {
  /** The file's tensors that hold the model's parameters, under the names of the full class. */
  readonly layout: readonly FileTensor[];
  readonly #files: WeightFiles;
  /** What the files call a tensor of `layout`. */
  readonly #inFile: (name: string) => string;

  private constructor(layout: readonly FileTensor[], files: WeightFiles, inFile: (name: string) => string) {
    this.layout = layout;
    this.#files = files;
    this.#inFile = inFile;
  }

  static open(folder: string, architecture: Architecture, model: Model): ImportedTensors {
    const layout = layoutOf(architecture, model);
    const files = WeightFiles.open(folder);
    try {
      const inFile = fileNames(architecture, files);
      requireTensors(folder, architecture, model, layout, files, inFile);
      return new ImportedTensors(layout, files, inFile);
    } catch (error) {
      files.close();
      throw error;
    }
  }

  /** The values of one of the file's tensors, in the file's layout. */
  read(tensor: FileTensor): Float32Array {
    return this.#files.read(this.#inFile(tensor.name));
  }

  /** Writes every parameter into the array that `targets` gives for its malc name. */
  readInto(targets: (name: string) => Float32Array): void {
    for (const tensor of this.layout) {
      const into = tensor.holds.map(({ name }) => targets(name));
      unpack(tensor, this.read(tensor), into);
    }
  }

  /** The parameters by malc's names, each read when its data are asked for. */
  parameters(): Tensor[] {
    return this.layout.flatMap(tensor =>
      tensor.holds.map(({ name, shape }, part) => {
        const read = () => {
          const parts = tensor.holds.map(each => new Float32Array(each.shape.reduce((a, b) => a * b, 1)));
          unpack(tensor, this.read(tensor), parts);
          return parts[part]!;
        };
        return {
          name,
          shape,
          get data() {
            return read();
          },
        };
      }),
    );
  }

  close(): void {
    this.#files.close();
  }
}

/** What these files call a tensor. */
function fileNames({ base_prefix: prefix, also_called: otherNames }: Architecture, files: WeightFiles) {
  // A file of the class without its head has no prefix.
  const bare = ![...files.shapes.keys()].some(name => name.startsWith(prefix));
  return (name: string): string => {
    const other = otherNames?.[name];
    if (other !== undefined && files.shapes.has(other)) return other;
    return bare && name.startsWith(prefix) ? name.slice(prefix.length) : name;
  };
}

/** Names all that is missing, has another shape, or is there and known to nobody. */
function requireTensors(
  folder: string,
  architecture: Architecture,
  model: Model,
  layout: readonly FileTensor[],
  files: WeightFiles,
  inFile: (name: string) => string,
): void {
  const expected = new Map(layout.map(({ name, shape }) => [inFile(name), shape]));
  const faults = [...expected].flatMap(([name, shape]) => {
    const actual = files.shapes.get(name);
    if (!actual) return [`'${name}' is missing`];
    return actual.join() === shape.join()
      ? []
      : [`'${name}' is [${actual.join(', ')}] and should be [${shape.join(', ')}]`];
  });
  const ignored = Object.keys(architecture.ignored_tensors).flatMap(name =>
    [...model.layers.keys()].map(layer => inFile(atLayer(name, layer))),
  );
  const surplus = new Set([...files.shapes.keys()].filter(name => !expected.has(name) && !ignored.includes(name)));
  const head = headOf(architecture);
  if (model.embeddings.tie_weights && surplus.delete(inFile(head)))
    faults.push(...headFaults(files, inFile(head), inFile(embeddingOf(layout))));
  faults.push(...[...surplus].map(name => `'${name}' belongs to no part of a ${architecture.class}`));
  if (faults.length === 0) return;
  const shown = faults.slice(0, 12);
  const more = faults.length > shown.length ? [`and ${faults.length - shown.length} more`] : [];
  throw new UserError(
    `the tensors in ${folder} are not those of its config.json:\n  ${[...shown, ...more].join('\n  ')}`,
  );
}

/** A tied head may stand in the file a second time, as long as it is the embedding. */
function headFaults(files: WeightFiles, head: string, embedding: string): string[] {
  const same =
    files.shapes.has(embedding) &&
    Buffer.from(files.read(head).buffer).equals(Buffer.from(files.read(embedding).buffer));
  return same ? [] : [`'${head}' differs from '${embedding}', to which tie_word_embeddings ties it`];
}

const embeddingOf = (layout: readonly FileTensor[]): string =>
  layout.find(({ holds }) => holds[0]!.name === 'model.embed_tokens.weight')!.name;

const headOf = ({ tensors }: Architecture): string =>
  Object.entries(tensors ?? {}).find(([, content]) => content === 'lm_head.weight')?.[0] ?? 'lm_head.weight';
