// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1) as graph. In training keys and values come out
// of each position's latent. In decoding only the latent is kept, and the matrices that would expand it are moved to the
// query and to the result (the paper's section 2.1.2): attention of many queries over one key head, the latent itself.
import type { Attention, Latent } from '../check/model.ts';
import { type Dimension, dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { multiplyEach } from '../ops/contract-each.ts';
import { mapOver } from '../ops/map.ts';
import { padded } from '../ops/pad.ts';
import { sliceOf } from '../ops/slice.ts';
import { add, operand } from '../scalar/expression.ts';
import { type MixerInputs, mix, outputOf } from './attention.ts';
import type { Decoding } from './decoding.ts';
import { linear, normalise } from './layers.ts';
import { rotate } from './positions.ts';
import type { Site } from './site.ts';

/** Latent attention, back in the stream. */
export function buildLatentAttention(site: Site, settings: Attention, latent: Latent, inputs: MixerInputs): Node {
  return new LatentAttention(site, settings, latent, inputs).build();
}

class LatentAttention {
  private readonly site: Site;
  private readonly settings: Attention;
  private readonly latent: Latent;
  private readonly inputs: MixerInputs;
  private readonly heads: Dimension;
  private readonly headDim: Dimension;
  private readonly latentDim: Dimension;
  /** Elements of a head that carry no position. */
  private readonly nope: number;
  /** Those that do. */
  private readonly turning: number;

  constructor(site: Site, settings: Attention, latent: Latent, inputs: MixerInputs) {
    this.site = site;
    this.settings = settings;
    this.latent = latent;
    this.inputs = inputs;
    this.heads = dimension('heads', settings.num_heads);
    this.headDim = dimension('head_dim', settings.head_dim);
    this.latentDim = dimension('latent', latent.key_value_dim);
    this.nope = latent.nope_head_dim;
    this.turning = settings.head_dim - latent.nope_head_dim;
  }

  build(): Node {
    const { site, settings, inputs } = this;
    const query = this.labelled('query', () => this.query());
    const memory = this.labelled('key_value_latent', () => {
      const projected = this.labelled('key_value_projected', () =>
        this.linear('kv_a_proj', inputs.x, [inputs.hidden], [this.latentDim]),
      );
      return normalise(site, 'self_attn.kv_a_layernorm', projected, this.latent.norm, [this.latentDim]);
    });
    const position = this.turning > 0 ? this.labelled('key_position', () => this.keyPosition()) : null;
    const { decoding } = inputs;
    const mixed = decoding ? this.absorbed(decoding, query, memory, position) : this.expanded(query, memory, position);
    return outputOf(site, settings, mixed, inputs);
  }

  /** [batch, time, heads, head_dim], its trailing elements turned by the position. */
  private query(): Node {
    const { site, settings, latent, inputs } = this;
    const { builder } = site;
    const to = [this.heads, this.headDim];
    const projected = () => {
      if (latent.query_dim === null) return this.linear('q_proj', inputs.x, [inputs.hidden], to);
      const width = dimension('query_latent', latent.query_dim);
      const normed = this.labelled('query_latent', () => {
        const projected = this.labelled('query_projected', () =>
          this.linear('q_a_proj', inputs.x, [inputs.hidden], [width]),
        );
        return normalise(site, 'self_attn.q_a_layernorm', projected, latent.norm, [width]);
      });
      return this.linear('q_b_proj', normed, [width], to);
    };
    const query = projected();
    const { position_encoding: rope } = settings;
    return rope.kind === 'rope' ? rotate(builder, query, rope, inputs.rotary[0]!, this.nope) : query;
  }

  /** The part of the keys that carries the position, the same for all heads: [batch, time, head_dim]. */
  private keyPosition(): Node {
    const { site, settings, inputs } = this;
    const { position_encoding: rope } = settings;
    const to = dimension('head_dim', this.turning);
    const projected = this.linear('k_rope_proj', inputs.x, [inputs.hidden], [to]);
    return rope.kind === 'rope' ? rotate(site.builder, projected, rope, inputs.rotary[1]!) : projected;
  }

  /** Keys and values of every head, for training. */
  private expanded(query: Node, memory: Node, position: Node | null): Node {
    const { site, settings, headDim } = this;
    const { builder } = site;
    const kvHeads = dimension('kv_heads', settings.num_heads);
    const valueDim = dimension('value_dim', settings.value_head_dim);
    const from = [this.latentDim];
    const content = this.labelled('key_content', () =>
      this.linear('k_b_proj', memory, from, [kvHeads, dimension('head_dim', this.nope)]),
    );
    const value = this.labelled('value', () => this.linear('v_b_proj', memory, from, [kvHeads, valueDim]));
    const key = this.labelled('key', () => {
      if (position === null) return content;
      const parts = [
        padded(builder, content, { dimension: 'head_dim', from: 0, to: headDim }),
        padded(builder, position, { dimension: 'head_dim', from: this.nope, to: headDim }),
      ];
      return mapOver(builder, [...content.dimensions.slice(0, 3), headDim], add(operand(0), operand(1)), parts);
    });
    return mix(site, settings, [query, key, value], null, settings.value_head_dim);
  }

  /** The same over the cache of latents, of which a position's key is the whole and its value the content. */
  private absorbed(decoding: Decoding, query: Node, memory: Node, position: Node | null): Node {
    const { site, settings, heads, latentDim } = this;
    const { builder, parameters, deviation } = site;
    const nope = dimension('head_dim', this.nope);
    const whole = dimension('whole_latent', latentDim.size! + this.turning);
    const [batch, time] = memory.dimensions as [Dimension, Dimension];
    const kvHeads = dimension('kv_heads', 1);
    /** Content and position one after the other, as wide as the cache. */
    const joined = (dims: readonly Dimension[], content: Node, turned: Node | null) => {
      const left = padded(builder, content, { dimension: 'latent', from: 0, to: whole });
      if (turned === null) return mapOver(builder, [...dims, whole], operand(0), [left]);
      const right = padded(builder, turned, { dimension: 'head_dim', from: latentDim.size!, to: whole });
      return mapOver(builder, [...dims, whole], add(operand(0), operand(1)), [left, right]);
    };
    const absorbedQuery = this.labelled('absorbed_query', () => {
      const expand = parameters.matrix('self_attn.k_b_proj.weight', [heads, nope], [latentDim], deviation.inner);
      const plain = this.labelled('query_content', () =>
        sliceOf(builder, query, { dimension: 'head_dim', from: 0, to: nope }),
      );
      const content = this.labelled('query_in_latent', () => multiplyEach(builder, plain, expand));
      const turned =
        position &&
        this.labelled('query_position', () =>
          sliceOf(builder, query, { dimension: 'head_dim', from: this.nope, to: dimension('head_dim', this.turning) }),
        );
      return joined([batch, time, heads], content, turned);
    });
    const cache = this.labelled('latent', () =>
      decoding.append(
        'latent',
        this.labelled('joined_latent', () => joined([batch, time, kvHeads], memory, position)),
      ),
    );
    const mixed = mix(site, settings, [absorbedQuery, cache, cache], decoding, latentDim.size!);
    return this.labelled('value', () => {
      const content = mixed.dimensions[3]!;
      const valueDim = dimension('head_value', settings.value_head_dim);
      const expand = parameters.matrix('self_attn.v_b_proj.weight', [heads, valueDim], [content], deviation.inner);
      return multiplyEach(builder, mixed, expand);
    });
  }

  private labelled(label: string, build: () => Node): Node {
    return this.site.builder.within(label, this.settings.origin, build);
  }

  private linear(name: string, x: Node, from: readonly Dimension[], to: readonly Dimension[]): Node {
    return linear(this.site, `self_attn.${name}`, x, from, to, { bias: false });
  }
}
