// A run as a folder of transformers: config.json and model.safetensors in an architecture's own names and layouts, where one
// computes exactly what the model does.
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic } from '../atomic-file.ts';
import { type Architecture, architectureNames, architectureOf } from './architecture.ts';
import { readRunConfig } from './config.ts';
import { type FileTensor, layoutOf, pack } from './layout.ts';
import { SafetensorsFile, type Tensor, writeSafetensors } from './safetensors.ts';
import { type SpecialTokens, writeConfig } from './write-config.ts';

/**
 * Writes `output` from a run's config.json and a checkpoint's weights.
 *
 * @returns what it was exported as
 * @throws UserError where no architecture fits: for each of them, the field that stands in the way; where `output` holds a
 * model already; where the weights are not those of the run's model.
 */
export async function exportRun(
  source: { readonly run: string; readonly folder: string },
  output: string,
): Promise<Architecture> {
  const { malc: model, imported_from: origin, ...rest } = readRunConfig(join(source.run, 'config.json'));
  const { bos_token_id = null, eos_token_id = null, pad_token_id = null } = rest;
  const preferred = typeof origin === 'string' ? origin : null;
  const { architecture, config } = fittingArchitecture(model, preferred, { bos_token_id, eos_token_id, pad_token_id });
  makeModelFolder(output);
  const weights = SafetensorsFile.open(join(source.folder, 'model.safetensors'));
  try {
    const layout = layoutOf(architecture, model);
    requireShapes(weights, layout);
    await writeWeights(
      join(output, 'model.safetensors'),
      layout.map(tensor => packed(tensor, weights)),
    );
  } finally {
    weights.close();
  }
  // Last, so that a folder with a config.json is whole.
  writeFileAtomic(join(output, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
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
  const names = [...(preferred === null ? [] : [preferred]), ...architectureNames()];
  const obstacles: string[] = [];
  for (const name of new Set(names)) {
    const architecture = architectureOf(name);
    const written = writeConfig(model, architecture, tokens);
    if ('config' in written) return { architecture, config: written.config };
    obstacles.push(`${name}: ${written.obstacle}`);
  }
  throw new UserError(
    `no architecture of transformers that malc knows computes what ${model.name} does:\n  ${obstacles.join('\n  ')}`,
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

/** A tensor of the architecture's file, made of a run's when it is its turn. */
function packed(tensor: FileTensor, weights: SafetensorsFile): Tensor {
  return {
    name: tensor.name,
    shape: tensor.shape,
    get data() {
      return pack(
        tensor,
        tensor.holds.map(({ name }) => weights.read(name)),
      );
    },
  };
}
