// Exact parameter counts of a Model, from its dimensions alone: all, those of each part, those that one token uses.
import { namesIn } from './formula.ts';
import type { FormulaLibrary } from './formula-library.ts';
import type { Attention, Block, FeedForward, Latent, Model, Norm, StateSpace } from './model.ts';
import { formulaLibrary } from './standard-library.ts';

/** Numbers of trained parameters. The parts, which are all but `active` and `perLayer`, add up to the total. */
export interface ParameterCount {
  readonly total: number;
  /** Those that a generated token passes: all but the experts that are not chosen for it and what only training uses. */
  readonly active: number;
  /** The token embedding; where it is tied it is the output head's matrix too, and counted here alone. */
  readonly embedding: number;
  /** The table of learned positions. */
  readonly positions: number;
  /** The vectors of message roles. */
  readonly roles: number;
  /** For each layer, all of its parameters. */
  readonly perLayer: readonly number[];
  /** All layers' attention projections, with the norms, biases, slopes and sinks of their heads. */
  readonly attention: number;
  /** All layers' state-space models, with their convolutions and projections. */
  readonly stateSpace: number;
  /** All layers' feed-forward networks that every token passes: those without experts, and shared experts. */
  readonly feedForward: number;
  /** All layers' experts of which a router chooses. */
  readonly experts: number;
  readonly router: number;
  /** All layers' norms, the embedding's and the output's. */
  readonly norms: number;
  /** The modules that predict further tokens in training. */
  readonly mtp: number;
  /** The output head's own matrix and bias. */
  readonly head: number;
}

export function countParameters(model: Model): ParameterCount {
  const { hidden_size, vocab_size, embeddings, output, mtp } = model;
  const library = formulaLibrary(model);
  const kinds = model.blocks.map(block => countBlock(block, hidden_size, library));
  const totals = kinds.map(blockTotal);
  const perLayer = model.layers.map(kind => totals[kind]!);
  const layersOf = kinds.map(() => 0);
  for (const kind of model.layers) layersOf[kind]!++;
  const allLayers = (part: keyof BlockCount) => sum(kinds.map((count, kind) => layersOf[kind]! * count[part]));
  const outputNorm = countNorm(output.norm, hidden_size, library);
  const outerNorms = countNorm(embeddings.norm, hidden_size, library) + outputNorm;
  // Norms of the stream, of the further token and of the result; a matrix for each of the first two; the last layer's block.
  const module = 3 * outputNorm + 2 * hidden_size ** 2 + perLayer.at(-1)!;
  const parts = {
    embedding: vocab_size * hidden_size,
    positions: (embeddings.learned_positions ?? 0) * hidden_size,
    roles: (embeddings.role_embeddings ?? 0) * hidden_size,
    attention: allLayers('attention'),
    stateSpace: allLayers('stateSpace'),
    feedForward: allLayers('feedForward'),
    experts: allLayers('experts'),
    router: allLayers('router'),
    norms: allLayers('norms') + outerNorms,
    mtp: (mtp?.depth ?? 0) * module,
    head: (embeddings.tie_weights ? 0 : vocab_size * hidden_size) + (output.bias ? vocab_size : 0),
  };
  const total = sum(Object.values(parts));
  return { total, active: total - parts.mtp - allLayers('idle'), ...parts, perLayer };
}

interface BlockCount {
  readonly attention: number;
  readonly stateSpace: number;
  readonly feedForward: number;
  readonly experts: number;
  /** Of `experts`, those that a token does not use. */
  readonly idle: number;
  readonly router: number;
  readonly norms: number;
}

const blockTotal = ({ attention, stateSpace, feedForward, experts, router, norms }: BlockCount) =>
  attention + stateSpace + feedForward + experts + router + norms;

function countBlock(block: Block, hidden: number, library: FormulaLibrary): BlockCount {
  const { attention, ssm, ffn, norm, norm_position } = block;
  const moe = ffn?.moe ?? null;
  const oneExpert = ffn ? countNetwork(ffn, ffn.hidden_dim, hidden) : 0;
  const shared = ffn && moe && moe.shared_experts > 0 ? moe.shared_experts * ffn.hidden_dim : null;
  // Each sub-layer has one, or one on each side.
  const norms = (ffn ? 2 : 1) * (norm_position === 'sandwich' ? 2 : 1);
  return {
    attention: attention ? countAttention(attention, hidden, library) : 0,
    stateSpace: ssm ? countStateSpace(ssm, hidden) : 0,
    feedForward: moe ? (shared ? countNetwork(ffn!, shared, hidden) : 0) : oneExpert,
    experts: (moe?.experts ?? 0) * oneExpert,
    idle: moe ? (moe.experts - moe.top_k) * oneExpert : 0,
    router: moe ? moe.experts * (hidden + (moe.balance.kind === 'aux_free' ? 1 : 0)) : 0,
    norms: norms * countNorm(norm, hidden, library),
  };
}

function countAttention(attention: Attention, hidden: number, library: FormulaLibrary): number {
  const { num_heads, num_kv_heads, head_dim, latent, qk_norm, position_encoding } = attention;
  const projected = (num_heads + 2 * num_kv_heads) * head_dim;
  const biases = (attention.qkv_bias ? projected : 0) + (attention.output_bias ? hidden : 0);
  // One norm for the queries and one for the keys, shared by all heads or as wide as they are together.
  const [queryWidth, keyWidth] =
    attention.qk_norm_over === 'all' ? [num_heads * head_dim, num_kv_heads * head_dim] : [head_dim, head_dim];
  const headNorms = countNorm(qk_norm, queryWidth, library) + countNorm(qk_norm, keyWidth, library);
  const slopes = position_encoding.kind === 'alibi' && position_encoding.slopes === 'learned' ? num_heads : 0;
  return (
    attentionMatrices(attention, hidden) +
    biases +
    headNorms +
    (latent ? countLatentNorms(latent, library) : 0) +
    (attention.sinks ? num_heads : 0) +
    slopes
  );
}

const countLatentNorms = ({ norm, query_dim, key_value_dim }: Latent, library: FormulaLibrary) =>
  countNorm(norm, key_value_dim, library) + (query_dim === null ? 0 : countNorm(norm, query_dim, library));

/**
 * Elements of the matrices that attention multiplies each token by. q and the output's gate are [heads * head_dim, hidden],
 * k and v as wide as theirs, o a transpose; or queries, keys and values come through their latents.
 */
export function attentionMatrices(attention: Attention, hidden: number): number {
  const { num_heads, num_kv_heads, head_dim, value_head_dim, latent, output_gate } = attention;
  const outputs = (output_gate ? 2 : 1) * num_heads * value_head_dim * hidden;
  const queryWidth = num_heads * head_dim;
  if (latent === null) return (queryWidth + num_kv_heads * (head_dim + value_head_dim)) * hidden + outputs;
  const { query_dim, key_value_dim, nope_head_dim } = latent;
  const queries = query_dim === null ? queryWidth * hidden : query_dim * (hidden + queryWidth);
  const turned = (head_dim - nope_head_dim) * hidden;
  const keysAndValues = key_value_dim * (hidden + num_heads * (nope_head_dim + value_head_dim));
  return queries + turned + keysAndValues + outputs;
}

/** The matrices; the convolution and its bias; the bias of the step sizes; A and D. */
function countStateSpace(ssm: StateSpace, hidden: number): number {
  const channels = ssm.expand * hidden;
  return stateSpaceMatrices(ssm, hidden) + channels * (ssm.conv_kernel + 1 + 1 + ssm.state_dim + 1);
}

/** Elements of the matrices in, in for the gate and out; of those of step sizes, b and c. */
export function stateSpaceMatrices({ expand, state_dim, dt_rank }: StateSpace, hidden: number): number {
  return expand * hidden * (3 * hidden + 2 * dt_rank + 2 * state_dim);
}

/** A network of some width: its matrices and its biases. */
function countNetwork(ffn: FeedForward, width: number, hidden: number): number {
  const biases = ffn.bias ? (ffn.gate ? 2 : 1) * width + hidden : 0;
  return (ffn.gate ? 3 : 2) * width * hidden + biases;
}

/** Elements of the matrices that a feed-forward network multiplies each token by: up, gate and down, or the router's choice. */
export function feedForwardMatrices({ gate, hidden_dim, moe }: FeedForward, hidden: number): number {
  const networks = moe ? moe.top_k + moe.shared_experts : 1;
  return networks * (gate ? 3 : 2) * hidden_dim * hidden + (moe?.experts ?? 0) * hidden;
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
