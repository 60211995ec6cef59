// Attention as graph: projections of queries, keys and values with their norms and positions, the mixing, the output.
import type { Attention } from '../check/model.ts';
import { type Dimension, dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { type AttentionExtra, attend } from '../ops/attention.ts';
import { mapWide } from '../ops/map.ts';
import { apply, multiply, operand } from '../scalar/expression.ts';
import type { Decoding } from './decoding.ts';
import { linear, normalise } from './layers.ts';
import { zeros } from './parameters.ts';
import { type RotaryTables, rotate } from './positions.ts';
import { alibiSlopes, maskOf, scoreOf } from './scores.ts';
import type { Site } from './site.ts';

/** What a layer that mixes positions is built from. */
export interface MixerInputs {
  /** [batch, time, hidden] */
  readonly x: Node;
  readonly hidden: Dimension;
  /** Tables of rotary positions: those of queries and keys, or of each. */
  readonly rotary: readonly RotaryTables[];
  /** Null in training. */
  readonly decoding: Decoding | null;
}

/** Attention with plain projections, back in the stream. */
export function buildAttention(site: Site, settings: Attention, inputs: MixerInputs): Node {
  const { builder } = site;
  const { origin, position_encoding: encoding } = settings;
  const { x, hidden, decoding } = inputs;
  const heads = dimension('heads', settings.num_heads);
  const kvHeads = dimension('kv_heads', settings.num_kv_heads);
  const headDim = dimension('head_dim', settings.head_dim);

  const project = (label: string, letter: string, to: Dimension) =>
    builder.within(label, origin, () => {
      const bias = settings.qkv_bias;
      const projected = linear(site, `self_attn.${letter}_proj`, x, [hidden], [to, headDim], { bias });
      if (letter === 'v') return projected;
      const over = settings.qk_norm_over === 'all' ? [to, headDim] : [headDim];
      const normed = normalise(site, `self_attn.${letter}_norm`, projected, settings.qk_norm, over);
      return encoding.kind === 'rope' ? rotate(builder, normed, encoding, inputs.rotary[0]!) : normed;
    });
  const query = project('query', 'q', heads);
  const key = project('key', 'k', kvHeads);
  const value = project('value', 'v', kvHeads);
  const cached = (name: string, fresh: Node) =>
    decoding ? builder.within(name, origin, () => decoding.append(name, fresh)) : fresh;
  const mixed = mix(site, settings, [query, cached('key', key), cached('value', value)], decoding, headDim.size!);
  return outputOf(site, settings, mixed, inputs);
}

/**
 * The values of each query's keys, weighted: [batch, time, heads, valueDim].
 * @param inputs query, key and value, or what caches hold of these
 */
export function mix(
  site: Site,
  settings: Attention,
  inputs: readonly Node[],
  decoding: Decoding | null,
  valueDim: number,
): Node {
  const { builder, parameters } = site;
  const { num_heads: count, position_encoding: encoding, origin } = settings;
  const heads = dimension('heads', count);
  const mask = maskOf(site, settings);
  const further: [AttentionExtra, readonly Node[]][] = [];
  if (decoding) further.push(['texts', [decoding.starts, decoding.ends]]);
  if (settings.sinks) further.push(['sinks', [parameters.vector('self_attn.sinks', [heads], zeros)]]);
  if (encoding.kind === 'alibi' && encoding.slopes === 'learned') {
    const values = alibiSlopes(count);
    further.push(['slopes', [parameters.vector('self_attn.alibi_slopes', [heads], { kind: 'cycle', values })]]);
  }
  const dropout = decoding ? 0 : settings.dropout;
  if (dropout > 0) further.push(['noise', [site.shared('noise'), site.shared('training')]]);
  // A text that is decoded is one document.
  if (site.masksDocuments && !decoding) further.push(['documents', [site.shared('documents')]]);
  const shape = {
    scale: settings.scale ?? 1 / Math.sqrt(settings.head_dim),
    causal: settings.causal && mask === null,
    window: settings.window_size ?? 0,
    score: scoreOf(site, settings),
    mask,
    value_dim: valueDim,
    dropout,
    extras: further.map(([extra]) => extra),
  };
  return builder.within('attention', origin, () =>
    attend(builder, [...inputs, ...further.flatMap(([, nodes]) => nodes)], shape),
  );
}

/** The gate, where there is one, and the projection back into the stream. */
export function outputOf(site: Site, settings: Attention, mixed: Node, { x, hidden }: MixerInputs): Node {
  const { builder } = site;
  const { origin, output_gate: isGated, output_bias: bias } = settings;
  const inner = mixed.dimensions.slice(2);
  const gated = () => {
    const gate = linear(site, 'self_attn.output_gate', x, [hidden], inner, { bias: false });
    return mapWide(builder, multiply(operand(0), apply('sigmoid', operand(1))), [mixed, gate]);
  };
  const values = isGated ? builder.within('output_gate', origin, gated) : mixed;
  return builder.within('attention_output', origin, () =>
    linear(site, 'self_attn.o_proj', values, inner, [hidden], { bias, residual: true }),
  );
}
