// A block of the model as graph: attention and feed-forward with their norms and residuals, for training (keys and
// values of this call) or for decoding (keys and values in a cache).
import type { Block } from '../check/model.ts';
import { batch, context, type Dimension, dimension, time } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { append } from '../ops/append.ts';
import { attend } from '../ops/attention.ts';
import { mapWide } from '../ops/map.ts';
import { add, apply, constant, multiply, operand } from '../scalar/expression.ts';
import { activate, linear, normalise, type Site } from './layers.ts';
import { type RotaryTables, rotate } from './positions.ts';
import { maskOf, scoreOf } from './scores.ts';

export interface BlockInputs {
  readonly x: Node;
  readonly hidden: Dimension;
  /** Tables of the block's rotary positions; null where it has none. */
  readonly rotary: RotaryTables | null;
  /** Present when decoding: the caches [batch, context, kv_heads, head_dim] and the first position of the call. */
  readonly cache: { readonly key: Node; readonly value: Node; readonly start: Node } | null;
}

export interface BlockResult {
  readonly y: Node;
  /** The caches with the new positions, when decoding. */
  readonly key: Node | null;
  readonly value: Node | null;
}

/** The cache's dimensions for a block. */
export const cacheDimensions = (block: Block): Dimension[] => [
  batch,
  context,
  dimension('kv_heads', block.attention.num_kv_heads),
  dimension('head_dim', block.attention.head_dim),
];

/** Builds one block. Parameters get the names of Hugging Face's llama, OLMo 2 and Gemma 2, by the place of the norms. */
export function buildBlock(site: Site, block: Block, inputs: BlockInputs): BlockResult {
  let cached: { key: Node; value: Node } | null = null;
  const attend = (x: Node) => {
    const result = attention(site, block, inputs, x);
    cached = result.cached;
    return result.output;
  };
  const names = normNames[block.norm_position];
  const first = new SubLayer(site, block, inputs.hidden, 'attention', names.attention);
  const second = new SubLayer(site, block, inputs.hidden, 'feed_forward', names.feedForward);
  const feed = (x: Node) => feedForward(site, block, inputs, x);
  const { x } = inputs;
  const afterAttention = first.run(x, attend, x);
  // In parallel, both read x, and what attention made is what the feed-forward's result is added to.
  const y = block.parallel ? second.run(x, feed, afterAttention) : second.run(afterAttention, feed, afterAttention);
  const { key, value } = cached ?? { key: null, value: null };
  return { y, key, value };
}

interface NormNames {
  readonly before: string;
  readonly after: string;
}

/** Names of the norms before and after each sub-layer, for each place that they may take. */
const normNames: Readonly<Record<Block['norm_position'], { attention: NormNames; feedForward: NormNames }>> = {
  pre: {
    attention: { before: 'input_layernorm', after: '' },
    feedForward: { before: 'post_attention_layernorm', after: '' },
  },
  post: {
    attention: { before: '', after: 'input_layernorm' },
    feedForward: { before: '', after: 'post_attention_layernorm' },
  },
  output: {
    attention: { before: '', after: 'post_attention_layernorm' },
    feedForward: { before: '', after: 'post_feedforward_layernorm' },
  },
  sandwich: {
    attention: { before: 'input_layernorm', after: 'post_attention_layernorm' },
    feedForward: { before: 'pre_feedforward_layernorm', after: 'post_feedforward_layernorm' },
  },
};

/** Attention or feed-forward with its norms and its residual. */
class SubLayer {
  private readonly site: Site;
  private readonly block: Block;
  private readonly hidden: Dimension;
  private readonly label: string;
  private readonly names: NormNames;

  constructor(site: Site, block: Block, hidden: Dimension, label: string, names: NormNames) {
    this.site = site;
    this.block = block;
    this.hidden = hidden;
    this.label = label;
    this.names = names;
  }

  /** x + f(norm(x)), norm(x + f(x)), x + norm(f(x)) or x + norm(f(norm(x))), where `onto` is what f's result joins. */
  run(x: Node, layer: (x: Node) => Node, onto: Node): Node {
    const { norm_position: position } = this.block;
    const before = position === 'pre' || position === 'sandwich' ? this.norm('norm', this.names.before, x) : x;
    const made = layer(before);
    const scaled =
      position === 'output' || position === 'sandwich' ? this.norm('output_norm', this.names.after, made) : made;
    const joined = this.join(scaled, onto);
    return position === 'post' ? this.norm('norm', this.names.after, joined) : joined;
  }

  private norm(suffix: string, name: string, x: Node): Node {
    const { builder } = this.site;
    return builder.within(`${this.label}_${suffix}`, this.block.origin, () =>
      normalise(this.site, name, x, this.block.norm, [this.hidden]),
    );
  }

  private join(made: Node, onto: Node): Node {
    const { residual, residual_scale: scale, origin } = this.block;
    const scaled = scale === null ? operand(1) : multiply(operand(1), constant(scale));
    const expression = residual ? add(operand(0), scaled) : scaled;
    return this.site.builder.within(`${this.label}_residual`, origin, () =>
      mapWide(this.site.builder, expression, [onto, made]),
    );
  }
}

function attention(site: Site, block: Block, inputs: BlockInputs, x: Node) {
  const { builder } = site;
  const { attention: settings } = block;
  const { origin } = settings;
  const heads = dimension('heads', settings.num_heads);
  const kvHeads = dimension('kv_heads', settings.num_kv_heads);
  const headDim = dimension('head_dim', settings.head_dim);
  const encoding = settings.position_encoding;

  const project = (label: string, letter: string, to: Dimension) =>
    builder.within(label, origin, () => {
      const bias = settings.qkv_bias;
      const projected = linear(site, `self_attn.${letter}_proj`, x, [inputs.hidden], [to, headDim], { bias });
      if (letter === 'v') return projected;
      const over = settings.qk_norm_over === 'all' ? [to, headDim] : [headDim];
      const normed = normalise(site, `self_attn.${letter}_norm`, projected, settings.qk_norm, over);
      return inputs.rotary && encoding.kind === 'rope' ? rotate(builder, normed, encoding, inputs.rotary) : normed;
    });
  const query = project('query', 'q', heads);
  const key = project('key', 'k', kvHeads);
  const value = project('value', 'v', kvHeads);

  const mask = maskOf(site, settings);
  const shape = {
    scale: settings.scale ?? 1 / Math.sqrt(settings.head_dim),
    causal: settings.causal && mask === null,
    window: settings.window_size ?? 0,
    score: scoreOf(site, settings),
    mask,
  };
  const { cache } = inputs;
  const cached = cache && {
    key: builder.within('key_cache', origin, () => builder.apply(append, [cache.key, key, cache.start], null)),
    value: builder.within('value_cache', origin, () => builder.apply(append, [cache.value, value, cache.start], null)),
  };
  const mixed = builder.within('attention', origin, () =>
    attend(builder, cached ? [query, cached.key, cached.value, cache.start] : [query, key, value], shape),
  );
  const gated = settings.output_gate
    ? builder.within('output_gate', origin, () => {
        const gate = linear(site, 'self_attn.output_gate', x, [inputs.hidden], [heads, headDim], { bias: false });
        return mapWide(builder, multiply(operand(0), apply('sigmoid', operand(1))), [mixed, gate]);
      })
    : mixed;
  const output = builder.within('attention_output', origin, () =>
    linear(site, 'self_attn.o_proj', gated, [heads, headDim], [inputs.hidden], {
      bias: settings.output_bias,
      residual: true,
    }),
  );
  return { output, cached };
}

function feedForward(site: Site, block: Block, inputs: BlockInputs, x: Node): Node {
  const { builder } = site;
  const { origin, bias, gate: gated, activation, hidden_dim: size } = block.ffn;
  const width = dimension('ffn', size);
  const project = (label: string, name: string) =>
    builder.within(label, origin, () => linear(site, `mlp.${name}`, x, [inputs.hidden], [width], { bias }));

  const activated = (): Node => {
    if (!gated) {
      const up = project('up', 'up_proj');
      return builder.within('activated', origin, () => activate(site, activation, up));
    }
    const gate = project('gate', 'gate_proj');
    const up = project('up', 'up_proj');
    return builder.within('gated', origin, () =>
      mapWide(builder, multiply(operand(0), operand(1)), [activate(site, activation, gate), up]),
    );
  };
  const inner = activated();
  return builder.within('feed_forward_output', origin, () =>
    linear(site, 'mlp.down_proj', inner, [width], [inputs.hidden], { bias, residual: true }),
  );
}

/** The residual stream's dimensions. */
export const streamDimensions = (hidden: Dimension): Dimension[] => [batch, time, hidden];
