// Rotary positions in configuration files: `rope_parameters` of transformers 5, `rope_theta` and `rope_scaling` of older
// files; and the names that single architectures had for the base and for the share of a head that turns.
import { isDeepStrictEqual } from 'node:util';
import type { PositionEncoding, RopeScaling } from '../../compiler/check/model.ts';
import { UserError } from '../../compiler/diagnostic.ts';
import type { RopeFields } from './architecture.ts';
import { fieldError } from './field-error.ts';
import { fill, match, type Values } from './pattern.ts';
import { boolean, positive, Section, word } from './section.ts';

type Rope = Extract<PositionEncoding, { kind: 'rope' }>;

/** The fields of the configuration that an architecture's rotary positions are read from. */
export function ropeFieldNames(ropes: Readonly<Record<string, RopeFields>>): string[] {
  const each = Object.values(ropes);
  if (each.length === 0) return [];
  const own = each.flatMap(({ theta_field, share_field }) => [theta_field, share_field].filter(isName));
  return ['rope_parameters', 'rope_scaling', 'rope_theta', ...own];
}

const isName = (name: string | undefined): name is string => name !== undefined;

/**
 * Every rotary position of an architecture by its name in the Model's pattern; with `score_scale`, the factor on q kᵀ, where
 * the rope says that, too.
 *
 * @param values of the fields that the ropes' patterns read
 * @param where the file, for messages
 * @throws UserError where the scaling is of a kind that malc does not know, lacks a number, or is said twice, differently
 */
export function readRopes(
  config: Values,
  ropes: Readonly<Record<string, RopeFields>>,
  values: Values,
  where: string,
): Record<string, unknown> {
  const file = new Section(where, '', config);
  const entries = Object.values(ropes).flatMap(({ entry }) => entry ?? []);
  if (entries.length > 0) {
    const parameters = file.optionalSection('rope_parameters');
    for (const entry of entries) parameters?.skip(entry);
    parameters?.requireAllRead();
  }
  const read: Record<string, unknown> = {};
  for (const [name, fields] of Object.entries(ropes)) {
    const { rope, scoreScale } = readRope(file, fields, values);
    read[name] = rope;
    if (scoreScale !== null) read.score_scale = scoreScale;
  }
  return read;
}

function readRope(file: Section, fields: RopeFields, values: Values) {
  const { where } = file;
  const tables = tablesOf(file, fields);
  const [first, ...others] = tables.map(table => readScaling(table));
  const differing = others.findIndex(other => !isDeepStrictEqual(other, first));
  if (differing >= 0)
    throw new UserError(`${where}: rope_parameters and rope_scaling differ; remove the one that does not hold`);

  const numbers = (key: string, outside: readonly (string | undefined)[]) => [
    ...tables.map(table => [table.path(key), table.optional(key, positive)] as const),
    ...outside.filter(isName).map(name => [name, file.optional(name, positive)] as const),
  ];
  const thetaFields = fields.local ? [fields.theta_field] : [fields.theta_field, 'rope_theta'];
  const theta = agreed(numbers('rope_theta', thetaFields), where) ?? fields.theta;
  const shares = numbers('partial_rotary_factor', [fields.share_field]);
  const share = agreed(shares, where) ?? fields.share ?? 1;
  if (fields.share_field === undefined && share !== 1) throw fieldError(where, 'partial_rotary_factor', share, '1');
  for (const table of tables) table.requireAllRead();
  const dims = Math.trunc((fill(fields.head_dim, values) as number) * share);
  const interleaved = fill(fields.interleaved ?? false, values) as boolean;
  const rope: Rope = { kind: 'rope', theta, dims, interleaved, scaling: first?.scaling ?? null };
  if (fields.scales_scores_of === undefined) return { rope, scoreScale: null };
  const width = fill(fields.scales_scores_of, values) as number;
  return { rope, scoreScale: (first?.scoreFactor ?? 1) ** 2 / Math.sqrt(width) };
}

/** What describes a rope's scaling: its part of `rope_parameters`, and `rope_scaling` of older files. */
function tablesOf(file: Section, { entry, local }: RopeFields): Section[] {
  const parameters = file.optionalSection('rope_parameters');
  const own = entry === undefined ? parameters : parameters?.optionalSection(entry);
  const older = local ? null : file.optionalSection('rope_scaling');
  return [own, older].filter(table => table !== null && table !== undefined);
}

/** The one value of fields that mean the same, null where none is there. */
function agreed(fields: readonly (readonly [name: string, value: number | null])[], where: string) {
  const [first, ...others] = fields.filter(([, value]) => value !== null);
  const other = others.find(([, value]) => value !== first![1]);
  if (other) throw fieldError(where, other[0], other[1], `${first![0]}'s value, ${first![1]}`);
  return first?.[1] ?? null;
}

/** The scaling, and the factor that DeepSeek's models put on queries and on keys besides. */
function readScaling(table: Section): { readonly scaling: RopeScaling | null; readonly scoreFactor: number } {
  // An old file calls the kind `type`; newer ones repeat it for old readers.
  const kinds = ['rope_type', 'type'].map(key => table.optional(key, word));
  const kind = kinds[0] ?? kinds[1] ?? 'default';
  switch (kind) {
    case 'default':
      return { scaling: null, scoreFactor: 1 };
    case 'linear':
      return { scaling: { kind, factor: table.required('factor', positive) }, scoreFactor: 1 };
    case 'llama3': {
      const scaling: RopeScaling = {
        kind,
        factor: table.required('factor', positive),
        low_freq_factor: table.required('low_freq_factor', positive),
        high_freq_factor: table.required('high_freq_factor', positive),
        original_max_positions: table.required('original_max_position_embeddings', positive),
      };
      return { scaling, scoreFactor: 1 };
    }
    case 'yarn': {
      const factor = table.required('factor', positive);
      const original = table.required('original_max_position_embeddings', positive);
      const [mscale, mscaleAll] = [table.optional('mscale', positive), table.optional('mscale_all_dim', positive)];
      // transformers: a given attention factor, else the quotient of both, else 0.1 ln(factor) + 1.
      const quotient = mscale && mscaleAll ? yarnScale(factor, mscale) / yarnScale(factor, mscaleAll) : null;
      if (table.optional('truncate', boolean) === false)
        throw fieldError(table.where, table.path('truncate'), false, 'true');
      const scaling: RopeScaling = {
        kind,
        factor,
        original_max_positions: original,
        beta_fast: table.optional('beta_fast', positive) ?? 32,
        beta_slow: table.optional('beta_slow', positive) ?? 1,
        attention_factor: table.optional('attention_factor', positive) ?? quotient,
      };
      return { scaling, scoreFactor: mscaleAll ? yarnScale(factor, mscaleAll) : 1 };
    }
    default:
      throw fieldError(table.where, table.path('rope_type'), kind, 'one of default, linear, llama3, yarn');
  }
}

/** Peng et al. 2023, arXiv:2309.00071, equation 22, with the factor that DeepSeek put into it. */
const yarnScale = (factor: number, mscale: number): number => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);

/** The fields that transformers 4 and 5 read, or the part of the encodings that they have no word for. */
export function writeRopes(
  values: Values,
  ropes: Readonly<Record<string, RopeFields>>,
): { fields: Values } | { obstacle: string } {
  let fields: Values = {};
  let parameters: Values = {};
  for (const [name, rules] of Object.entries(ropes)) {
    const rope = values[name] as PositionEncoding | undefined;
    // No layer is of the kind that has this rope.
    if (rope === undefined) continue;
    if (rope.kind !== 'rope') return { obstacle: `position_encoding is ${rope.kind} and would have to be rope` };
    const written = writeRope(rope, rules, values);
    if ('obstacle' in written) return written;
    fields = { ...fields, ...written.fields };
    parameters = rules.entry === undefined ? written.parameters : { ...parameters, [rules.entry]: written.parameters };
  }
  return { fields: Object.keys(parameters).length === 0 ? fields : { ...fields, rope_parameters: parameters } };
}

function writeRope(
  rope: Rope,
  rules: RopeFields,
  values: Values,
): { fields: Values; parameters: Values } | { obstacle: string } {
  const { theta, dims, interleaved, scaling } = rope;
  const turning = match(rules.interleaved ?? false, interleaved);
  if ('difference' in turning) return { obstacle: `position_encoding.interleaved is ${interleaved}` };
  if (scaling?.kind === 'ntk') return { obstacle: 'position_encoding.scaling is ntk' };
  if (scaling && rules.local)
    return { obstacle: `position_encoding.scaling of layers with a window is ${scaling.kind}` };
  const width = fill(rules.head_dim, values) as number;
  const share = dims / width;
  if (Math.trunc(width * share) !== dims || (rules.share_field === undefined && share !== 1))
    return { obstacle: `position_encoding.dims is ${dims} of a head's ${width}` };
  const scoreFactor = scoreFactorOf(rules, values);
  if (scoreFactor !== 1 && !(scaling?.kind === 'yarn' && scaling.factor > 1))
    return { obstacle: `attention.scale is ${values.score_scale}, which only yarn's mscale_all_dim would change` };
  const described = scaling === null ? { rope_type: 'default' } : writeScaling(scaling, scoreFactor);
  const partial = rules.share_field === undefined ? {} : { partial_rotary_factor: share };
  return {
    fields: {
      ...turning.values,
      [rules.theta_field ?? 'rope_theta']: theta,
      ...(rules.share_field !== undefined && { [rules.share_field]: share }),
      ...(!rules.local && { rope_scaling: scaling === null ? null : described }),
    },
    parameters: { ...described, rope_theta: theta, ...partial },
  };
}

/** The factor on queries and on keys besides 1 / sqrt(width) on their product; 1 where it is no more than rounding. */
function scoreFactorOf({ scales_scores_of: pattern }: RopeFields, values: Values): number {
  if (pattern === undefined) return 1;
  const factor = Math.sqrt((values.score_scale as number) * Math.sqrt(fill(pattern, values) as number));
  return Math.abs(factor - 1) < 1e-12 ? 1 : factor;
}

function writeScaling(scaling: Exclude<RopeScaling, { kind: 'ntk' }>, scoreFactor: number): Values {
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
        ...(scoreFactor === 1
          ? attention_factor !== null && { attention_factor }
          : mscalesOf(scaling.factor, scoreFactor, attention_factor)),
      };
    }
  }
}

/** What yarnScale makes the score factor of, and, divided by that, the attention factor. */
function mscalesOf(factor: number, scoreFactor: number, attentionFactor: number | null): Values {
  const inverse = (scale: number) => Number(((scale - 1) / (0.1 * Math.log(factor))).toPrecision(12));
  const all = { mscale_all_dim: inverse(scoreFactor) };
  return attentionFactor === null ? all : { mscale: inverse(attentionFactor * scoreFactor), ...all };
}
