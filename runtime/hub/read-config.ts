// From a config.json of transformers to a Model. Every field is read, required, or ignored for a reason that is written
// down; one that is in neither list is refused by name.
import type { Attention, Block, FeedForward, Model, StateSpace } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import { type Architecture, activationNames, architectureOf, type Field } from './architecture.ts';
import { fieldError } from './field-error.ts';
import { layerFieldNames, readLayerKinds } from './layer-kinds.ts';
import { fill, type Values } from './pattern.ts';
import { readRopes, ropeFieldNames } from './rope.ts';

export interface ReadConfig {
  readonly model: Model;
  readonly architecture: Architecture;
  /** What does not hold in malc though it changes no result: said, not refused. */
  readonly warnings: readonly string[];
}

/**
 * @param name of the Model
 * @param where the file, for messages
 * @throws UserError that names the field that is missing, unknown, or has a value that is not supported
 */
export function readConfig(config: unknown, name: string, where: string): ReadConfig {
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    throw new UserError(`${where} is not a JSON object`);
  const fields = config as Values;
  const architecture = requireArchitecture(fields, where);
  requireKnownFields(fields, architecture, where);
  const values: Record<string, unknown> = {};
  for (const [field, rule] of Object.entries(architecture.fields))
    values[field] = readField(fields, field, rule, values, where);
  requireValues(fields, architecture, values, where);
  Object.assign(values, readRopes(fields, architecture.ropes, values, where));
  const model = modelOf(fields, architecture, values, name, where);
  requireWhole(model, where);
  return { model, architecture, warnings: trainingWarnings(fields, architecture, where) };
}

function requireArchitecture(config: Values, where: string): Architecture {
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

function requireKnownFields(config: Values, architecture: Architecture, where: string): void {
  const { fields, requires, ignored, training_only, ropes, layer_kinds } = architecture;
  const known = new Set([
    'model_type',
    'architectures',
    ...[fields, requires, ignored, training_only].flatMap(Object.keys),
    ...Object.values(fields).flatMap(({ also }) => also ?? []),
    ...ropeFieldNames(ropes),
    ...(layer_kinds ? layerFieldNames(layer_kinds) : []),
  ]);
  const unknown = Object.keys(config).filter(field => !known.has(field));
  if (unknown.length === 0) return;
  const list = unknown.map(field => `${field} (${JSON.stringify(config[field])})`).join(', ');
  throw new UserError(
    `${where}: malc does not know what ${list} ${unknown.length > 1 ? 'mean' : 'means'} for ${architecture.model_type}. ` +
      'What does not change the results can be taken out of the file.',
  );
}

function requireValues(config: Values, { requires }: Architecture, values: Values, where: string): void {
  for (const [field, requirement] of Object.entries(requires)) {
    const value = config[field];
    if (value === undefined) continue;
    const { is, because } = 'is' in requirement ? requirement : { is: requirement, because: null };
    const texts = is.map(each => JSON.stringify(fill(each, values)));
    const found = Array.isArray(value) ? value : [value];
    if (found.every(each => texts.includes(JSON.stringify(each)))) continue;
    throw fieldError(where, field, value, `${texts.join(' or ')}${because === null ? '' : `: ${because}`}`);
  }
}

function readField(config: Values, name: string, rule: Field, values: Values, where: string): unknown {
  const field = rule.also !== undefined && config[name] === undefined && rule.also in config ? rule.also : name;
  const other = rule.also === undefined ? undefined : config[rule.also];
  if (other !== undefined && other !== config[field])
    throw fieldError(where, rule.also!, other, `${name}'s value, ${JSON.stringify(config[name])}`);
  const given = config[field];
  if (rule.nullable && given === null) return null;
  if ((given ?? undefined) === undefined || (rule.automatic !== undefined && given === rule.automatic)) {
    if (rule.default === undefined) throw fieldError(where, field, undefined, expectationOf(rule));
    const value = fill(rule.default, values);
    return rule.type === 'activation' ? activationNames()[value as string] : value;
  }
  const value = rule.type === 'activation' && typeof given === 'string' ? activationNames()[given] : given;
  if (value === undefined) throw fieldError(where, field, given, `one of ${Object.keys(activationNames()).join(', ')}`);
  if (!fits(value, rule)) throw fieldError(where, field, given, expectationOf(rule));
  return rule.type === 'token' ? tokenOf(value as number, field, values.vocab_size as number, where) : value;
}

/** A row of the embedding: PyTorch counts negative ones from the end. */
function tokenOf(id: number, field: string, rows: number, where: string): number {
  if (id < -rows || id >= rows) throw fieldError(where, field, id, `one of the ${rows} tokens, or null`);
  return id < 0 ? id + rows : id;
}

/** Whether a field can have a value. */
export function fits(value: unknown, { type, nullable, words }: Field): boolean {
  if (value === null) return nullable === true;
  switch (type) {
    case 'count':
      return Number.isSafeInteger(value) && (value as number) > 0;
    case 'number':
      return typeof value === 'number' && value >= 0 && Number.isFinite(value);
    case 'share':
      return typeof value === 'number' && value >= 0 && value < 1;
    case 'boolean':
      return typeof value === 'boolean';
    case 'activation':
      return typeof value === 'string';
    case 'token':
      return Number.isSafeInteger(value);
    case 'word':
      return words!.includes(value as string);
  }
}

function expectationOf({ type, nullable, words }: Field): string {
  const expectations: Readonly<Record<Field['type'], string>> = {
    count: 'a whole number above 0',
    number: 'a number from 0 on',
    share: 'a number from 0 up to 1, without 1',
    boolean: 'true or false',
    activation: 'the name of an activation',
    token: 'the id of a token',
    word: `one of ${words?.join(', ')}`,
  };
  return nullable ? `${expectations[type]}, or null for none` : expectations[type];
}

/** A pattern of well-known/architectures, filled: it has no word for where in a file something was written. */
interface Described {
  readonly block: Omit<Block, 'name' | 'origin' | 'attention' | 'ssm' | 'ffn'> & {
    readonly attention: Omit<Attention, 'origin'> | null;
    readonly ssm: Omit<StateSpace, 'origin'> | null;
    readonly ffn: Omit<FeedForward, 'origin'> | null;
  };
  readonly model: Omit<Model, 'name' | 'description' | 'blocks' | 'layers'>;
}

function modelOf(config: Values, architecture: Architecture, values: Values, name: string, where: string): Model {
  const { layer_kinds: rule, blocks, model, layers } = architecture;
  const count = fill(layers, values) as number;
  const kinds = rule
    ? readLayerKinds(config, rule, count, where)
    : new Array<string>(count).fill(Object.keys(blocks)[0]!);
  const used = [...new Set(kinds)];
  return {
    name,
    description: '',
    ...(fill(model, values) as Described['model']),
    blocks: used.map(kind => blockOf(fill(blocks[kind]!, values) as Described['block'], kind)),
    layers: kinds.map(kind => used.indexOf(kind)),
  };
}

function blockOf({ attention, ssm, ffn, ...block }: Described['block'], name: string): Block {
  const origin = '';
  return {
    name,
    ...block,
    attention: attention && { ...attention, scale: scaleOf(attention), origin },
    ssm: ssm && { ...ssm, origin },
    ffn: ffn && { ...ffn, origin },
    origin,
  };
}

/** Null for what attention scales by without being told. */
const scaleOf = ({ scale, head_dim }: Pick<Attention, 'scale' | 'head_dim'>): number | null =>
  scale === 1 / Math.sqrt(head_dim) ? null : scale;

/** What the checker of the language would refuse. */
function requireWhole({ hidden_size, blocks }: Model, where: string): void {
  const refuse = (what: string) => new UserError(`${where}: ${what}`);
  for (const { attention, ffn } of blocks) {
    if (attention) {
      const { num_heads, num_kv_heads, head_dim, latent, position_encoding: position } = attention;
      if (!Number.isInteger(head_dim)) throw refuse(`${num_heads} heads do not divide the hidden size, ${hidden_size}`);
      if (num_heads % num_kv_heads !== 0)
        throw refuse(`${num_heads} heads cannot share ${num_kv_heads} heads of keys and values evenly`);
      if (latent && num_heads !== num_kv_heads)
        throw refuse(`${num_heads} heads with ${num_kv_heads} of keys and values cannot come out of one latent`);
      if (position.kind === 'rope' && (position.dims % 2 !== 0 || position.dims === 0 || position.dims > head_dim))
        throw refuse(`${position.dims} elements of a head of ${head_dim} cannot turn in pairs`);
    }
    if (ffn?.moe) {
      const { experts, top_k, groups, top_groups } = ffn.moe;
      if (experts % groups !== 0) throw refuse(`${experts} experts cannot lie in ${groups} groups evenly`);
      if (top_groups > groups) throw refuse(`a token cannot choose from ${top_groups} of ${groups} groups`);
      const reachable = (experts / groups) * top_groups;
      if (top_k > reachable) throw refuse(`a token cannot choose ${top_k} of ${reachable} experts`);
    }
  }
}

/** Where malc, given the same weights, would train otherwise than transformers does. */
const trainingWarnings = (config: Values, { training_only }: Architecture, where: string): string[] =>
  Object.entries(training_only)
    .filter(([field]) => (config[field] ?? 0) !== 0)
    .map(
      ([field, what]) => `${where}: ${field} is ${JSON.stringify(config[field])}: transformers ${what}, malc does not`,
    );
