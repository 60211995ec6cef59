// Random small architectures for property tests: every choice that changes the graph.
import fc from 'fast-check';
import type { Block, Model } from '../compiler/check/model.ts';

const norm = fc.constantFrom(
  { name: 'rmsnorm', constants: { eps: 1e-5 } },
  { name: 'layernorm', constants: { eps: 1e-5 } },
);

const block: fc.Arbitrary<Block> = fc
  .record({
    kvHeads: fc.constantFrom(1, 2),
    group: fc.constantFrom(1, 2, 3),
    headDim: fc.constantFrom(2, 4, 6, 10),
    attentionBias: fc.boolean(),
    window: fc.constantFrom(null, null, 1, 3, 5),
    qkNorm: fc.option(norm),
    position: fc.constantFrom('rope', 'rope', 'learned', 'none'),
    theta: fc.constantFrom(100, 10000),
    scaling: fc.constantFrom(null, 2),
    // Not 1: without a residual that leaves a stream of one direction, whose norm has no gradient but rounding errors.
    ffn: fc.constantFrom(3, 7, 24),
    activation: fc.constantFrom('silu', 'gelu', 'gelu_tanh', 'relu', 'relu2', 'tanh', 'mish'),
    gate: fc.boolean(),
    ffnBias: fc.boolean(),
    norm: fc.option(norm),
    normPosition: fc.constantFrom('pre' as const, 'post' as const),
    residual: fc.constantFrom(true, true, true, false),
  })
  .map(draw => ({
    name: 'layer',
    attention: {
      num_heads: draw.kvHeads * draw.group,
      num_kv_heads: draw.kvHeads,
      head_dim: draw.headDim,
      bias: draw.attentionBias,
      causal: true,
      window_size: draw.window,
      qk_norm: draw.qkNorm,
      position_encoding:
        draw.position === 'rope'
          ? { kind: 'rope' as const, theta: draw.theta, scaling: draw.scaling }
          : draw.position === 'learned'
            ? { kind: 'learned' as const, max_positions: 32 }
            : { kind: 'none' as const },
      origin: '',
    },
    ffn: { hidden_dim: draw.ffn, activation: draw.activation, gate: draw.gate, bias: draw.ffnBias, origin: '' },
    norm: draw.norm,
    norm_position: draw.normPosition,
    residual: draw.residual,
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
      },
      blocks: kinds,
      layers: Array.from({ length: draw.layers }, (_, n) => n % kinds.length),
      output: { bias: draw.outputBias, norm: draw.outputNorm },
    };
  });
