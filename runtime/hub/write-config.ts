// From a Model to a config.json of transformers, where one of its classes computes exactly the same.
import { isDeepStrictEqual } from 'node:util';
import type { Block, Model } from '../../compiler/check/model.ts';
import { type Architecture, activationNames, architectureNames, architectureOf, type Field } from './architecture.ts';
import { writeLayerKinds } from './layer-kinds.ts';
import { type Difference, fill, match, type Pattern, type Values } from './pattern.ts';
import { fits } from './read-config.ts';
import { ropeFieldNames, writeRopes } from './rope.ts';

/** Ids of the tokens with a role; null for none. */
export interface SpecialTokens {
  readonly bos_token_id: unknown;
  readonly eos_token_id: unknown;
  readonly pad_token_id: unknown;
}

/** The fields of transformers' configuration, or what about the Model the architecture cannot say. */
export type WrittenConfig = { readonly config: Record<string, unknown> } | { readonly obstacle: string };

export function writeConfig(model: Model, architecture: Architecture, tokens: SpecialTokens): WrittenConfig {
  const found = fit(model, architecture);
  if ('obstacle' in found) return found;
  const fields: Record<string, unknown> = {};
  for (const [name, rule] of Object.entries(architecture.fields)) {
    const written = writeField(name, rule, found.values);
    if ('obstacle' in written) return written;
    fields[name] = written.value;
  }
  const ropes = writeRopes({ ...fields, ...found.values }, architecture.ropes);
  if ('obstacle' in ropes) return ropes;
  const kinds = architecture.layer_kinds ? writeLayerKinds(found.kinds, architecture.layer_kinds) : { fields: {} };
  if ('obstacle' in kinds) return kinds;
  return {
    config: {
      model_type: architecture.model_type,
      architectures: [architecture.class],
      ...fields,
      ...kinds.fields,
      ...ropes.fields,
      ...tokens,
      // To transformers, the token of padding is the one whose embedding it does not train.
      ...(model.embeddings.untrained_token !== null && { pad_token_id: model.embeddings.untrained_token }),
      torch_dtype: 'float32',
      use_cache: true,
    },
  };
}

/** The value of a field; where no layer's kind asks for it, what transformers takes for it itself. */
function writeField(name: string, rule: Field, values: Values): { value: unknown } | { obstacle: string } {
  if (!Object.hasOwn(values, name)) {
    if (rule.default === undefined) return { obstacle: `nothing in the model says ${name}` };
    return { value: fill(rule.default, values) };
  }
  const value = values[name];
  if (!fits(value, rule)) return { obstacle: `${name} cannot be ${JSON.stringify(value)}` };
  if (rule.type !== 'activation') return { value };
  const word = Object.entries(activationNames()).find(([, activation]) => activation === value)?.[0];
  return word === undefined ? { obstacle: `the activation ${value} has no name there` } : { value: word };
}

/**
 * The text of a config.json. transformers 5 refuses a whole number where it has a real one, so that those fields get a
 * point, which JSON.stringify leaves out.
 */
export function configText(config: Readonly<Record<string, unknown>>): string {
  const { fields = {}, ropes = {} } = architectureNames().includes(String(config.model_type))
    ? architectureOf(String(config.model_type))
    : {};
  const isReal = (field: string) => ['number', 'share'].includes(fields[field]?.type ?? '');
  const marked = Object.entries(config).map(([field, value]): [string, unknown] => {
    if (!isReal(field) && !ropeFieldNames(ropes).includes(field)) return [field, value];
    return [field, withPoints(field, value)];
  });
  return `${JSON.stringify(Object.fromEntries(marked), null, 2).replace(/"\\u0000(-?\d+)"/g, '$1.0')}\n`;
}

/** Whole numbers, in tables too, as texts that mark them. A number of positions stays one. */
function withPoints(key: string, value: unknown): unknown {
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([inner, each]) => [inner, withPoints(inner, each)]));
  const isCount = key === 'original_max_position_embeddings';
  return Number.isSafeInteger(value) && !isCount ? `\u0000${value}` : value;
}

interface Fit {
  /** Of the names in the architecture's patterns. */
  readonly values: Values;
  /** The kind of each layer. */
  readonly kinds: readonly string[];
}

/** Finds out which of the model's blocks is which of the architecture's kinds. */
function fit(model: Model, architecture: Architecture): Fit | { readonly obstacle: string } {
  const blocks = model.blocks.map(block => mathematicsOf(block));
  const distinct = blocks.filter((block, n) => blocks.findIndex(other => isDeepStrictEqual(other, block)) === n);
  const whole = { ...mathematicsOf(model), layers: model.layers.length };
  let first: Difference | null = null;
  for (const assigned of assignments(Object.keys(architecture.blocks), distinct.length)) {
    const pattern: Record<string, Pattern> = { ...(architecture.model as object), layers: architecture.layers };
    const data: Record<string, unknown> = { ...whole };
    assigned.forEach((kind, n) => {
      pattern[kind] = architecture.blocks[kind]!;
      data[kind] = distinct[n];
    });
    const found = match(pattern, data);
    if ('values' in found) {
      const kindOf = (block: unknown) => assigned[distinct.findIndex(each => isDeepStrictEqual(each, block))]!;
      return { values: found.values, kinds: model.layers.map(layer => kindOf(blocks[layer])) };
    }
    first ??= found.difference;
  }
  if (!first) return { obstacle: `the model has ${distinct.length} kinds of block` };
  const { path, actual, expected } = first;
  return { obstacle: `${path} is ${JSON.stringify(actual)} and would have to be ${JSON.stringify(expected)}` };
}

/** Every way to give each of `count` blocks a kind of its own. */
function assignments(kinds: readonly string[], count: number): string[][] {
  if (count === 0) return [[]];
  return kinds.flatMap(kind => {
    const others = kinds.filter(other => other !== kind);
    return assignments(others, count - 1).map(rest => [kind, ...rest]);
  });
}

/** A model without its blocks, or one of them, as patterns have it: without what changes no result. */
function mathematicsOf(described: Model | Block): object {
  const strange = new Set(['name', 'description', 'blocks', 'layers', 'origin']);
  const plain = JSON.parse(JSON.stringify(described), (key, value) => (key === 'origin' ? undefined : value));
  const kept = Object.fromEntries(Object.entries(plain).filter(([key]) => !strange.has(key)));
  if (!('attention' in described) || !described.attention) return kept;
  const { scale, head_dim } = described.attention;
  return { ...kept, attention: { ...(kept.attention as object), scale: scale ?? 1 / Math.sqrt(head_dim) } };
}
