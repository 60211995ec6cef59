// From a config.json of transformers to a Model. Every field is read, required, or ignored for a reason that is written
// down; one that is in neither list is refused by name.
import type { Attention, Block, FeedForward, Model } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { type Architecture, activationNames, architectureOf, type Field } from './architecture.ts';
import { fieldError } from './field-error.ts';
import { fill } from './pattern.ts';
import { readRope, ropeFieldNames } from './rope.ts';

export interface ReadConfig {
  readonly model: Model;
  readonly architecture: Architecture;
  /** What does not hold in malc though it changes no result: said, not refused. */
  readonly warnings: readonly string[];
}

type Config = Readonly<Record<string, unknown>>;

/**
 * @param name of the Model
 * @param where the file, for messages
 * @throws UserError that names the field that is missing, unknown, or has a value that is not supported
 */
export function readConfig(config: unknown, name: string, where: string): ReadConfig {
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    throw new UserError(`${where} is not a JSON object`);
  const fields = config as Config;
  const architecture = requireArchitecture(fields, where);
  requireKnownFields(fields, architecture, where);
  requireValues(fields, architecture, where);
  const values: Record<string, unknown> = {};
  for (const [field, rule] of Object.entries(architecture.fields))
    values[field] = readField(fields, field, rule, values, where);
  if (architecture.rope) {
    const headDim = fill(architecture.rope.head_dim, values) as number;
    values.rope = readRope(fields, architecture.rope, headDim, where);
  }
  const model = modelOf(architecture, values, name);
  requireWhole(model, where);
  return { model, architecture, warnings: trainingWarnings(fields, architecture, where) };
}

function requireArchitecture(config: Config, where: string): Architecture {
  const { model_type: type, architectures } = config;
  if (typeof type !== 'string') throw fieldError(where, 'model_type', type, 'the name of an architecture');
  let architecture: Architecture;
  try {
    architecture = architectureOf(type);
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${where}: ${error.message}`);
    throw error;
  }
  const classes = Array.isArray(architectures) && architectures.length > 0 ? architectures : [architecture.class];
  if (!classes.includes(architecture.class))
    throw fieldError(where, 'architectures', architectures, `["${architecture.class}"]`);
  return architecture;
}

function requireKnownFields(config: Config, architecture: Architecture, where: string): void {
  const { fields, requires, ignored, dropout, rope } = architecture;
  const known = new Set([
    'model_type',
    'architectures',
    ...[fields, requires, ignored].flatMap(Object.keys),
    ...dropout,
    ...(rope ? ropeFieldNames(rope) : []),
  ]);
  const unknown = Object.keys(config).filter(field => !known.has(field));
  if (unknown.length === 0) return;
  const list = unknown.map(field => `${field} (${JSON.stringify(config[field])})`).join(', ');
  throw new UserError(
    `${where}: malc does not know what ${list} ${unknown.length > 1 ? 'mean' : 'means'} for ${architecture.model_type}. ` +
      'What does not change the results can be taken out of the file.',
  );
}

function requireValues(config: Config, { requires }: Architecture, where: string): void {
  for (const [field, permitted] of Object.entries(requires)) {
    const value = config[field];
    if (value === undefined) continue;
    const texts = permitted.map(each => JSON.stringify(each));
    const found = Array.isArray(value) ? value : [value];
    if (!found.every(each => texts.includes(JSON.stringify(each))))
      throw fieldError(where, field, value, texts.join(' or '));
  }
}

function readField(config: Config, field: string, rule: Field, values: Config, where: string): unknown {
  const given = config[field];
  if (rule.type === 'window' && given === null) return null;
  if ((given ?? undefined) === undefined) {
    if (rule.default === undefined) throw fieldError(where, field, undefined, expectations[rule.type]);
    const value = fill(rule.default, values);
    return rule.type === 'activation' ? activationNames()[value as string] : value;
  }
  const value = rule.type === 'activation' && typeof given === 'string' ? activationNames()[given] : given;
  if (value === undefined) throw fieldError(where, field, given, `one of ${Object.keys(activationNames()).join(', ')}`);
  if (!fits[rule.type](value)) throw fieldError(where, field, given, expectations[rule.type]);
  return value;
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;

const fits: Readonly<Record<Field['type'], (value: unknown) => boolean>> = {
  count: isCount,
  window: isCount,
  number: value => typeof value === 'number' && value >= 0 && Number.isFinite(value),
  boolean: value => typeof value === 'boolean',
  activation: value => typeof value === 'string',
};

const expectations: Readonly<Record<Field['type'], string>> = {
  count: 'a whole number above 0',
  window: 'a whole number above 0, or null for none',
  number: 'a number from 0 on',
  boolean: 'true or false',
  activation: 'the name of an activation',
};

/** A pattern of well-known/architectures, filled. */
interface OneBlockModel extends Omit<Model, 'name' | 'description' | 'blocks' | 'layers'> {
  readonly layers: number;
  readonly block: Omit<Block, 'name' | 'origin' | 'attention' | 'ffn'> & {
    readonly attention: Omit<Attention, 'origin'>;
    readonly ffn: Omit<FeedForward, 'origin'>;
  };
}

function modelOf(architecture: Architecture, values: Config, name: string): Model {
  const { block, layers, ...whole } = fill(architecture.model, values) as OneBlockModel;
  const origin = '';
  const { attention, ffn } = block;
  return {
    name,
    description: '',
    ...whole,
    blocks: [{ ...block, name: 'block', attention: { ...attention, origin }, ffn: { ...ffn, origin }, origin }],
    layers: new Array<number>(layers).fill(0),
  };
}

/** What the checker of the language would refuse. */
function requireWhole({ hidden_size, blocks }: Model, where: string): void {
  const { num_heads, num_kv_heads, head_dim, position_encoding: position } = blocks[0]!.attention;
  const refuse = (what: string) => new UserError(`${where}: ${what}`);
  if (!Number.isInteger(head_dim)) throw refuse(`${num_heads} heads do not divide the hidden size, ${hidden_size}`);
  if (num_heads % num_kv_heads !== 0)
    throw refuse(`${num_heads} heads cannot share ${num_kv_heads} heads of keys and values evenly`);
  if (position.kind === 'rope' && (position.dims % 2 !== 0 || position.dims === 0 || position.dims > head_dim))
    throw refuse(`${position.dims} elements of a head of ${head_dim} cannot turn in pairs`);
}

/** Where malc, given the same weights, would train otherwise than transformers does. */
function trainingWarnings(config: Config, { dropout, untrained_token: token }: Architecture, where: string): string[] {
  const warnings = dropout
    .filter(field => (config[field] ?? 0) !== 0)
    .map(field => `${where}: ${field} is ${JSON.stringify(config[field])}; malc trains without dropout`);
  if (token === undefined || (config[token] ?? null) === null) return warnings;
  const id = JSON.stringify(config[token]);
  return [...warnings, `${where}: ${token} is ${id}; transformers does not train that token's embedding, malc does`];
}
