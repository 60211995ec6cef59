// Random small architectures for property tests: every choice that changes the graph.
import fc from 'fast-check';
import type { Block, Model, PositionEncoding, RopeScaling } from '../compiler/check/model.ts';

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
  readonly position: PositionEncoding['kind'];
  readonly headDim: number;
  readonly theta: number;
  readonly partial: boolean;
  readonly interleaved: boolean;
  readonly scaling: RopeScaling | null;
}

function positionOf({ position, headDim, theta, partial, interleaved, scaling }: PositionDraw): PositionEncoding {
  if (position === 'learned') return { kind: 'learned', max_positions: 32 };
  if (position !== 'rope') return { kind: position };
  const dims = partial && headDim >= 6 ? headDim - 2 : headDim;
  // A stretched theta needs more than one pair.
  return { kind: 'rope', theta, dims, interleaved, scaling: dims > 2 ? scaling : null };
}

const block: fc.Arbitrary<Block> = fc
  .record({
    kvHeads: fc.constantFrom(1, 2),
    group: fc.constantFrom(1, 2, 3),
    headDim: fc.constantFrom(2, 4, 6, 10),
    queryBias: fc.boolean(),
    outputBias: fc.boolean(),
    scale: fc.constantFrom(null, null, 0.3),
    outputGate: fc.constantFrom(false, false, true),
    window: fc.constantFrom(null, null, 1, 3, 5),
    qkNorm: fc.option(norm),
    qkNormOver: fc.constantFrom('head' as const, 'all' as const),
    position: fc.constantFrom<PositionEncoding['kind']>(
      'rope',
      'rope',
      'rope',
      'learned',
      'sinusoidal',
      'alibi',
      'none',
    ),
    scoreCap: fc.constantFrom(null, null, 1.5),
    theta: fc.constantFrom(100, 10000),
    partial: fc.boolean(),
    interleaved: fc.boolean(),
    scaling,
    // Not 1: without a residual that leaves a stream of one direction, whose norm has no gradient but rounding errors.
    ffn: fc.constantFrom(3, 7, 24),
    activation: fc.constantFrom('silu', 'gelu', 'gelu_tanh', 'relu', 'relu2', 'tanh', 'mish'),
    gate: fc.boolean(),
    ffnBias: fc.boolean(),
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
  })
  .map(draw => ({
    name: 'layer',
    attention: {
      num_heads: draw.kvHeads * draw.group,
      num_kv_heads: draw.kvHeads,
      head_dim: draw.headDim,
      qkv_bias: draw.queryBias,
      output_bias: draw.outputBias,
      causal: true,
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
    },
    ffn: { hidden_dim: draw.ffn, activation: draw.activation, gate: draw.gate, bias: draw.ffnBias, origin: '' },
    norm: draw.norm,
    norm_position: draw.normPosition,
    residual: draw.residual,
    residual_scale: draw.residualScale,
    // Without a residual, a parallel block's attention would lead nowhere.
    parallel: draw.parallel && draw.residual,
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
        learned_positions: kinds.some(kind => kind.attention.position_encoding.kind === 'learned') ? 32 : null,
        sinusoidal_positions: kinds.some(kind => kind.attention.position_encoding.kind === 'sinusoidal'),
        norm: draw.embeddingNorm,
      },
      blocks: kinds,
      layers: Array.from({ length: draw.layers }, (_, n) => n % kinds.length),
      output: { bias: draw.outputBias, norm: draw.outputNorm, softcap: draw.softcap, scale: draw.outputScale },
      init: { std: 0.02, residual_scale: true },
      formulas: [],
    };
  });
