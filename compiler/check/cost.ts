// What a Model costs, from its dimensions alone: floating-point operations of training, bytes that generating keeps. All
// numbers are kept in float32.
import { attentionMatrices, feedForwardMatrices, stateSpaceMatrices } from './count.ts';
import type { Attention, Block, Model, StateSpace } from './model.ts';

/**
 * Floating-point operations for one trained token, forward and backward, in sequences of `time` tokens: 6 N + 12 L H Q T
 * (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B), N being the weights of matrix products, the output head's
 * included and the embedding's look-up not, and H Q the width of all heads. Of experts those count that are chosen. A
 * window shortens T in its layers; a scan does the same work for every token. As there, the half of the scores that a
 * causal mask removes is counted, and norms and activations are not.
 */
export function flopsPerToken(model: Model, time: number): number {
  const { blocks, layers, hidden_size, vocab_size, mtp } = model;
  const perKind = blocks.map(block => blockFlops(block, hidden_size, time));
  const head = 6 * vocab_size * hidden_size;
  const modules = (mtp?.depth ?? 0) * (perKind[layers.at(-1)!]! + 6 * 2 * hidden_size ** 2 + head);
  return layers.reduce((total, kind) => total + perKind[kind]!, head + modules);
}

function blockFlops({ attention, ssm, ffn }: Block, hidden: number, time: number): number {
  const weights =
    (attention ? attentionMatrices(attention, hidden) : 0) +
    (ssm ? stateSpaceMatrices(ssm, hidden) : 0) +
    (ffn ? feedForwardMatrices(ffn, hidden) : 0);
  return 6 * weights + (attention ? scoreFlops(attention, time) : 0) + (ssm ? scanFlops(ssm, hidden) : 0);
}

/** Scores of queries with keys, and the sums of values by them. */
function scoreFlops({ num_heads, head_dim, value_head_dim, window_size }: Attention, time: number): number {
  return 6 * num_heads * (head_dim + value_head_dim) * Math.min(time, window_size ?? time);
}

/**
 * Of each channel's state, h = exp(delta a) h + (delta x) b and y = sum of c h: 7 operations for each number, and twice
 * as many for their gradients. The convolution is a product with its kernel.
 */
function scanFlops({ expand, state_dim, conv_kernel }: StateSpace, hidden: number): number {
  return expand * hidden * (3 * 7 * state_dim + 6 * conv_kernel);
}

/** Bytes that one generated text keeps of its tokens. */
export interface CacheSize {
  /** For each token: keys and values, or the latent that they are made of, of layers that look back without end. */
  readonly perToken: number;
  /** However long the text is: full windows of keys and values, and the states of state-space models. */
  readonly constant: number;
}

export function cacheSize({ blocks, layers, hidden_size, max_seq_len }: Model): CacheSize {
  let perToken = 0;
  let constant = 0;
  for (const { attention, ssm } of layers.map(kind => blocks[kind]!)) {
    if (ssm) constant += ssm.expand * hidden_size * (ssm.state_dim + ssm.conv_kernel - 1);
    if (!attention) continue;
    const { window_size: window } = attention;
    if (window !== null && window < max_seq_len) constant += window * cachedNumbers(attention);
    else perToken += cachedNumbers(attention);
  }
  return { perToken: perToken * bytesPerNumber, constant: constant * bytesPerNumber };
}

/** Numbers that a layer keeps of one token. */
function cachedNumbers({ latent, num_kv_heads, head_dim, value_head_dim }: Attention): number {
  if (latent === null) return num_kv_heads * (head_dim + value_head_dim);
  // The elements of a key that turn are one for all heads.
  return latent.key_value_dim + (head_dim - latent.nope_head_dim);
}

const bytesPerNumber = Float32Array.BYTES_PER_ELEMENT;
