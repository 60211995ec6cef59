// A block of the model as graph: attention and feed-forward with their norms and residuals, for training (keys and
// values of this call) or for decoding (keys and values in a cache).
import type { Block } from '../check/model.ts';
import { batch, context, type Dimension, dimension, time } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { append } from '../ops/append.ts';
import { attend } from '../ops/attention.ts';
import { mapWide } from '../ops/map.ts';
import { add, multiply, operand } from '../scalar/expression.ts';
import { activate, linear, normalise, type RotaryTables, rotate, type Site } from './layers.ts';
import { initialDeviation } from './parameters.ts';

export interface BlockInputs {
  readonly x: Node;
  readonly hidden: Dimension;
  /** Tables of the block's rotary positions; null where it has none. */
  readonly rotary: RotaryTables | null;
  /** Layers in the whole model: projections into the residual stream start smaller with depth. */
  readonly depth: number;
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

/** Builds one block. Parameters get the names of Hugging Face's llama, the field's common denominator. */
export function buildBlock(site: Site, block: Block, inputs: BlockInputs): BlockResult {
  let cached: { key: Node; value: Node } | null = null;
  const first = subLayer(site, block, inputs.hidden, 'input_layernorm', 'attention', inputs.x, x => {
    const result = attention(site, block, inputs, x);
    cached = result.cached;
    return result.output;
  });
  const y = subLayer(site, block, inputs.hidden, 'post_attention_layernorm', 'feed_forward', first, x =>
    feedForward(site, block, inputs, x),
  );
  const { key, value } = cached ?? { key: null, value: null };
  return { y, key, value };
}

/** `x + f(norm(x))`, or for norm_position post `norm(x + f(x))`. */
function subLayer(
  site: Site,
  block: Block,
  hidden: Dimension,
  normName: string,
  label: string,
  x: Node,
  layer: (x: Node) => Node,
): Node {
  const { builder } = site;
  const norm = (node: Node) =>
    builder.within(`${label}_norm`, block.origin, () => normalise(site, normName, node, block.norm, hidden));
  const residual = (output: Node) =>
    block.residual
      ? builder.within(`${label}_residual`, block.origin, () =>
          mapWide(builder, add(operand(0), operand(1)), [x, output]),
        )
      : output;
  return block.norm_position === 'pre' ? residual(layer(norm(x))) : norm(residual(layer(x)));
}

function attention(site: Site, block: Block, inputs: BlockInputs, x: Node) {
  const { builder } = site;
  const { attention: settings } = block;
  const { origin } = settings;
  const heads = dimension('heads', settings.num_heads);
  const kvHeads = dimension('kv_heads', settings.num_kv_heads);
  const headDim = dimension('head_dim', settings.head_dim);
  const { bias } = settings;

  const project = (label: string, letter: string, to: Dimension) =>
    builder.within(label, origin, () => {
      const projected = linear(site, `self_attn.${letter}_proj`, x, [inputs.hidden], [to, headDim], { bias });
      if (letter === 'v') return projected;
      const normed = normalise(site, `self_attn.${letter}_norm`, projected, settings.qk_norm, headDim);
      return inputs.rotary ? rotate(builder, normed, headDim, inputs.rotary) : normed;
    });
  const query = project('query', 'q', heads);
  const key = project('key', 'k', kvHeads);
  const value = project('value', 'v', kvHeads);

  const shape = {
    scale: 1 / Math.sqrt(settings.head_dim),
    causal: settings.causal,
    window: settings.window_size ?? 0,
  };
  const { cache } = inputs;
  const cached = cache && {
    key: builder.within('key_cache', origin, () => builder.apply(append, [cache.key, key, cache.start], null)),
    value: builder.within('value_cache', origin, () => builder.apply(append, [cache.value, value, cache.start], null)),
  };
  const mixed = builder.within('attention', origin, () =>
    attend(builder, cached ? [query, cached.key, cached.value, cache.start] : [query, key, value], shape),
  );
  const output = builder.within('attention_output', origin, () =>
    linear(site, 'self_attn.o_proj', mixed, [heads, headDim], [inputs.hidden], {
      bias,
      deviation: residualDeviation(inputs.depth),
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

  const hiddenLayer = gated
    ? (() => {
        const gate = project('gate', 'gate_proj');
        const up = project('up', 'up_proj');
        return builder.within('gated', origin, () =>
          mapWide(builder, multiply(operand(0), operand(1)), [activate(site, activation, gate), up]),
        );
      })()
    : (() => {
        const up = project('up', 'up_proj');
        return builder.within('activated', origin, () => activate(site, activation, up));
      })();
  return builder.within('feed_forward_output', origin, () =>
    linear(site, 'mlp.down_proj', hiddenLayer, [width], [inputs.hidden], {
      bias,
      deviation: residualDeviation(inputs.depth),
    }),
  );
}

/** Weights that feed the residual stream start smaller by sqrt(2 layers), as there are so many of them (GPT-2). */
const residualDeviation = (depth: number): number => initialDeviation / Math.sqrt(2 * depth);

/** The residual stream's dimensions. */
export const streamDimensions = (hidden: Dimension): Dimension[] => [batch, time, hidden];
