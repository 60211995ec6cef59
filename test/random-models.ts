// Random small architectures for property tests: every choice that changes the graph; and wide ones, for programs of bfloat16.
import fc from 'fast-check';
import type {
  Attention,
  Balance,
  Block,
  FeedForward,
  MixtureOfExperts,
  Model,
  PositionEncoding,
  RopeScaling,
  StateSpace,
} from '../compiler/check/model.ts';

const norm = fc.constantFrom(
  { name: 'rmsnorm', constants: { eps: 1e-5 } },
  { name: 'layernorm', constants: { eps: 1e-5 } },
);

const scaling: fc.Arbitrary<RopeScaling | null> = fc.constantFrom<RopeScaling | null>(
  null,
  null,
  { kind: 'linear', factor: 2 },
  { kind: 'ntk', factor: 3 },
  { kind: 'llama3', factor: 4, low_freq_factor: 1, high_freq_factor: 3, original_max_positions: 16 },
  { kind: 'yarn', factor: 4, original_max_positions: 16, beta_fast: 4, beta_slow: 1, attention_factor: null },
);

interface PositionDraw {
  readonly position: PositionEncoding['kind'] | 'alibi_learned';
  readonly headDim: number;
  readonly theta: number;
  readonly partial: boolean;
  readonly interleaved: boolean;
  readonly scaling: RopeScaling | null;
}

function positionOf({ position, headDim, theta, partial, interleaved, scaling }: PositionDraw): PositionEncoding {
  switch (position) {
    case 'learned':
      return { kind: 'learned', max_positions: 32 };
    case 'alibi':
    case 'alibi_learned':
      return { kind: 'alibi', slopes: position === 'alibi' ? 'fixed' : 'learned' };
    case 'rope': {
      const dims = partial && headDim >= 6 ? headDim - 2 : headDim;
      // A stretched theta needs more than one pair.
      return { kind: 'rope', theta, dims, interleaved, scaling: dims > 2 ? scaling : null };
    }
    default:
      return { kind: position };
  }
}

const dropout = fc.constantFrom(0, 0, 0.25);

const positions = fc.constantFrom<PositionDraw['position']>(
  'rope',
  'rope',
  'rope',
  'learned',
  'sinusoidal',
  'alibi',
  'alibi_learned',
  'none',
);

/** Heads of any shape with projections of their own. */
const plainAttention: fc.Arbitrary<Attention> = fc
  .record({
    kvHeads: fc.constantFrom(1, 2),
    group: fc.constantFrom(1, 2, 3),
    headDim: fc.constantFrom(2, 4, 6, 10),
    queryBias: fc.boolean(),
    outputBias: fc.boolean(),
    dropout,
    sinks: fc.constantFrom(false, false, true),
    scale: fc.constantFrom(null, null, 0.3),
    outputGate: fc.constantFrom(false, false, true),
    window: fc.constantFrom(null, null, 1, 3, 5),
    qkNorm: fc.option(norm),
    qkNormOver: fc.constantFrom('head' as const, 'all' as const),
    position: positions,
    scoreCap: fc.constantFrom(null, null, 1.5),
    theta: fc.constantFrom(100, 10000),
    partial: fc.boolean(),
    interleaved: fc.boolean(),
    scaling,
  })
  .map(draw => ({
    num_heads: draw.kvHeads * draw.group,
    num_kv_heads: draw.kvHeads,
    head_dim: draw.headDim,
    value_head_dim: draw.headDim,
    latent: null,
    qkv_bias: draw.queryBias,
    output_bias: draw.outputBias,
    causal: true,
    dropout: draw.dropout,
    sinks: draw.sinks,
    window_size: draw.window,
    scale: draw.scale,
    qk_norm: draw.qkNorm,
    qk_norm_over: draw.qkNormOver,
    output_gate: draw.outputGate,
    position_encoding: positionOf(draw),
    softcap: draw.scoreCap,
    score: null,
    mask: null,
    origin: '',
  }));

/** Heads out of latents, their widths all different, with and without rotary positions. */
const latentAttention: fc.Arbitrary<Attention> = fc
  .record({
    plain: plainAttention,
    heads: fc.constantFrom(1, 2, 3),
    query: fc.constantFrom(null, 7),
    latent: fc.constantFrom(5, 12),
    nope: fc.constantFrom(3, 6),
    rope: fc.constantFrom(0, 2, 4),
    value: fc.constantFrom(4, 7),
    norm: fc.option(norm),
    theta: fc.constantFrom(100, 10000),
    interleaved: fc.boolean(),
    scaling,
  })
  .map(({ plain, heads, nope, rope, theta, interleaved, ...draw }) => ({
    ...plain,
    num_heads: heads,
    num_kv_heads: heads,
    head_dim: nope + rope,
    value_head_dim: draw.value,
    latent: { query_dim: draw.query, key_value_dim: draw.latent, nope_head_dim: nope, norm: draw.norm },
    qkv_bias: false,
    qk_norm: null,
    position_encoding:
      rope === 0
        ? { kind: 'none' as const }
        : { kind: 'rope' as const, theta, dims: rope, interleaved, scaling: rope > 2 ? draw.scaling : null },
  }));

const stateSpace: fc.Arbitrary<StateSpace> = fc
  .record({
    state_dim: fc.constantFrom(1, 3, 16),
    conv_kernel: fc.constantFrom(1, 2, 4),
    expand: fc.constantFrom(1, 2),
    dt_rank: fc.constantFrom(1, 3),
  })
  .map(draw => ({ ...draw, origin: '' }));

const balance: fc.Arbitrary<Balance> = fc.constantFrom<Balance>(
  { kind: 'none' },
  { kind: 'loss', weight: 0.1 },
  { kind: 'aux_free', rate: 0.01 },
);

const experts: fc.Arbitrary<MixtureOfExperts> = fc
  .record({
    size: fc.constantFrom(2, 3, 4),
    groups: fc.constantFrom(1, 1, 2, 3),
    shared: fc.constantFrom(0, 0, 1, 2),
    router: fc.constantFrom('softmax' as const, 'sigmoid' as const),
    normalize: fc.boolean(),
    scale: fc.constantFrom(1, 2.5),
    balance,
    zLoss: fc.constantFrom(0, 0, 0.05),
    capacity: fc.constantFrom(null, null, 0.8),
  })
  .map(({ size, groups, ...draw }) => ({
    experts: size * groups,
    top_k: Math.min(2, size * groups),
    shared_experts: draw.shared,
    router: draw.router,
    normalize: draw.normalize,
    scale: draw.scale,
    groups,
    top_groups: Math.max(1, groups - 1),
    balance: draw.balance,
    z_loss_weight: draw.zLoss,
    capacity_factor: draw.capacity,
  }));

const feedForward: fc.Arbitrary<FeedForward> = fc
  .record({
    // Not 1: without a residual that leaves a stream of one direction, whose norm has no gradient but rounding errors.
    width: fc.constantFrom(3, 7, 24),
    activation: fc.constantFrom('silu', 'gelu', 'gelu_tanh', 'relu', 'relu2', 'tanh', 'mish'),
    gate: fc.boolean(),
    bias: fc.boolean(),
    dropout,
    moe: fc.option(experts, { freq: 2 }),
  })
  .map(({ width, ...draw }) => ({ ...draw, hidden_dim: width, origin: '' }));

const block: fc.Arbitrary<Block> = fc
  .record({
    mixer: fc.oneof(
      { arbitrary: plainAttention.map(attention => ({ attention, ssm: null })), weight: 4 },
      { arbitrary: latentAttention.map(attention => ({ attention, ssm: null })), weight: 2 },
      { arbitrary: stateSpace.map(ssm => ({ attention: null, ssm })), weight: 2 },
    ),
    ffn: fc.option(feedForward, { freq: 8 }),
    norm: fc.option(norm),
    normPosition: fc.constantFrom(
      'pre' as const,
      'pre' as const,
      'post' as const,
      'output' as const,
      'sandwich' as const,
    ),
    residual: fc.constantFrom(true, true, true, false),
    residualScale: fc.constantFrom(null, null, 0.5),
    parallel: fc.constantFrom(false, false, true),
    dropout,
  })
  .map(draw => ({
    name: 'layer',
    ...draw.mixer,
    ffn: draw.ffn,
    norm: draw.norm,
    norm_position: draw.normPosition,
    residual: draw.residual,
    residual_scale: draw.residualScale,
    // Without a residual, a parallel block's attention would lead nowhere.
    parallel: draw.parallel && draw.residual,
    dropout: draw.dropout,
    origin: '',
  }));

/** A model of one to three layers and one or two kinds of block, small enough for the float64 oracle. */
export const randomModel: fc.Arbitrary<Model> = fc
  .record({
    blocks: fc.array(block, { minLength: 1, maxLength: 2 }),
    hidden: fc.constantFrom(8, 12, 20),
    vocabulary: fc.constantFrom(11, 32, 37),
    layers: fc.integer({ min: 1, max: 3 }),
    tied: fc.boolean(),
    scale: fc.constantFrom(null, 3),
    outputBias: fc.boolean(),
    outputNorm: fc.option(norm),
    outputScale: fc.constantFrom(null, null, 0.7),
    softcap: fc.constantFrom(null, null, 5),
    embeddingNorm: fc.option(norm, { freq: 3 }),
    dropout,
    roles: fc.constantFrom(null, null, null, 3),
    modules: fc.constantFrom(0, 0, 0, 1, 2),
  })
  .map(draw => {
    const kinds = draw.blocks.slice(0, draw.layers).map((kind, n) => ({ ...kind, name: `layer_${n}` }));
    return {
      name: 'random',
      description: '',
      vocab_size: draw.vocabulary,
      max_seq_len: 32,
      hidden_size: draw.hidden,
      embeddings: {
        tie_weights: draw.tied,
        scale: draw.scale,
        dropout: draw.dropout,
        untrained_token: null,
        role_embeddings: draw.roles,
        learned_positions: kinds.some(kind => kind.attention?.position_encoding.kind === 'learned') ? 32 : null,
        sinusoidal_positions: kinds.some(kind => kind.attention?.position_encoding.kind === 'sinusoidal'),
        norm: draw.embeddingNorm,
      },
      blocks: kinds,
      layers: Array.from({ length: draw.layers }, (_, n) => n % kinds.length),
      output: { bias: draw.outputBias, norm: draw.outputNorm, softcap: draw.softcap, scale: draw.outputScale },
      init: { std: 0.02, residual_scale: true },
      mtp: draw.modules === 0 ? null : { depth: draw.modules, weight: 0.3 },
      formulas: [],
    };
  });

/** The same attention with all its widths so many times as large. */
function widerAttention(attention: Attention, times: number): Attention {
  const { position_encoding: position, latent } = attention;
  return {
    ...attention,
    head_dim: times * attention.head_dim,
    value_head_dim: times * attention.value_head_dim,
    latent: latent && {
      ...latent,
      query_dim: latent.query_dim && times * latent.query_dim,
      key_value_dim: times * latent.key_value_dim,
      nope_head_dim: times * latent.nope_head_dim,
    },
    scale: null,
    qk_norm: null,
    position_encoding: position.kind === 'rope' ? { ...position, dims: times * position.dims } : position,
  };
}

/**
 * Models of up to two layers whose rows are wide enough to be stored as bfloat16 (plan/storage.ts), and in which rounding is
 * not amplified beyond any tolerance: no choice of experts that it may turn, a residual, no norms or factors that make
 * scores steep.
 */
export const wideModel: fc.Arbitrary<Model> = randomModel.map(model => ({
  ...model,
  name: 'wide',
  hidden_size: 4 * Math.min(12, model.hidden_size),
  embeddings: { ...model.embeddings, scale: null },
  blocks: model.blocks.map(block => ({
    ...block,
    attention: block.attention && widerAttention(block.attention, 4),
    ffn: block.ffn && { ...block.ffn, hidden_dim: 32 + block.ffn.hidden_dim, moe: null },
    residual: true,
  })),
  layers: model.layers.slice(0, 2),
  mtp: null,
}));
