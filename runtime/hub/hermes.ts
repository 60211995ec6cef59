// Models that hermes-llm trained: its config.json, which holds the architecture as its MAL describes it. Two generations
// wrote the same description and computed differently: what its 1.8.21 did not act on is read as what it did instead.
import { isDeepStrictEqual } from 'node:util';
import type {
  Attention,
  Block,
  FeedForward,
  MixtureOfExperts,
  Model,
  Norm,
  PositionEncoding,
  StateSpace,
} from '../../compiler/check/model.ts';
import { readTable, type TensorTable } from './architecture.ts';
import { fieldError } from './field-error.ts';
import { boolean, count, list, number, object, positive, Section, share, word } from './section.ts';

/** The versions whose files these are like; each has its table in well-known/architectures. */
export type HermesGeneration = '1.8.21' | '1.8.106';

/** Whether a config.json is hermes-llm's. */
export const isHermesConfig = (config: Readonly<Record<string, unknown>>): boolean =>
  object.accepts(config) && config.model_type === undefined && object.accepts(config.block);

/** The generation that gave a file's tensors their names: the later one has queries, keys and values in one matrix. */
export function hermesGeneration(tensors: Iterable<string>): HermesGeneration {
  return [...tensors].some(name => name.endsWith('.attention.q_proj.weight')) ? '1.8.21' : '1.8.106';
}

/**
 * @param where the file, for messages
 * @throws UserError that names the field which is missing, unknown or not supported
 */
export function readHermesConfig(
  config: Readonly<Record<string, unknown>>,
  generation: HermesGeneration,
  where: string,
): { readonly model: Model; readonly architecture: TensorTable; readonly warnings: readonly string[] } {
  const reader = new HermesReader(generation);
  const model = reader.model(new Section(where, '', config));
  return { model, architecture: readTable(`hermes-${generation}`) as TensorTable, warnings: reader.warnings };
}

/** What hermes-llm calls activations. */
const activations = {
  SwiGLU: 'silu',
  SiLU: 'silu',
  GELU: 'gelu',
  ReLU: 'relu',
  GELUNew: 'gelu_tanh',
  GELUTanh: 'gelu_tanh',
} as const;

/** What hermes-llm takes for an epsilon of 0. */
const DEFAULT_EPS = 1e-5;

const origin = '';

class HermesReader {
  readonly warnings: string[] = [];
  private readonly generation: HermesGeneration;

  constructor(generation: HermesGeneration) {
    this.generation = generation;
  }

  model(file: Section): Model {
    const hidden = file.required('hidden_size', count);
    const layers = file.required('num_layers', count);
    const pattern = file.optional('pattern', list) ?? [];
    const written = pattern.length > 0 ? pattern.map((_, n) => `pattern.${n}`) : ['block'];
    const common = this.block(file.section('block'), hidden);
    const each = pattern.map((entry, n) => {
      if (!object.accepts(entry)) throw fieldError(file.where, written[n]!, entry, object.expected);
      return this.block(new Section(file.where, written[n]!, entry), hidden);
    });
    const cycle = each.length > 0 ? each : [common];
    const perLayer = Array.from({ length: layers }, (_, layer) => cycle[layer % cycle.length]!);
    const blocks = perLayer.filter((block, n) => perLayer.findIndex(other => isDeepStrictEqual(other, block)) === n);
    const model: Model = {
      name: file.required('name', word),
      description: file.optional('description', word) ?? '',
      vocab_size: file.required('vocab_size', count),
      max_seq_len: file.required('max_seq_len', count),
      hidden_size: hidden,
      embeddings: this.embeddings(file.optionalSection('embeddings')),
      blocks: withDistinctNames(blocks),
      layers: perLayer.map(block => blocks.findIndex(other => isDeepStrictEqual(other, block))),
      output: this.output(file.optionalSection('output'), perLayer[0]!.norm),
      init: { std: 0.02, residual_scale: false },
      mtp: null,
      formulas: [],
    };
    file.requireAllRead();
    return model;
  }

  /** What a field says; in the first generation, where it computed something else, that. */
  private acted<T>(section: Section, key: string, stated: T, computed: T): T {
    if (this.generation === '1.8.106' || isDeepStrictEqual(stated, computed)) return stated;
    this.warnings.push(
      `${section.where}: hermes-llm ${this.generation} did not act on ${section.path(key)}, ${JSON.stringify(stated)}; ` +
        `the model is read as it was trained, with ${JSON.stringify(computed)}`,
    );
    return computed;
  }

  private embeddings(section: Section | null): Model['embeddings'] {
    const read = {
      tie_weights: section?.optional('tie_weights', boolean) ?? false,
      dropout: section?.optional('dropout', share) ?? 0,
      scale: section?.optional('scale', positive) ?? null,
    };
    section?.requireAllRead();
    return {
      tie_weights: section ? this.acted(section, 'tie_weights', read.tie_weights, false) : false,
      scale: section ? this.acted(section, 'scale', read.scale, null) : null,
      dropout: section ? this.acted(section, 'dropout', read.dropout, 0) : 0,
      untrained_token: null,
      role_embeddings: null,
      learned_positions: null,
      sinusoidal_positions: false,
      norm: null,
    };
  }

  private output(section: Section | null, blockNorm: Norm | null): Model['output'] {
    const bias = section?.optional('bias', boolean) ?? false;
    const own = section?.optionalSection('norm');
    const norm = own ? this.norm(own) : blockNorm;
    section?.requireAllRead();
    return {
      bias: section ? this.acted(section, 'bias', bias, false) : false,
      norm: section ? this.acted(section, 'norm', norm, blockNorm) : blockNorm,
      softcap: null,
      scale: null,
    };
  }

  private block(section: Section, hidden: number): Block {
    const attentionSection = section.section('attention');
    const ssm = section.optionalSection('ssm');
    const ffnSection = section.section('ffn');
    const dropout = section.required('dropout', share);
    if (section.optional('memory', object) !== null)
      throw fieldError(section.where, section.path('memory'), '{..}', 'a block without memory tiers');
    const eps = section.section('norm').required('eps', number) || DEFAULT_EPS;
    const attention = this.attention(attentionSection, { hidden, dropout, eps });
    const ffn = this.feedForward(ffnSection, hidden, dropout);
    // The first generation had one bias for all of a block.
    const biased = attention.qkv_bias || ffn.bias;
    const norm = this.norm(section.section('norm'), biased);
    const bias = this.acted(attentionSection, 'bias', attention.qkv_bias, biased);
    const block: Block = {
      name: section.required('name', word),
      attention: ssm ? null : { ...attention, qkv_bias: bias, output_bias: bias },
      ssm: ssm && this.stateSpace(ssm, hidden),
      ffn: { ...ffn, bias: this.acted(ffnSection, 'bias', ffn.bias, biased) },
      norm,
      norm_position: section.meaning('norm_position', { Pre: 'pre', Post: 'post' } as const),
      residual: section.required('residual', boolean),
      residual_scale: null,
      parallel: false,
      // The first generation dropped inside both sub-layers what later ones drop from their outputs.
      dropout: this.generation === '1.8.21' ? 0 : dropout,
      origin,
    };
    section.requireAllRead();
    return block;
  }

  private norm(section: Section, biased = true): Norm | null {
    const type = section.meaning('norm_type', { RmsNorm: 'rmsnorm', LayerNorm: 'layernorm', None: null } as const);
    const eps = section.required('eps', number);
    section.requireAllRead();
    const name = this.acted(section, 'norm_type', type, type ?? 'rmsnorm');
    if (name === 'layernorm' && !biased && this.generation === '1.8.21')
      throw fieldError(section.where, section.path('norm_type'), 'LayerNorm', 'a bias in the block that has it');
    return name && { name, constants: { eps: eps || DEFAULT_EPS } };
  }

  private attention(section: Section, block: { hidden: number; dropout: number; eps: number }): Attention {
    const heads = section.optional('num_heads', count) ?? 12;
    const width = section.optional('head_dim', count) ?? block.hidden / heads;
    const bias = section.required('bias', boolean);
    const window = section.optional('window_size', count);
    section.skip('name');
    const attention: Attention = {
      num_heads: heads,
      num_kv_heads: section.optional('num_kv_heads', count) ?? heads,
      head_dim: width,
      value_head_dim: width,
      latent: null,
      qkv_bias: bias,
      output_bias: bias,
      causal: section.required('causal', boolean),
      // hermes-llm masks what is further away than the window: it sees one position more than the window's number.
      window_size: window === null ? null : window + 1,
      dropout: this.acted(section, 'dropout', section.required('dropout', share), block.dropout),
      sinks: false,
      scale: null,
      qk_norm: section.optional('qk_norm', boolean) ? { name: 'rmsnorm', constants: { eps: block.eps } } : null,
      qk_norm_over: 'head',
      output_gate: false,
      position_encoding: this.positions(section, width),
      softcap: null,
      score: null,
      mask: null,
      origin,
    };
    section.requireAllRead();
    return attention;
  }

  private positions(section: Section, dims: number): PositionEncoding {
    const key = 'position_encoding';
    const rope = (theta: number, factor: number | null): PositionEncoding => {
      const scaling = factor === null ? null : ({ kind: 'linear', factor } as const);
      return { kind: 'rope', theta, dims, interleaved: false, scaling };
    };
    if (section.holds(key, 'None')) return this.acted(section, key, { kind: 'none' }, rope(10000, null));
    const kinds = section.section(key);
    const given = kinds.optionalSection('Rope');
    if (!given) {
      const value = section.required(key, object);
      if (this.generation === '1.8.106') throw fieldError(section.where, section.path(key), value, 'Rope or None');
      return this.acted<unknown>(section, key, value, rope(10000, null)) as PositionEncoding;
    }
    const [theta, factor] = [given.required('theta', positive), given.optional('scaling', positive)];
    given.requireAllRead();
    return this.acted(section, key, rope(theta, factor), rope(theta, null));
  }

  private feedForward(section: Section, hidden: number, blockDropout: number): FeedForward {
    section.skip('name');
    const activation = section.meaning('activation', activations);
    const swiglu = section.holds('activation', 'SwiGLU');
    const experts = section.optionalSection('moe');
    const ffn: FeedForward = {
      hidden_dim: section.optional('hidden_dim', count) ?? 4 * hidden,
      activation: this.acted<string>(section, 'activation', activation, swiglu ? 'silu' : 'gelu'),
      gate: section.required('gate', boolean),
      bias: section.required('bias', boolean),
      dropout: this.acted(section, 'dropout', section.required('dropout', share), blockDropout),
      moe: experts && this.experts(experts),
      origin,
    };
    if (ffn.bias && ffn.moe && ffn.moe.shared_experts > 1)
      throw fieldError(section.where, section.path('bias'), true, 'false with more than one shared expert');
    section.requireAllRead();
    return ffn;
  }

  private experts(section: Section): MixtureOfExperts {
    const weight = section.optional('load_balance_loss_weight', number) ?? 0;
    const moe: MixtureOfExperts = {
      experts: section.required('experts', count),
      top_k: section.required('top_k', count),
      shared_experts: section.optional('shared_experts', number) ?? 0,
      router: 'softmax',
      normalize: true,
      scale: 1,
      groups: 1,
      top_groups: 1,
      balance: weight > 0 ? { kind: 'loss', weight } : { kind: 'none' },
      z_loss_weight: section.optional('router_z_loss_weight', number) ?? 0,
      capacity_factor: null,
    };
    section.requireAllRead();
    return moe;
  }

  private stateSpace(section: Section, hidden: number): StateSpace {
    section.skip('name');
    const ssm: StateSpace = {
      state_dim: section.required('state_dim', count),
      conv_kernel: section.required('conv_kernel', count),
      expand: section.required('expand', count),
      dt_rank: section.optional('dt_rank', count) ?? Math.ceil(hidden / 16),
      origin,
    };
    section.requireAllRead();
    return ssm;
  }
}

/** Blocks of one name that differ get numbers. */
function withDistinctNames(blocks: readonly Block[]): Block[] {
  return blocks.map((block, n) => {
    const namesakes = blocks.slice(0, n).filter(({ name }) => name === block.name).length;
    return namesakes === 0 ? block : { ...block, name: `${block.name}_${namesakes + 1}` };
  });
}
