// The Model: a checked architecture as plain JSON. Names are resolved, defaults filled, every number known.
// Everything that reads or writes an architecture (MAL, config.json, Hugging Face) meets here.

export interface Model {
  readonly name: string;
  readonly description: string;
  readonly vocab_size: number;
  readonly max_seq_len: number;
  readonly hidden_size: number;
  readonly embeddings: Embeddings;
  /** The distinct block kinds, in the order of their first use. */
  readonly blocks: readonly Block[];
  /** For each layer, the index of its block kind; its length is the number of layers. */
  readonly layers: readonly number[];
  readonly output: Output;
  readonly init: Initialisation;
  /** Modules in training that predict tokens further ahead; null for none. */
  readonly mtp: MultiTokenPrediction | null;
  /** The file's own activations and norms that the model uses, as MAL text; those of mal/std are not among them. */
  readonly formulas: readonly string[];
}

export interface Embeddings {
  readonly tie_weights: boolean;
  /** Factor on the embedded token, or null for none. */
  readonly scale: number | null;
  /** Share of the embedded stream's elements that training drops, in [0, 1). */
  readonly dropout: number;
  /** A token, such as that of padding, whose row gets no gradient where it is read; null for none. */
  readonly untrained_token: number | null;
  /** Learned vectors added to the tokens of each message role; null for none. */
  readonly role_embeddings: number | null;
  /** Rows of the learned position table, or null where no attention asks for `learned {}`. */
  readonly learned_positions: number | null;
  /** True where an attention asks for `sinusoidal`: fixed sines and cosines are added to the embedded token. */
  readonly sinusoidal_positions: boolean;
  /** Applied to the embedded token, positions included. */
  readonly norm: Norm | null;
}

export interface Output {
  readonly bias: boolean;
  readonly norm: Norm | null;
  /** Logits become softcap * tanh(logits / softcap); null for none. */
  readonly softcap: number | null;
  /** Factor on the logits, before the soft-cap; null for none. */
  readonly scale: number | null;
}

export interface Initialisation {
  /** Standard deviation of initial weights. */
  readonly std: number;
  /** Whether projections into the residual stream start smaller by sqrt(2 * layers), as GPT-2's do. */
  readonly residual_scale: boolean;
}

/**
 * Multi-token prediction (DeepSeek-V3, arXiv:2412.19437, section 2.2): module k joins the stream with the embedding of the
 * token k ahead, runs a block of the last layer's kind, and predicts the token k + 1 ahead by the model's own head.
 */
export interface MultiTokenPrediction {
  readonly depth: number;
  /** Factor on the mean of the modules' losses, which is added to the loss. */
  readonly weight: number;
}

export interface Block {
  readonly name: string;
  /** What mixes positions: exactly one of `attention` and `ssm` is not null. */
  readonly attention: Attention | null;
  readonly ssm: StateSpace | null;
  /** Null for none, as in Mamba. */
  readonly ffn: FeedForward | null;
  readonly norm: Norm | null;
  /** x + f(norm(x)), norm(x + f(x)), x + norm(f(x)), x + norm(f(norm(x))). */
  readonly norm_position: 'pre' | 'post' | 'output' | 'sandwich';
  readonly residual: boolean;
  /** Factor on f(x) before it is added to the residual stream; null for none. */
  readonly residual_scale: number | null;
  /** Whether attention and feed-forward read the same input: x + attention(norm(x)) + ffn(norm(x)). */
  readonly parallel: boolean;
  /** Share of each sub-layer's output that training drops, in [0, 1). */
  readonly dropout: number;
  /** Where it was written, as `file:line`, for comments in generated source; '' for a default. */
  readonly origin: string;
}

export interface Attention {
  readonly num_heads: number;
  readonly num_kv_heads: number;
  /** Elements of a head's query and key. */
  readonly head_dim: number;
  /** Elements of a head's value: head_dim, except with a latent. */
  readonly value_head_dim: number;
  /** How queries, keys and values come out of narrower latents (multi-head latent attention); null for plain projections. */
  readonly latent: Latent | null;
  readonly qkv_bias: boolean;
  readonly output_bias: boolean;
  readonly causal: boolean;
  /** Position q sees k when 0 <= q - k < window_size; null for no window. */
  readonly window_size: number | null;
  /** Share of the attention probabilities that training drops, in [0, 1). */
  readonly dropout: number;
  /** Whether each head has a learned logit that takes its share of the softmax and gives no value. */
  readonly sinks: boolean;
  /** Factor on q kᵀ; null for 1 / sqrt(head_dim). */
  readonly scale: number | null;
  readonly qk_norm: Norm | null;
  /** Whether a query's (key's) norm runs over one head or over all of them at once. */
  readonly qk_norm_over: 'head' | 'all';
  /** Whether the heads' outputs are multiplied by sigmoid(x Wᵀ) before the output projection. */
  readonly output_gate: boolean;
  readonly position_encoding: PositionEncoding;
  /** Scores become softcap * tanh(scores / softcap), after ALiBi's distance; null for none. */
  readonly softcap: number | null;
  /** Name of a `score` formula (score, query, key, head), applied last; null for none. */
  readonly score: string | null;
  /** Name of a `mask` formula (query, key) that takes the place of `causal`; null for none. */
  readonly mask: string | null;
  readonly origin: string;
}

/**
 * Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1): keys and values of all heads come out of one
 * latent for each position, which is what the cache holds. Here num_kv_heads is num_heads, and head_dim is
 * nope_head_dim plus the elements that carry the position, `rope`'s dims, whose keys all heads share.
 */
export interface Latent {
  /** Width of the queries' latent; null for queries straight from the stream. */
  readonly query_dim: number | null;
  /** Width of the latent of keys and values. */
  readonly key_value_dim: number;
  /** Leading elements of a head's query and key that carry no position; head_dim where there is no rope. */
  readonly nope_head_dim: number;
  /** Norm of each latent; null for none. */
  readonly norm: Norm | null;
}

export type PositionEncoding =
  | {
      readonly kind: 'rope';
      readonly theta: number;
      /** The leading elements of a head that turn; with a latent the trailing ones. */
      readonly dims: number;
      /** Pairs of neighbours instead of elements half of `dims` apart. */
      readonly interleaved: boolean;
      readonly scaling: RopeScaling | null;
    }
  | { readonly kind: 'learned'; readonly max_positions: number }
  | { readonly kind: 'sinusoidal' }
  /** Scores fall with distance, by a slope of each head (Press et al. 2022), which `learned` starts from. */
  | { readonly kind: 'alibi'; readonly slopes: 'fixed' | 'learned' }
  | { readonly kind: 'none' };

/** How rotary frequencies are stretched for contexts longer than the original one. */
export type RopeScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  /** theta grows by factor^(dims / (dims - 2)). */
  | { readonly kind: 'ntk'; readonly factor: number }
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly original_max_positions: number;
      readonly beta_fast: number;
      readonly beta_slow: number;
      /** Factor on cosines and sines; null for 0.1 ln(factor) + 1. */
      readonly attention_factor: number | null;
    }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly low_freq_factor: number;
      readonly high_freq_factor: number;
      readonly original_max_positions: number;
    };

/** Mamba's selective state-space model (Gu and Dao 2023, arXiv:2312.00752), with its causal convolution. */
export interface StateSpace {
  /** Numbers that each channel remembers. */
  readonly state_dim: number;
  /** Positions that the convolution before it sees. */
  readonly conv_kernel: number;
  /** Channels for each element of the stream: there are expand * hidden_size. */
  readonly expand: number;
  /** Width of the bottleneck that the step sizes come through. */
  readonly dt_rank: number;
  readonly origin: string;
}

export interface FeedForward {
  /** Width of the network, or of one expert. */
  readonly hidden_dim: number;
  /** Name of an `activation` definition of the file or of mal/std. */
  readonly activation: string;
  readonly gate: boolean;
  readonly bias: boolean;
  /** Share of the activated values that training drops, in [0, 1). */
  readonly dropout: number;
  /** Null for one network that every token passes. */
  readonly moe: MixtureOfExperts | null;
  readonly origin: string;
}

/** Experts, of which a router chooses top_k for each token. None is dropped unless there is a capacity. */
export interface MixtureOfExperts {
  readonly experts: number;
  readonly top_k: number;
  /** Experts that every token passes besides. */
  readonly shared_experts: number;
  /** What makes an expert's weight of its logit: a softmax over all experts, or each one's sigmoid. */
  readonly router: 'softmax' | 'sigmoid';
  /** Whether a token's chosen weights are divided by their sum. */
  readonly normalize: boolean;
  /** Factor on the chosen weights. */
  readonly scale: number;
  /** Experts lie in so many groups; a token chooses from its best top_groups only. 1 and 1 for none. */
  readonly groups: number;
  readonly top_groups: number;
  readonly balance: Balance;
  /** Factor on the mean of logsumexp(logits)^2, which is added to the loss; 0 for none. */
  readonly z_loss_weight: number;
  /** In training, an expert takes at most capacity_factor * tokens * top_k / experts tokens of a call; null for all. */
  readonly capacity_factor: number | null;
}

/** How experts are kept equally busy. */
export type Balance =
  | { readonly kind: 'none' }
  /** weight * experts * sum(p_i f_i) / top_k is added to the loss: p_i the mean weight, f_i the share of tokens of expert i. */
  | { readonly kind: 'loss'; readonly weight: number }
  /** A bias that only selects moves by rate * sign(mean load - load) at each update (arXiv:2408.15664). */
  | { readonly kind: 'aux_free'; readonly rate: number };

/** A use of a `norm` definition: its name and the values of its (not learned) constants, such as eps. */
export interface Norm {
  readonly name: string;
  readonly constants: Readonly<Record<string, number>>;
}
