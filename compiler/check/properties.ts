// What each kind of definition may say (LANGUAGE 1.2): one table a kind, one row a property, with aliases, type and default.
// A property without a default is absent where it is not written; what then holds is computed where it is used.
import type { Property, Span } from '../syntax/syntax.ts';
import type { Norm } from './model.ts';

/** The types that a property's value may have. */
export type PropertyType =
  | { readonly kind: 'integer'; readonly minimum: number; readonly maximum: number }
  | { readonly kind: 'number'; readonly range: Range }
  | { readonly kind: 'boolean' }
  | { readonly kind: 'string' }
  /** One of a few words, such as `pre`. */
  | { readonly kind: 'word'; readonly words: readonly string[] }
  /** One of a few words, each with properties of its own: `rope { theta: 10000 }`. */
  | { readonly kind: 'choice'; readonly choices: Readonly<Record<string, PropertyTable>> }
  /** A group of properties: `embeddings { ... }`. */
  | { readonly kind: 'group'; readonly table: PropertyTable }
  /** A definition by name, or its properties in braces; where it can do without one, `none`. */
  | { readonly kind: 'definition'; readonly of: DefinitionKind; readonly none?: true }
  /** A list of definitions by name, each or some of them together repeated: `[a, 2 * [b, c]]`. */
  | { readonly kind: 'list'; readonly of: DefinitionKind }
  /** An `activation` of the file or of the standard library, or one of the names that are used for them in the field. */
  | { readonly kind: 'activation' }
  /** A `norm` of the file or of the standard library with its constants, or `none`; `true` is the norm `switch`, if there is one. */
  | { readonly kind: 'norm'; readonly switch?: Norm }
  /** A formula of the file, by name. */
  | { readonly kind: 'formula'; readonly of: 'score' | 'mask' }
  /** Known to the language and refused by name, with how to do without: not in this version. */
  | { readonly kind: 'unsupported'; readonly mend: string };

/** The numbers that a property accepts, and how a message says so. */
export interface Range {
  readonly text: string;
  accepts(value: number): boolean;
}

export interface PropertyRule {
  readonly type: PropertyType;
  readonly aliases?: readonly string[];
  /** A literal, or for choices, activations and norms the word that stands for it. */
  readonly default?: number | boolean | string;
  /** Properties of what it extends that give way to it, besides itself. */
  readonly replaces?: readonly string[];
  /** True where its group is nothing without it. */
  readonly required?: true;
  /** True for a group or definition that is not there unless it is written; others are then read as empty ones. */
  readonly optional?: true;
  /** The only value that this version compiles, and how to mend another. Others are checked, then refused. */
  readonly only?: { readonly value: number | boolean | string; readonly mend: string };
}

export type PropertyTable = Readonly<Record<string, PropertyRule>>;
export type DefinitionKind = 'attention' | 'ssm' | 'ffn' | 'block' | 'model';

/** Dimensions are 32-bit in the generated program. */
export const largestDimension = 2 ** 31 - 1;
export const largestDepth = 10_000;

const positive: Range = { text: 'above 0', accepts: value => value > 0 };
const atLeastOne: Range = { text: 'at least 1', accepts: value => value >= 1 };
const atLeastZero: Range = { text: 'at least 0', accepts: value => value >= 0 };
const fraction: Range = { text: 'at least 0 and below 1', accepts: value => value >= 0 && value < 1 };

const dimension = { kind: 'integer', minimum: 1, maximum: largestDimension } as const;
const positiveNumber = { kind: 'number', range: positive } as const;
const boolean = { kind: 'boolean' } as const;
/** The share of values that training drops. */
const dropout = { type: { kind: 'number', range: fraction }, default: 0 } as const;

/** How to do without hermes-llm's continuum memory, whose first tier is what an `ffn` is elsewhere. */
export const withoutMemory =
  "give the block the `ffn` of the memory's first tier instead, and leave the other tiers out";

const stretch = { type: { kind: 'number', range: atLeastOne }, required: true } as const;
const originalPositions = { type: dimension, required: true } as const;

const ropeScalings = {
  linear: { factor: { type: positiveNumber, required: true } },
  ntk: { factor: stretch },
  yarn: {
    factor: stretch,
    original_max_positions: originalPositions,
    beta_fast: { type: positiveNumber, default: 32 },
    beta_slow: { type: positiveNumber, default: 1 },
    // 0.1 ln(factor) + 1 where it is not written.
    attention_factor: { type: positiveNumber },
  },
  llama3: {
    factor: stretch,
    low_freq_factor: { type: positiveNumber, default: 1 },
    high_freq_factor: { type: positiveNumber, default: 4 },
    original_max_positions: originalPositions,
  },
} as const satisfies Record<string, PropertyTable>;

const rope = {
  rope_theta: { type: positiveNumber, aliases: ['theta', 'base'], default: 10000 },
  // Short for `scaling: linear { factor: NUM }`.
  rope_scaling: { type: positiveNumber },
  scaling: { type: { kind: 'choice', choices: ropeScalings } },
  // head_dim where it is not written.
  dims: { type: dimension },
  interleaved: { type: boolean, default: false },
} as const satisfies PropertyTable;

const alibi = {
  slopes: { type: { kind: 'word', words: ['fixed', 'learned'] }, default: 'fixed' },
} as const satisfies PropertyTable;

const learned = {
  // max_seq_len where it is not written.
  max_positions: { type: dimension },
} as const;

/** Multi-head latent attention: DeepSeek-V2, arXiv:2405.04434, section 2.1. */
const mla = {
  // Queries come straight from the stream where it is not written.
  q_latent: { type: dimension },
  kv_latent: { type: dimension, required: true },
  nope_head_dim: { type: dimension, required: true },
  // 0 for none that turn.
  rope_head_dim: { type: { kind: 'integer', minimum: 0, maximum: largestDimension }, required: true },
  // nope_head_dim where it is not written.
  v_head_dim: { type: dimension },
  latent_norm: { type: { kind: 'norm', switch: { name: 'rmsnorm', constants: { eps: 1e-6 } } }, default: true },
} as const satisfies PropertyTable;

const attention = {
  num_heads: { type: dimension, aliases: ['n_heads', 'attention_heads'], default: 12 },
  // num_heads where it is not written.
  num_kv_heads: { type: dimension, aliases: ['kv_heads'] },
  // hidden_size / num_heads where it is not written.
  head_dim: { type: dimension },
  // The default of the two that follow it.
  bias: { type: boolean, default: false },
  qkv_bias: { type: boolean },
  output_bias: { type: boolean },
  dropout,
  causal: {
    type: boolean,
    default: true,
    only: { value: true, mend: 'remove it: a language model must not see the token that it predicts' },
  },
  window_size: { type: dimension },
  // 1 / sqrt(head_dim) where it is not written.
  scale: { type: positiveNumber },
  qk_norm: { type: { kind: 'norm', switch: { name: 'rmsnorm', constants: { eps: 1e-5 } } }, default: 'none' },
  qk_norm_over: { type: { kind: 'word', words: ['head', 'all'] }, default: 'head' },
  output_gate: { type: boolean, default: false },
  position_encoding: {
    type: { kind: 'choice', choices: { rope, alibi, learned, sinusoidal: {}, none: {} } },
    default: 'rope',
  },
  // Plain projections of queries, keys and values where it is not written.
  kind: { type: { kind: 'choice', choices: { mla } } },
  softcap: { type: positiveNumber },
  score: { type: { kind: 'formula', of: 'score' } },
  // In the place of `causal`.
  mask: { type: { kind: 'formula', of: 'mask' } },
  sinks: { type: boolean, default: false },
} as const satisfies PropertyTable;

const ssm = {
  state_dim: { type: dimension, aliases: ['d_state'], default: 16 },
  conv_kernel: { type: dimension, aliases: ['d_conv'], default: 4 },
  expand: { type: dimension, default: 2 },
  // hidden_size / 16, rounded up, where it is not written.
  dt_rank: { type: dimension },
} as const satisfies PropertyTable;

const balances = {
  loss: { weight: { type: positiveNumber, required: true } },
  aux_free: { rate: { type: positiveNumber, required: true } },
  none: {},
} as const satisfies Record<string, PropertyTable>;

const moe = {
  experts: { type: dimension, required: true },
  top_k: { type: dimension, required: true },
  shared_experts: { type: { kind: 'integer', minimum: 0, maximum: largestDimension }, default: 0 },
  // The network's own where it is not written.
  hidden_dim: { type: dimension, aliases: ['intermediate_size'] },
  router: { type: { kind: 'word', words: ['softmax', 'sigmoid'] }, default: 'softmax' },
  normalize: { type: boolean, default: true },
  scale: { type: positiveNumber, default: 1 },
  // All experts are one group where they are not written.
  groups: { type: dimension },
  top_groups: { type: dimension },
  balance: { type: { kind: 'choice', choices: balances }, replaces: ['load_balance_loss_weight'] },
  // Short for `balance: loss { weight: NUM }`; 0 for none.
  load_balance_loss_weight: { type: { kind: 'number', range: atLeastZero }, replaces: ['balance'] },
  router_z_loss_weight: { type: { kind: 'number', range: atLeastZero }, default: 0 },
  // None is dropped where it is not written.
  capacity_factor: { type: positiveNumber },
} as const satisfies PropertyTable;

const ffn = {
  // 4 * hidden_size where it is not written.
  hidden_dim: { type: dimension, aliases: ['intermediate_size'] },
  activation: { type: { kind: 'activation' }, default: 'swiglu' },
  gate: { type: boolean, default: true },
  bias: { type: boolean, default: false },
  dropout,
  moe: { type: { kind: 'group', table: moe }, optional: true },
} as const satisfies PropertyTable;

const block = {
  attention: { type: { kind: 'definition', of: 'attention' }, replaces: ['ssm'] },
  // In the place of attention.
  ssm: { type: { kind: 'definition', of: 'ssm' }, optional: true, replaces: ['attention'] },
  ffn: { type: { kind: 'definition', of: 'ffn', none: true } },
  memory: { type: { kind: 'unsupported', mend: withoutMemory } },
  norm: { type: { kind: 'norm' }, default: 'rmsnorm' },
  norm_position: { type: { kind: 'word', words: ['pre', 'post', 'output', 'sandwich'] }, default: 'pre' },
  residual: { type: boolean, default: true },
  residual_scale: { type: positiveNumber },
  parallel: { type: boolean, default: false },
  dropout,
} as const satisfies PropertyTable;

const embeddings = {
  tie_weights: { type: boolean, default: false },
  dropout,
  scale: { type: positiveNumber },
  norm: { type: { kind: 'norm' }, default: 'none' },
  // None where it is not written.
  role_embeddings: { type: dimension },
} as const satisfies PropertyTable;

const output = {
  bias: { type: boolean, default: false },
  // That of the first layer's block where it is not written.
  norm: { type: { kind: 'norm' } },
  scale: { type: positiveNumber },
  softcap: { type: positiveNumber },
} as const satisfies PropertyTable;

const init = {
  std: { type: positiveNumber, default: 0.02 },
  residual_scale: { type: boolean, default: true },
} as const satisfies PropertyTable;

const mtp = {
  depth: { type: dimension, required: true },
  weight: { type: positiveNumber, default: 0.3 },
} as const satisfies PropertyTable;

const model = {
  description: { type: { kind: 'string' }, default: '' },
  vocab_size: { type: dimension, default: 32000 },
  max_seq_len: { type: dimension, aliases: ['context_length', 'seq_len'], default: 2048 },
  hidden_size: { type: dimension, aliases: ['d_model', 'embed_dim'], default: 768 },
  // The length of `layers` where that is written.
  num_layers: {
    type: { kind: 'integer', minimum: 1, maximum: largestDepth },
    aliases: ['n_layers', 'depth'],
    default: 12,
  },
  block: { type: { kind: 'definition', of: 'block' }, replaces: ['pattern', 'layers'] },
  // Repeated over all layers.
  pattern: { type: { kind: 'list', of: 'block' }, replaces: ['block', 'layers'] },
  // Every layer.
  layers: { type: { kind: 'list', of: 'block' }, replaces: ['block', 'pattern', 'num_layers'] },
  embeddings: { type: { kind: 'group', table: embeddings } },
  output: { type: { kind: 'group', table: output } },
  init: { type: { kind: 'group', table: init } },
  mtp: { type: { kind: 'group', table: mtp }, optional: true },
} as const satisfies PropertyTable;

/** The name in the table of each name that a file may use. */
export const canonicalNames = (table: PropertyTable): ReadonlyMap<string, string> =>
  new Map(Object.entries(table).flatMap(([name, { aliases = [] }]) => [name, ...aliases].map(word => [word, name])));

/** The groups and words that have properties of their own, by name, beside the definitions. */
const partTables: Readonly<Record<string, PropertyTable>> = {
  embeddings,
  output,
  init,
  mtp,
  moe,
  mla,
  rope,
  alibi,
  learned,
};

/** What has a property of this name. */
export const ownersOf = (name: string): string[] =>
  Object.entries<PropertyTable>({ ...tables, ...partTables })
    .filter(([, table]) => canonicalNames(table).has(name))
    .map(([owner]) => owner);

export const tables = { attention, ssm, ffn, block, model } as const satisfies Record<DefinitionKind, PropertyTable>;
type Tables = typeof tables;

// What reading a table's properties yields.

/** A property's value and where it was written; the property is null where the value is a default. */
export interface Setting<V> {
  readonly value: V;
  readonly property: Property | null;
}

export type Settings<T extends PropertyTable> = {
  readonly [Name in keyof T]: Setting<SettingValue<T[Name]>>;
};

export type RopeSettings = Settings<typeof rope>;
export type LatentSettings = Settings<typeof mla>;
export type MixtureSettings = Settings<typeof moe>;

/** Groups and definitions that are not written are read as empty ones, unless they are optional. */
type SettingValue<Rule extends PropertyRule> = Rule extends { optional: true }
  ? Value<Rule['type']> | null
  : Rule extends { default: unknown } | { required: true } | { type: { kind: 'group' | 'definition' } }
    ? Value<Rule['type']>
    : Value<Rule['type']> | null;

type Value<T extends PropertyType> = T extends { kind: 'integer' | 'number' }
  ? number
  : T extends { kind: 'boolean' }
    ? boolean
    : T extends { kind: 'string' | 'activation' | 'formula' }
      ? string
      : T extends { kind: 'word'; words: readonly (infer Word)[] }
        ? Word
        : T extends { kind: 'choice'; choices: infer Choices }
          ? { [Word in keyof Choices]: Choice<Word, Choices[Word]> }[keyof Choices]
          : T extends { kind: 'group'; table: infer Table extends PropertyTable }
            ? Settings<Table>
            : T extends { kind: 'definition'; of: infer Kind extends DefinitionKind }
              ? Use<Kind>
              : T extends { kind: 'list' }
                ? readonly { readonly word: string; readonly span: Span }[]
                : T extends { kind: 'norm' }
                  ? Norm | null
                  : never;

type Choice<Word, Table> = Table extends PropertyTable
  ? { readonly word: Word; readonly settings: Settings<Table> }
  : never;

/** A definition whose properties have been read. */
export interface Read<Kind extends DefinitionKind> {
  readonly kind: Kind;
  /** Null for one in braces, without a name, and for a default. */
  readonly name: string | null;
  /** Its name, or where it has none its braces; null for a default. */
  readonly span: Span | null;
  readonly settings: Settings<Tables[Kind]>;
  /** False where a property is at fault: it has been reported, and nothing that follows from it should be. */
  readonly sound: boolean;
}

/** Where one definition uses another: by name, or written in place. */
export type Use<Kind extends DefinitionKind> =
  | { readonly name: string; readonly span: Span }
  | { readonly name: null; readonly definition: Read<Kind> };
