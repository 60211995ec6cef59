// A run as a folder of transformers: config.json and model.safetensors in an architecture's own names and layouts, where one
// computes exactly what the model does.
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic } from '../atomic-file.ts';
import { type Architecture, architectureNames, architectureOf } from './architecture.ts';
import { readRunConfig } from './config.ts';
import { type FileTensor, layoutOf } from './layout.ts';
import { pack } from './pack.ts';
import { SafetensorsFile, type Tensor, writeSafetensors } from './safetensors.ts';
import { configText, type SpecialTokens, writeConfig } from './write-config.ts';

/**
 * Writes `output` from a run's config.json and a checkpoint's weights.
 *
 * @param weights the file of these, where it is another than the checkpoint's own
 * @returns what it was exported as
 * @throws UserError where no architecture fits: each field that stands in the way, and of which of them; where `output` holds a
 * model already; where the weights are not those of the run's model.
 */
export async function exportRun(
  source: { readonly run: string; readonly folder: string },
  output: string,
  weights = join(source.folder, 'model.safetensors'),
): Promise<Architecture> {
  const { malc: model, imported_from: origin, ...rest } = readRunConfig(join(source.run, 'config.json'));
  const { bos_token_id = null, eos_token_id = null, pad_token_id = null } = rest;
  const preferred = typeof origin === 'string' ? origin : null;
  const { architecture, config } = fittingArchitecture(model, preferred, { bos_token_id, eos_token_id, pad_token_id });
  makeModelFolder(output);
  const file = SafetensorsFile.open(weights);
  try {
    const layout = layoutOf(architecture, model);
    requireShapes(file, layout);
    await writeWeights(join(output, 'model.safetensors'), packed(layout, file));
  } finally {
    file.close();
  }
  // Last, so that a folder with a config.json is whole.
  writeFileAtomic(join(output, 'config.json'), configText(config));
  return architecture;
}

/** Makes a folder for a model. @throws UserError where it cannot be made or holds a model already. */
export function makeModelFolder(path: string): void {
  if (existsSync(join(path, 'config.json')))
    throw new UserError(`${path} already holds a model. Choose another --output.`);
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    throw new UserError(`${path} cannot be made: ${(error as Error).message}. Choose another --output.`);
  }
}

/** Writes a safetensors file under its name only when it is whole. */
export async function writeWeights(path: string, tensors: readonly Tensor[]): Promise<void> {
  const temporary = `${path}.tmp`;
  await writeSafetensors(temporary, tensors);
  renameSync(temporary, path);
}

/** The architecture that the model came from, or else the first that fits. */
function fittingArchitecture(model: Model, preferred: string | null, tokens: SpecialTokens) {
  const names = architectureNames();
  const ordered = preferred !== null && names.includes(preferred) ? [preferred, ...names] : names;
  /** The architectures that each obstacle rules out. */
  const obstacles = new Map<string, string[]>();
  for (const name of new Set(ordered)) {
    const architecture = architectureOf(name);
    const written = writeConfig(model, architecture, tokens);
    if ('config' in written) return { architecture, config: written.config };
    obstacles.set(written.obstacle, [...(obstacles.get(written.obstacle) ?? []), name]);
  }
  const lines = [...obstacles].map(([obstacle, names]) => `\n  ${obstacle}: ${names.join(', ')}`);
  throw new UserError(
    `no architecture of transformers that malc knows computes what ${model.name} does:${lines.join('')}`,
  );
}

function requireShapes(weights: SafetensorsFile, layout: readonly FileTensor[]): void {
  for (const { name, shape } of layout.flatMap(({ holds }) => holds)) {
    const actual = weights.tensors.get(name)?.shape;
    if (!actual) throw new UserError(`${weights.path} lacks the tensor '${name}', which the model has`);
    if (actual.join() !== shape.join())
      throw new UserError(
        `${weights.path}: tensor '${name}' is [${actual.join(', ')}]; the model has [${shape.join(', ')}]`,
      );
  }
}

/** The tensors of the architecture's file, each made of a run's when it is its turn. */
function packed(layout: readonly FileTensor[], weights: SafetensorsFile): Tensor[] {
  // Experts' tensors that follow one another are of the same parameter, which is read once.
  const held = new Map<string, Float32Array>();
  const read = (name: string): Float32Array => {
    const values = held.get(name) ?? weights.read(name);
    held.set(name, values);
    return values;
  };
  return layout.map(tensor => ({
    name: tensor.name,
    shape: tensor.shape,
    get data() {
      const names = tensor.holds.map(({ name }) => name);
      for (const name of held.keys()) if (!names.includes(name)) held.delete(name);
      return pack(tensor, read);
    },
  }));
}
