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
}

export interface Embeddings {
  readonly tie_weights: boolean;
  /** Factor on the embedded token, or null for none. */
  readonly scale: number | null;
  /** Rows of the learned position table, or null where no attention asks for `learned {}`. */
  readonly learned_positions: number | null;
}

export interface Output {
  readonly bias: boolean;
  readonly norm: Norm | null;
}

export interface Block {
  readonly name: string;
  readonly attention: Attention;
  readonly ffn: FeedForward;
  readonly norm: Norm | null;
  readonly norm_position: 'pre' | 'post';
  readonly residual: boolean;
  /** Where it was written, as `file:line`, for comments in generated source; '' for a default. */
  readonly origin: string;
}

export interface Attention {
  readonly num_heads: number;
  readonly num_kv_heads: number;
  readonly head_dim: number;
  readonly bias: boolean;
  readonly causal: boolean;
  /** Position q sees k when 0 <= q - k < window_size; null for no window. */
  readonly window_size: number | null;
  readonly qk_norm: Norm | null;
  readonly position_encoding: PositionEncoding;
  readonly origin: string;
}

export type PositionEncoding =
  | { readonly kind: 'rope'; readonly theta: number /** Linear scaling. */; readonly scaling: number | null }
  | { readonly kind: 'learned'; readonly max_positions: number }
  | { readonly kind: 'none' };

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
