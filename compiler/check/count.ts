// Exact parameter counts and floating-point operations of a Model, from its dimensions alone.
import { namesIn } from './formula.ts';
import type { FormulaLibrary } from './formula-library.ts';
import type { Attention, Block, FeedForward, Model, Norm } from './model.ts';
import { formulaLibrary } from './standard-library.ts';

/** Numbers of trained parameters. The parts add up to the total. */
export interface ParameterCount {
  readonly total: number;
  /** The token embedding; where it is tied it is the output head's matrix too, and counted here alone. */
  readonly embedding: number;
  /** The table of learned positions. */
  readonly positions: number;
  /** For each layer, all of its parameters. */
  readonly perLayer: readonly number[];
  /** All layers' attention projections, with their q and k norms. */
  readonly attention: number;
  /** All layers' feed-forward networks. */
  readonly feedForward: number;
  /** All layers' norms, the embedding's and the output's. */
  readonly norms: number;
  /** The output head's own matrix and bias. */
  readonly head: number;
}

export function countParameters(model: Model): ParameterCount {
  const { hidden_size, vocab_size, embeddings, output } = model;
  const library = formulaLibrary(model);
  const kinds = model.blocks.map(block => countBlock(block, hidden_size, library));
  const perLayer = model.layers.map(kind => kinds[kind]!.attention + kinds[kind]!.feedForward + kinds[kind]!.norms);
  const allLayers = (part: keyof BlockCount) => sum(model.layers.map(kind => kinds[kind]![part]));
  const outerNorms = countNorm(embeddings.norm, hidden_size, library) + countNorm(output.norm, hidden_size, library);
  const embedding = vocab_size * hidden_size;
  const positions = (embeddings.learned_positions ?? 0) * hidden_size;
  const head = (embeddings.tie_weights ? 0 : vocab_size * hidden_size) + (output.bias ? vocab_size : 0);
  return {
    total: embedding + positions + sum(perLayer) + outerNorms + head,
    embedding,
    positions,
    perLayer,
    attention: allLayers('attention'),
    feedForward: allLayers('feedForward'),
    norms: allLayers('norms') + outerNorms,
    head,
  };
}

/**
 * Floating-point operations for one trained token, forward and backward, in sequences of `time` tokens: 6 N + 12 L H Q T
 * (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B), N being the weights of matrix products, the output head's
 * included and the embedding's look-up not, and H Q the width of all heads. A window shortens T in its layers. As there,
 * the half of the scores that a causal mask removes is counted, and norms and activations are not.
 */
export function flopsPerToken(model: Model, time: number): number {
  const perKind = model.blocks.map(({ attention, ffn }) => {
    const reach = Math.min(time, attention.window_size ?? time);
    const weights = attentionWeights(attention, model.hidden_size) + feedForwardWeights(ffn, model.hidden_size);
    return 6 * weights + 12 * attention.num_heads * attention.head_dim * reach;
  });
  return sum(model.layers.map(kind => perKind[kind]!)) + 6 * model.vocab_size * model.hidden_size;
}

/** Bytes of what training keeps for each parameter: float32 weight, gradient and two moments. Activations are not in it. */
export function trainingStateBytes(model: Model): number {
  return countParameters(model).total * 4 * Float32Array.BYTES_PER_ELEMENT;
}

interface BlockCount {
  readonly attention: number;
  readonly feedForward: number;
  readonly norms: number;
}

function countBlock(
  { attention, ffn, norm, norm_position }: Block,
  hidden: number,
  library: FormulaLibrary,
): BlockCount {
  const { num_heads, num_kv_heads, head_dim, qk_norm } = attention;
  const projected = (num_heads + 2 * num_kv_heads) * head_dim;
  const attentionBiases = (attention.qkv_bias ? projected : 0) + (attention.output_bias ? hidden : 0);
  const feedForwardBiases = ffn.bias ? (ffn.gate ? 2 : 1) * ffn.hidden_dim + hidden : 0;
  // One norm for the queries and one for the keys, shared by all heads or as wide as they are together.
  const [queryWidth, keyWidth] =
    attention.qk_norm_over === 'all' ? [num_heads * head_dim, num_kv_heads * head_dim] : [head_dim, head_dim];
  const headNorms = countNorm(qk_norm, queryWidth, library) + countNorm(qk_norm, keyWidth, library);
  // Each of the two sub-layers has one, or one on each side.
  const norms = norm_position === 'sandwich' ? 4 : 2;
  return {
    attention: attentionWeights(attention, hidden) + attentionBiases + headNorms,
    feedForward: feedForwardWeights(ffn, hidden) + feedForwardBiases,
    norms: norms * countNorm(norm, hidden, library),
  };
}

/** q and o are [heads * head_dim, hidden] and its transpose, k and v [kv_heads * head_dim, hidden], the gate is as q. */
function attentionWeights({ num_heads, num_kv_heads, head_dim, output_gate }: Attention, hidden: number): number {
  return ((output_gate ? 3 : 2) * num_heads + 2 * num_kv_heads) * head_dim * hidden;
}

/** up, gate and down. */
function feedForwardWeights({ hidden_dim, gate }: FeedForward, hidden: number): number {
  return (gate ? 3 : 2) * hidden_dim * hidden;
}

/** A norm trains what its formula names: weight and bias for each element, any other learned constant once. */
function countNorm(norm: Norm | null, width: number, library: FormulaLibrary): number {
  if (norm === null) return 0;
  const formula = library.get(norm.name)!;
  const names = namesIn(formula.body);
  const vectors = ['weight', 'bias'];
  const scalars = formula.constants.filter(({ name, learned }) => learned && !vectors.includes(name));
  return vectors.filter(name => names.has(name)).length * width + scalars.length;
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
