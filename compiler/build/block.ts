// A block of the model as graph: a layer that mixes positions and a feed-forward network, with their norms and residuals.
import type { Block } from '../check/model.ts';
import { batch, type Dimension, time } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { mapWide } from '../ops/map.ts';
import { add, constant, multiply, operand } from '../scalar/expression.ts';
import { buildAttention, type MixerInputs } from './attention.ts';
import { dropout } from './dropout.ts';
import { buildFeedForward } from './feed-forward.ts';
import { buildLatentAttention } from './latent.ts';
import { normalise } from './layers.ts';
import type { Site } from './site.ts';
import { buildStateSpace } from './state-space.ts';

/** Builds one block. Parameters get the names of Hugging Face's llama, OLMo 2 and Gemma 2, by the place of the norms. */
export function buildBlock(site: Site, block: Block, inputs: MixerInputs): Node {
  const { x, hidden } = inputs;
  const names = normNames[block.norm_position];
  const first = new SubLayer(site, block, hidden, block.ssm ? 'ssm' : 'attention', names.attention);
  const mixed = first.run(x, normed => mixPositions(site, block, { ...inputs, x: normed }), x);
  const { ffn } = block;
  if (ffn === null) return mixed;
  const second = new SubLayer(site, block, hidden, 'feed_forward', names.feedForward);
  // In parallel, both read x, and what the first made is what the feed-forward's result is added to.
  return second.run(block.parallel ? x : mixed, normed => buildFeedForward(site, ffn, normed, hidden), mixed);
}

function mixPositions(site: Site, { attention, ssm, name }: Block, inputs: MixerInputs): Node {
  if (ssm) return buildStateSpace(site, ssm, inputs);
  if (attention === null) throw new Error(`block ${name} mixes no positions`);
  if (attention.latent) return buildLatentAttention(site, attention, attention.latent, inputs);
  return buildAttention(site, attention, inputs);
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

/** Half of a block with its norms and its residual. */
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
    const joined = this.join(this.dropped(scaled), onto);
    return position === 'post' ? this.norm('norm', this.names.after, joined) : joined;
  }

  private dropped(made: Node): Node {
    const { dropout: share, origin } = this.block;
    return this.site.builder.within(`${this.label}_output`, origin, () => dropout(this.site, made, share));
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

/** The residual stream's dimensions. */
export const streamDimensions = (hidden: Dimension): Dimension[] => [batch, time, hidden];
