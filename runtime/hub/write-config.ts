// From a Model to a config.json of transformers, where one of its classes computes exactly the same.
import type { Block, Model } from '../../compiler/check/model.ts';
import { type Architecture, activationNames } from './architecture.ts';
import { match } from './pattern.ts';
import { type Rope, writeRope } from './rope.ts';

/** Ids of the tokens with a role; null for none. */
export interface SpecialTokens {
  readonly bos_token_id: unknown;
  readonly eos_token_id: unknown;
  readonly pad_token_id: unknown;
}

/** The fields of transformers' configuration, or what about the Model the architecture cannot say. */
export type WrittenConfig = { readonly config: Record<string, unknown> } | { readonly obstacle: string };

export function writeConfig(model: Model, architecture: Architecture, tokens: SpecialTokens): WrittenConfig {
  const [block, ...others] = model.blocks;
  if (!block || others.length > 0) return { obstacle: `the model has ${model.blocks.length} kinds of block` };
  // How weights start does not matter to a trained model; their deviation has a field all the same.
  const { init: _, ...pattern } = architecture.model as { init: never };
  const found = match(pattern, mathematicsOf(model, block));
  if ('difference' in found) {
    const { path, actual, expected } = found.difference;
    return { obstacle: `${path} is ${JSON.stringify(actual)} and would have to be ${JSON.stringify(expected)}` };
  }
  const values: Record<string, unknown> = { ...found.values, initializer_range: model.init.std };
  for (const [field, { type }] of Object.entries(architecture.fields)) {
    if (type !== 'activation') continue;
    const word = Object.entries(activationNames()).find(([, activation]) => activation === values[field])?.[0];
    if (word === undefined) return { obstacle: `the activation ${values[field]} has no name there` };
    values[field] = word;
  }
  let rope: Readonly<Record<string, unknown>> = {};
  if (architecture.rope) {
    const { kind } = block.attention.position_encoding;
    if (kind !== 'rope') return { obstacle: `block.attention.position_encoding is ${kind} and would have to be rope` };
    const written = writeRope(values.rope as Rope, architecture.rope, block.attention.head_dim);
    if ('obstacle' in written) return written;
    rope = written.fields;
  }
  return {
    config: {
      model_type: architecture.model_type,
      architectures: [architecture.class],
      ...Object.fromEntries(Object.keys(architecture.fields).map(field => [field, values[field]])),
      ...rope,
      ...Object.fromEntries(architecture.dropout.map(field => [field, 0])),
      ...tokens,
      torch_dtype: 'float32',
      use_cache: true,
    },
  };
}

/** The Model as patterns have it: one block and the number of layers, without what changes no result. */
function mathematicsOf(model: Model, block: Block): unknown {
  const { name: _name, description: _description, init: _init, blocks: _blocks, ...whole } = model;
  const { name: _blockName, ...layer } = block;
  const described = { ...whole, block: layer, layers: model.layers.length };
  return JSON.parse(JSON.stringify(described), (key, value) => (key === 'origin' ? undefined : value));
}
