// Rotary positions in configuration files: `rope_parameters` of transformers 5, `rope_theta` and `rope_scaling` of older
// files; and the names that single architectures had for the base and for the share of a head that turns.
import { isDeepStrictEqual } from 'node:util';
import type { PositionEncoding, RopeScaling } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RopeFields } from './architecture.ts';
import { fieldError } from './field-error.ts';

export type Rope = Extract<PositionEncoding, { kind: 'rope' }>;

type Config = Readonly<Record<string, unknown>>;

/** The fields of the configuration that rotary positions are read from. */
export function ropeFieldNames({ theta_field, share_field }: RopeFields): string[] {
  return ['rope_parameters', 'rope_scaling', 'rope_theta', theta_field, share_field].filter(isName);
}

const isName = (name: string | undefined): name is string => name !== undefined;

/**
 * @param where the file, for messages
 * @throws UserError where the scaling is of a kind that malc does not know, lacks a number, or is said twice, differently
 */
export function readRope(config: Config, fields: RopeFields, headDim: number, where: string): Rope {
  const tables = ['rope_parameters', 'rope_scaling'].flatMap(name => {
    const entries = objectAt(config, name, where);
    return entries ? [new RopeTable(where, name, entries)] : [];
  });
  const [first, ...others] = tables.map(table => readScaling(table));
  const differing = others.findIndex(other => !isDeepStrictEqual(other, first));
  if (differing >= 0)
    throw new UserError(`${where}: rope_parameters and rope_scaling differ; remove the one that does not hold`);

  const numbers = (key: string, outside: readonly (string | undefined)[]) => [
    ...tables.map(table => [`${table.name}.${key}`, table.number(key)] as const),
    ...outside.filter(isName).map(name => [name, numberAt(config, name, where)] as const),
  ];
  const theta = agreed(numbers('rope_theta', [fields.theta_field, 'rope_theta']), where) ?? fields.theta;
  const shares = numbers('partial_rotary_factor', [fields.share_field]);
  const share = agreed(shares, where) ?? fields.share ?? 1;
  if (fields.share_field === undefined && share !== 1) throw fieldError(where, 'partial_rotary_factor', share, '1');
  for (const table of tables) table.requireAllRead();
  return { kind: 'rope', theta, dims: Math.trunc(headDim * share), interleaved: false, scaling: first ?? null };
}

/** The one value of fields that mean the same, undefined where none is there. */
function agreed(fields: readonly (readonly [name: string, value: number | undefined])[], where: string) {
  const [first, ...others] = fields.filter(([, value]) => value !== undefined);
  const other = others.find(([, value]) => value !== first![1]);
  if (other) throw fieldError(where, other[0], other[1], `${first![0]}'s value, ${first![1]}`);
  return first?.[1];
}

function readScaling(table: RopeTable): RopeScaling | null {
  // An old file calls the kind `type`; newer ones repeat it for old readers.
  const kinds = ['rope_type', 'type'].map(key => table.word(key));
  const kind = kinds[0] ?? kinds[1] ?? 'default';
  switch (kind) {
    case 'default':
      return null;
    case 'linear':
      return { kind, factor: table.required('factor') };
    case 'llama3':
      return {
        kind,
        factor: table.required('factor'),
        low_freq_factor: table.required('low_freq_factor'),
        high_freq_factor: table.required('high_freq_factor'),
        original_max_positions: table.required('original_max_position_embeddings'),
      };
    case 'yarn': {
      const factor = table.required('factor');
      const original = table.required('original_max_position_embeddings');
      const [mscale, mscaleAll] = [table.number('mscale'), table.number('mscale_all_dim')];
      // transformers: a given attention factor, else the quotient of both, else 0.1 ln(factor) + 1.
      const quotient = mscale && mscaleAll ? yarnScale(factor, mscale) / yarnScale(factor, mscaleAll) : null;
      table.requireTrue('truncate');
      return {
        kind,
        factor,
        original_max_positions: original,
        beta_fast: table.number('beta_fast') ?? 32,
        beta_slow: table.number('beta_slow') ?? 1,
        attention_factor: table.number('attention_factor') ?? quotient,
      };
    }
    default:
      throw fieldError(table.where, `${table.name}.rope_type`, kind, 'one of default, linear, llama3, yarn');
  }
}

/** Peng et al. 2023, arXiv:2309.00071, equation 22, with the factor that DeepSeek put into it. */
const yarnScale = (factor: number, mscale: number): number => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);

/** The fields that transformers 4 and 5 read, or the part of the encoding that they have no word for. */
export function writeRope(rope: Rope, fields: RopeFields, headDim: number): { fields: Config } | { obstacle: string } {
  const { theta, dims, interleaved, scaling } = rope;
  if (interleaved) return { obstacle: 'position_encoding.interleaved is true' };
  if (scaling?.kind === 'ntk') return { obstacle: 'position_encoding.scaling is ntk' };
  const share = dims / headDim;
  if (Math.trunc(headDim * share) !== dims || (fields.share_field === undefined && share !== 1))
    return { obstacle: `position_encoding.dims is ${dims} of a head's ${headDim}` };
  const parameters = scaling === null ? { rope_type: 'default' } : writeScaling(scaling);
  const partial = fields.share_field === undefined ? {} : { partial_rotary_factor: share };
  return {
    fields: {
      [fields.theta_field ?? 'rope_theta']: theta,
      ...(fields.share_field !== undefined && { [fields.share_field]: share }),
      rope_scaling: scaling === null ? null : parameters,
      rope_parameters: { ...parameters, rope_theta: theta, ...partial },
    },
  };
}

function writeScaling(scaling: Exclude<RopeScaling, { kind: 'ntk' }>): Config {
  switch (scaling.kind) {
    case 'linear':
      return { rope_type: 'linear', factor: scaling.factor };
    case 'llama3': {
      const { kind, original_max_positions, ...factors } = scaling;
      return { rope_type: kind, ...factors, original_max_position_embeddings: original_max_positions };
    }
    case 'yarn': {
      const { kind, original_max_positions, attention_factor, ...factors } = scaling;
      return {
        rope_type: kind,
        ...factors,
        original_max_position_embeddings: original_max_positions,
        ...(attention_factor !== null && { attention_factor }),
      };
    }
  }
}

function objectAt(config: Config, field: string, where: string): Config | null {
  const value = config[field];
  if (value === undefined || value === null) return null;
  if (typeof value !== 'object' || Array.isArray(value)) throw fieldError(where, field, value, 'an object');
  return value as Config;
}

function numberAt(config: Config, field: string, where: string): number | undefined {
  const value = config[field] ?? undefined;
  if (value !== undefined && !(typeof value === 'number' && value > 0))
    throw fieldError(where, field, value, 'a number above 0');
  return value;
}

/** The object that describes the scaling. What nothing has read at the end is refused. */
class RopeTable {
  readonly where: string;
  readonly name: string;
  readonly #entries: Config;
  readonly #read = new Set<string>();

  constructor(where: string, name: string, entries: Config) {
    this.where = where;
    this.name = name;
    this.#entries = entries;
  }

  word(key: string): string | undefined {
    this.#read.add(key);
    const value = this.#entries[key] ?? undefined;
    if (value !== undefined && typeof value !== 'string')
      throw fieldError(this.where, `${this.name}.${key}`, value, 'a word');
    return value;
  }

  number(key: string): number | undefined {
    this.#read.add(key);
    return numberAt(this.#entries, key, `${this.where}: ${this.name}`);
  }

  required(key: string): number {
    const value = this.number(key);
    if (value === undefined) throw fieldError(this.where, `${this.name}.${key}`, undefined, 'a number');
    return value;
  }

  requireTrue(key: string): void {
    this.#read.add(key);
    const value = this.#entries[key] ?? true;
    if (value !== true) throw fieldError(this.where, `${this.name}.${key}`, value, 'true');
  }

  requireAllRead(): void {
    const surplus = Object.keys(this.#entries).find(key => !this.#read.has(key));
    if (surplus !== undefined) {
      throw fieldError(this.where, `${this.name}.${surplus}`, this.#entries[surplus], 'absent');
    }
  }
}
