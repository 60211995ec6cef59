// A model that transformers or hermes-llm saved, as a Model with its parameters: config.json through well-known/architectures
// or hermes.ts, weights from safetensors through the same tables.
import { basename, join, resolve } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { TensorTable } from './architecture.ts';
import { readJson } from './config.ts';
import { hermesGeneration, isHermesConfig, readHermesConfig } from './hermes.ts';
import { type FileTensor, layoutOf, type ParameterShape } from './layout.ts';
import { unpack } from './pack.ts';
import { readConfig } from './read-config.ts';
import type { Tensor } from './safetensors.ts';
import { WeightFiles } from './weight-files.ts';

export interface Imported {
  readonly model: Model;
  readonly architecture: TensorTable;
  /** config.json as it is. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ImportedTensors;
  /** What the user should know, though nothing is wrong. */
  readonly warnings: readonly string[];
}

/**
 * Reads a folder that transformers or hermes-llm saved. Every tensor has been found and has the right shape when this returns; values
 * are read when they are asked for. The caller closes `tensors`.
 *
 * @throws UserError that names the field of config.json or the tensors that are not supported, missing or misshaped.
 */
export function importFolder(folder: string): Imported {
  const path = join(folder, 'config.json');
  const config = readJson(path) as Readonly<Record<string, unknown>>;
  const read = isHermesConfig(config) ? null : readConfig(config, basename(resolve(folder)), path);
  const files = WeightFiles.open(folder);
  try {
    // Which hermes-llm it was, its tensors say.
    const { model, architecture, warnings } =
      read ?? readHermesConfig(config, hermesGeneration(files.shapes.keys()), path);
    const tensors = ImportedTensors.of(files, folder, architecture, model);
    return { model, architecture, config, warnings, tensors };
  } catch (error) {
    files.close();
    throw error;
  }
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

  /** Takes `files` over. */
  static of(files: WeightFiles, folder: string, table: TensorTable, model: Model): ImportedTensors {
    const inFile = fileNames(table, files);
    const layout = layoutOf(table, model, name => files.shapes.has(inFile(name)));
    requireTensors(folder, table, model, layout, files, inFile);
    return new ImportedTensors(layout, files, inFile);
  }

  /** The values of one of the file's tensors, in the file's layout. */
  read(tensor: FileTensor): Float32Array {
    return this.#files.read(this.#inFile(tensor.name));
  }

  /** Writes every parameter into the array that `targets` gives for its malc name. */
  readInto(targets: (name: string) => Float32Array): void {
    for (const tensor of this.layout) unpack(tensor, this.read(tensor), targets);
  }

  /** The parameters by malc's names, each read when its data are asked for. */
  parameters(): Tensor[] {
    const holding = new Map<string, { shape: ParameterShape['shape']; tensors: FileTensor[] }>();
    for (const tensor of this.layout) {
      for (const { name, shape } of tensor.holds) {
        const others = holding.get(name)?.tensors ?? [];
        holding.set(name, { shape, tensors: [...others, tensor] });
      }
    }
    return [...holding].map(([name, { shape, tensors }]) => {
      const read = () => {
        const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
        for (const tensor of tensors) unpack(tensor, this.read(tensor), each => (each === name ? values : null));
        return values;
      };
      return {
        name,
        shape,
        get data() {
          return read();
        },
      };
    });
  }

  close(): void {
    this.#files.close();
  }
}

/** What these files call a tensor: without the prefix of a full class where they are of the class without its head. */
function fileNames({ base_prefix: prefix }: TensorTable, files: WeightFiles) {
  const bare = ![...files.shapes.keys()].some(name => name.startsWith(prefix));
  return (name: string): string => (bare && name.startsWith(prefix) ? name.slice(prefix.length) : name);
}

/** Names all that is missing, has another shape, or is there and known to nobody. */
function requireTensors(
  folder: string,
  table: TensorTable,
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
  const ignored = Object.keys(table.ignored_tensors).map(name => patternOf(inFile(name), model.layers.length));
  const isIgnored = (name: string) => ignored.some(fits => fits(name));
  const surplus = new Set([...files.shapes.keys()].filter(name => !expected.has(name) && !isIgnored(name)));
  const head = headOf(table);
  if (model.embeddings.tie_weights && surplus.delete(inFile(head)))
    faults.push(...headFaults(files, inFile(head), inFile(embeddingOf(layout))));
  faults.push(...[...surplus].map(name => `'${name}' belongs to no part of a ${table.class}`));
  if (faults.length === 0) return;
  const shown = faults.slice(0, 12);
  const more = faults.length > shown.length ? [`and ${faults.length - shown.length} more`] : [];
  throw new UserError(
    `the tensors in ${folder} are not those of its config.json:\n  ${[...shown, ...more].join('\n  ')}`,
  );
}

/** Whether a name is that of an ignored tensor: `{layer}` is the number of a layer, `{beyond}` a greater one, `*` anything. */
function patternOf(ignored: string, layers: number): (name: string) => boolean {
  const plain = ignored.replace(/[.]/g, '\\.').replace('*', '.+');
  const expression = new RegExp(
    `^${plain.replace('{layer}', '(?<layer>\\d+)').replace('{beyond}', '(?<beyond>\\d+)')}$`,
  );
  return name => {
    const { layer, beyond } = expression.exec(name)?.groups ?? {};
    if (layer !== undefined) return Number(layer) < layers;
    return beyond !== undefined ? Number(beyond) >= layers : expression.test(name);
  };
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

const headOf = ({ tensors }: TensorTable): string =>
  Object.entries(tensors ?? {}).find(([, content]) => content === 'lm_head.weight')?.[0] ?? 'lm_head.weight';
