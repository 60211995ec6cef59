// Exact parameter counts and floating-point operations of a Model, from its dimensions alone.
import type { SyntaxExpression } from '../syntax/syntax.ts';
import type { Attention, Block, FeedForward, Model, Norm } from './model.ts';
import { standardLibrary } from './standard-library.ts';

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
  /** All layers' norms and the output's. */
  readonly norms: number;
  /** The output head's own matrix and bias. */
  readonly head: number;
}

export function countParameters(model: Model): ParameterCount {
  const { hidden_size, vocab_size, embeddings, output } = model;
  const kinds = model.blocks.map(block => countBlock(block, hidden_size));
  const perLayer = model.layers.map(kind => kinds[kind]!.attention + kinds[kind]!.feedForward + kinds[kind]!.norms);
  const allLayers = (part: keyof BlockCount) => sum(model.layers.map(kind => kinds[kind]![part]));
  const outputNorm = countNorm(output.norm, hidden_size);
  const embedding = vocab_size * hidden_size;
  const positions = (embeddings.learned_positions ?? 0) * hidden_size;
  const head = (embeddings.tie_weights ? 0 : vocab_size * hidden_size) + (output.bias ? vocab_size : 0);
  return {
    total: embedding + positions + sum(perLayer) + outputNorm + head,
    embedding,
    positions,
    perLayer,
    attention: allLayers('attention'),
    feedForward: allLayers('feedForward'),
    norms: allLayers('norms') + outputNorm,
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

function countBlock({ attention, ffn, norm }: Block, hidden: number): BlockCount {
  const { num_heads, num_kv_heads, head_dim } = attention;
  const attentionBiases = attention.bias ? (num_heads + 2 * num_kv_heads) * head_dim + hidden : 0;
  const feedForwardBiases = ffn.bias ? (ffn.gate ? 2 : 1) * ffn.hidden_dim + hidden : 0;
  // One norm for the queries of all heads and one for their keys.
  const headNorms = 2 * countNorm(attention.qk_norm, head_dim);
  return {
    attention: attentionWeights(attention, hidden) + attentionBiases + headNorms,
    feedForward: feedForwardWeights(ffn, hidden) + feedForwardBiases,
    norms: 2 * countNorm(norm, hidden),
  };
}

/** q and o are [heads * head_dim, hidden] and its transpose, k and v [kv_heads * head_dim, hidden]. */
function attentionWeights({ num_heads, num_kv_heads, head_dim }: Attention, hidden: number): number {
  return 2 * (num_heads + num_kv_heads) * head_dim * hidden;
}

/** up, gate and down. */
function feedForwardWeights({ hidden_dim, gate }: FeedForward, hidden: number): number {
  return (gate ? 3 : 2) * hidden_dim * hidden;
}

/** A norm trains what its formula names: weight and bias for each element, a learned constant once. */
function countNorm(norm: Norm | null, width: number): number {
  if (norm === null) return 0;
  const formula = standardLibrary().get(norm.name)!;
  const vectors = ['weight', 'bias'].filter(name => mentions(formula.body, name));
  return vectors.length * width + formula.constants.filter(constant => constant.learned).length;
}

function mentions(expression: SyntaxExpression, name: string): boolean {
  switch (expression.kind) {
    case 'number':
      return false;
    case 'name':
      return expression.name === name;
    case 'unary':
      return mentions(expression.operand, name);
    case 'binary':
      return mentions(expression.left, name) || mentions(expression.right, name);
    case 'select':
      return [expression.condition, expression.whenTrue, expression.whenFalse].some(part => mentions(part, name));
    case 'call':
      return expression.args.some(argument => mentions(argument, name));
  }
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
