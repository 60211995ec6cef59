// Makes an Attention of what was written: how wide its heads are, straight from the stream or out of a latent, how
// positions reach them, and what contradicts what.
import * as dimensionErrors from '../dimension-errors.ts';
import * as errors from '../errors.ts';
import { type BlockContext, type HeadDimension, nearestDivisors, numberPlaced, placed } from './block-context.ts';
import type { Attention, PositionEncoding } from './model.ts';
import { type LatentSettings, largestDimension, type Read, type Setting } from './properties.ts';
import { resolveRope } from './resolve-rope.ts';

/** The attention, or null where something is at fault, which has been reported. */
export function resolveAttention(read: Read<'attention'>, context: BlockContext): Attention | null {
  const { settings } = read;
  const { kind, bias, qkv_bias, output_bias } = settings;
  const heads = kind.value === null ? plainHeads(read, context) : latentHeads(read, kind.value.settings, context);
  if (heads === null || !checkCompanions(read, context)) return null;
  return {
    num_heads: settings.num_heads.value,
    ...heads,
    qkv_bias: qkv_bias.value ?? bias.value,
    output_bias: output_bias.value ?? bias.value,
    causal: settings.causal.value,
    window_size: settings.window_size.value,
    dropout: settings.dropout.value,
    sinks: settings.sinks.value,
    scale: settings.scale.value,
    qk_norm: settings.qk_norm.value,
    qk_norm_over: settings.qk_norm_over.value,
    output_gate: settings.output_gate.value,
    softcap: settings.softcap.value,
    score: settings.score.value,
    mask: settings.mask.value,
    origin: context.origin(read.span),
  };
}

/** False where a property acts on another that is not there or excludes another, which is reported. */
function checkCompanions({ settings }: Read<'attention'>, { report }: BlockContext): boolean {
  const { qk_norm, qk_norm_over, mask, causal } = settings;
  if (qk_norm.value === null && qk_norm_over.property) {
    const mend = 'give a `qk_norm`, or remove it';
    report(errors.actsOnNothing(qk_norm_over.property.span, 'qk_norm_over', 'there is no `qk_norm`', mend));
    return false;
  }
  if (mask.property && causal.property) {
    report(errors.exclusive(mask.property.span, 'mask', placed('causal', causal)));
    return false;
  }
  return true;
}

type Heads = Pick<Attention, 'num_kv_heads' | 'head_dim' | 'value_head_dim' | 'latent' | 'position_encoding'>;

/** Heads whose queries, keys and values come straight from the stream. */
function plainHeads(read: Read<'attention'>, context: BlockContext): Heads | null {
  const { settings } = read;
  const { where, hidden_size, report } = context;
  const heads = settings.num_heads.value;
  const place = (setting: Setting<unknown>) => setting.property?.value.span ?? read.span;

  const keyHeads = settings.num_kv_heads.value ?? heads;
  if (heads % keyHeads !== 0) {
    const wanted = numberPlaced(settings.num_heads);
    const nearby = nearestDivisors(heads, keyHeads);
    report(dimensionErrors.keyHeadsDoNotDivide(place(settings.num_kv_heads), where, wanted, keyHeads, nearby));
    return null;
  }

  const given = settings.head_dim.value;
  if (given === null && hidden_size.value % heads !== 0) {
    const nearby = nearestDivisors(hidden_size.value, heads);
    report(
      dimensionErrors.headsDoNotDivide(place(settings.num_heads), where, numberPlaced(hidden_size), heads, nearby),
    );
    return null;
  }
  const headDim = given ?? hidden_size.value / heads;
  if (overflows(read, 'num_heads * head_dim', headDim, context)) return null;
  const derived = given === null ? `hidden_size ${hidden_size.value} / num_heads ${heads}` : null;
  const span = place(given === null ? settings.num_heads : settings.head_dim);
  const encoding = resolvePositions(read, { name: 'head_dim', value: headDim, span, derived }, context);
  if (encoding === null) return null;
  return {
    num_kv_heads: keyHeads,
    head_dim: headDim,
    value_head_dim: headDim,
    latent: null,
    position_encoding: encoding,
  };
}

/** Heads of multi-head latent attention. */
function latentHeads(read: Read<'attention'>, latent: LatentSettings, context: BlockContext): Heads | null {
  if (!checkBesideLatent(read, context)) return null;
  const { q_latent, kv_latent, nope_head_dim, rope_head_dim, v_head_dim, latent_norm } = latent;
  const headDim = nope_head_dim.value + rope_head_dim.value;
  const valueDim = v_head_dim.value ?? nope_head_dim.value;
  if (overflows(read, 'num_heads * (nope_head_dim + rope_head_dim)', headDim, context)) return null;
  if (overflows(read, 'num_heads * v_head_dim', valueDim, context)) return null;
  const encoding = resolveLatentPositions(read, rope_head_dim, context);
  if (encoding === null) return null;
  return {
    num_kv_heads: read.settings.num_heads.value,
    head_dim: headDim,
    value_head_dim: valueDim,
    latent: {
      query_dim: q_latent.value,
      key_value_dim: kv_latent.value,
      nope_head_dim: nope_head_dim.value,
      norm: latent_norm.value,
    },
    position_encoding: encoding,
  };
}

/** False where a property is written that a latent leaves no room for; each is reported. */
function checkBesideLatent({ settings }: Read<'attention'>, { report }: BlockContext): boolean {
  const { kind, num_kv_heads, head_dim, bias, qkv_bias, qk_norm } = settings;
  const noBias = 'the projections into and out of the latents have none; `output_bias` is for the one behind them';
  const refused = [
    { setting: num_kv_heads, why: 'each head has keys and values of its own, made from the latent' },
    { setting: head_dim, why: 'a head is `nope_head_dim` + `rope_head_dim` wide' },
    { setting: bias, why: noBias },
    { setting: qkv_bias, why: noBias },
    { setting: qk_norm, why: 'the latents are normalised in their place, by `latent_norm`' },
  ];
  const written = refused.filter(({ setting: { value, property } }) => property && value !== false && value !== null);
  for (const { setting, why } of written)
    report(dimensionErrors.besideLatent(setting.property!.span, setting.property!.name, why, kind.property!.span));
  return written.length === 0;
}

/** Reports a product of heads that is too large for a dimension. */
function overflows(read: Read<'attention'>, product: string, width: number, { where, report }: BlockContext): boolean {
  const { num_heads } = read.settings;
  const size = num_heads.value * width;
  if (size <= largestDimension) return false;
  report(dimensionErrors.overflow(num_heads.property?.value.span ?? read.span, where, product, size, largestDimension));
  return true;
}

/** How positions reach heads of which the trailing `rope_head_dim` elements turn. */
function resolveLatentPositions(
  read: Read<'attention'>,
  ropeHeadDim: Setting<number>,
  context: BlockContext,
): PositionEncoding | null {
  const { value, property } = read.settings.position_encoding;
  const { span } = ropeHeadDim.property!.value;
  if (ropeHeadDim.value === 0) {
    if (property === null) return { kind: 'none' };
    if (value.word === 'rope') {
      context.report(dimensionErrors.ropeOfNothing(span, context.where, property.span));
      return null;
    }
  } else if (value.word !== 'rope') {
    context.report(dimensionErrors.latentNeedsRope(span, context.where, ropeHeadDim.value, value.word, property!.span));
    return null;
  }
  if (value.word === 'rope' && value.settings.dims.property) {
    const why = 'as many elements turn as `rope_head_dim` says';
    const kind = read.settings.kind.property!.span;
    context.report(dimensionErrors.besideLatent(value.settings.dims.property.span, 'dims', why, kind));
    return null;
  }
  return resolvePositions(read, { name: 'rope_head_dim', value: ropeHeadDim.value, span, derived: null }, context);
}

function resolvePositions(read: Read<'attention'>, turned: HeadDimension, context: BlockContext) {
  const { value, property } = read.settings.position_encoding;
  const length = context.max_seq_len;
  switch (value.word) {
    case 'none':
      return { kind: value.word } as const;
    case 'alibi':
      return { kind: value.word, slopes: value.settings.slopes.value } as const;
    case 'rope':
      return resolveRope(value.settings, turned, context);
    case 'sinusoidal': {
      const { value: width, property: written } = context.hidden_size;
      if (width % 2 === 0) return { kind: 'sinusoidal' } as const;
      context.report(dimensionErrors.oddWidth(written?.value.span ?? read.span, context.where, width));
      return null;
    }
    case 'learned': {
      const positions = value.settings.max_positions.value ?? length.value;
      if (positions >= length.value) return { kind: 'learned', max_positions: positions } as const;
      const span = value.settings.max_positions.property?.span ?? property!.span;
      context.report(dimensionErrors.tooFewPositions(span, context.where, positions, numberPlaced(length)));
      return null;
    }
  }
}
