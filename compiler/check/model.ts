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
  /** The file's own activations and norms that the model uses, as MAL text; those of mal/std are not among them. */
  readonly formulas: readonly string[];
}

export interface Embeddings {
  readonly tie_weights: boolean;
  /** Factor on the embedded token, or null for none. */
  readonly scale: number | null;
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

export interface Block {
  readonly name: string;
  readonly attention: Attention;
  readonly ffn: FeedForward;
  readonly norm: Norm | null;
  /** x + f(norm(x)), norm(x + f(x)), x + norm(f(x)), x + norm(f(norm(x))). */
  readonly norm_position: 'pre' | 'post' | 'output' | 'sandwich';
  readonly residual: boolean;
  /** Factor on f(x) before it is added to the residual stream; null for none. */
  readonly residual_scale: number | null;
  /** Whether attention and feed-forward read the same input: x + attention(norm(x)) + ffn(norm(x)). */
  readonly parallel: boolean;
  /** Where it was written, as `file:line`, for comments in generated source; '' for a default. */
  readonly origin: string;
}

export interface Attention {
  readonly num_heads: number;
  readonly num_kv_heads: number;
  readonly head_dim: number;
  readonly qkv_bias: boolean;
  readonly output_bias: boolean;
  readonly causal: boolean;
  /** Position q sees k when 0 <= q - k < window_size; null for no window. */
  readonly window_size: number | null;
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

export type PositionEncoding =
  | {
      readonly kind: 'rope';
      readonly theta: number;
      /** The leading elements of a head that turn. */
      readonly dims: number;
      /** Pairs of neighbours instead of elements half of `dims` apart. */
      readonly interleaved: boolean;
      readonly scaling: RopeScaling | null;
    }
  | { readonly kind: 'learned'; readonly max_positions: number }
  | { readonly kind: 'sinusoidal' }
  /** Scores fall with distance, by a slope of each head (Press et al. 2022). */
  | { readonly kind: 'alibi' }
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

export interface FeedForward {
  readonly hidden_dim: number;
  /** Name of an `activation` definition of the file or of mal/std. */
  readonly activation: string;
  readonly gate: boolean;
  readonly bias: boolean;
  readonly origin: string;
}

/** A use of a `norm` definition: its name and the values of its (not learned) constants, such as eps. */
export interface Norm {
  readonly name: string;
  readonly constants: Readonly<Record<string, number>>;
}
