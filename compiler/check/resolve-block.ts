// Makes a Block of what was written, in the model that uses it: defaults that depend on the model are filled, dimensions
// are checked against each other (LANGUAGE 1.3).
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { Span } from '../syntax/syntax.ts';
import type { Definitions } from './definitions.ts';
import type { Attention, Block, FeedForward, PositionEncoding } from './model.ts';
import { largestDimension, type Read, type Setting } from './properties.ts';
import { resolveRope } from './resolve-rope.ts';

/** What a block needs to know of its model. */
export interface BlockContext {
  readonly definitions: Definitions;
  readonly hidden_size: Setting<number>;
  readonly max_seq_len: Setting<number>;
  /** False where the model itself is at fault: its dimensions are then not those that were meant. */
  readonly sound: boolean;
  /** The block as messages call it: its name, its layers, its model. */
  readonly where: string;
  /** `file:line` of a place. */
  origin(span: Span | null): string;
  report(diagnostic: Diagnostic): void;
}

/** A block without a name is called this. */
const anonymousBlock = 'block';

/** The block, or null where something is at fault, which has been reported. */
export function resolveBlock(read: Read<'block'>, context: BlockContext): Block | null {
  const { attention, ffn, norm, norm_position, residual, residual_scale, parallel } = read.settings;
  const foundAttention = context.definitions.find('attention', attention.value);
  const foundFeedForward = context.definitions.find('ffn', ffn.value);
  const consistent = checkResidual(read, context);
  if (norm.value === null && norm_position.property)
    context.report(errors.normPositionWithoutNorm(norm_position.property.span));
  if (!consistent || !foundAttention || !foundFeedForward) return null;
  if (![context, read, foundAttention, foundFeedForward].every(part => part.sound)) return null;
  const resolvedAttention = resolveAttention(foundAttention, context);
  const resolvedFeedForward = resolveFeedForward(foundFeedForward, context);
  if (!resolvedAttention || !resolvedFeedForward) return null;
  return {
    name: read.name ?? anonymousBlock,
    attention: resolvedAttention,
    ffn: resolvedFeedForward,
    norm: norm.value,
    norm_position: norm_position.value,
    residual: residual.value,
    residual_scale: residual_scale.value,
    parallel: parallel.value,
    origin: context.origin(read.span),
  };
}

/** False where properties of the residual stream contradict each other, which is reported. */
function checkResidual({ settings }: Read<'block'>, { report }: BlockContext): boolean {
  const { residual, residual_scale, parallel, norm_position } = settings;
  if (!residual.value && residual_scale.property) {
    report(errors.exclusive(residual_scale.property.span, 'residual_scale', placed('residual: false', residual)));
    return false;
  }
  if (!parallel.value) return true;
  if (!residual.value) {
    report(errors.exclusive(parallel.property!.span, 'parallel', placed('residual: false', residual)));
    return false;
  }
  if (norm_position.value === 'post') {
    // norm(x + f(x)) of one sub-layer would be the input of the other.
    report(errors.exclusive(parallel.property!.span, 'parallel', placed('norm_position: post', norm_position)));
    return false;
  }
  return true;
}

const placed = (name: string, { property }: Setting<unknown>) => ({ name, span: property!.span });

function resolveAttention(read: Read<'attention'>, context: BlockContext): Attention | null {
  const { settings } = read;
  const { where, hidden_size, report } = context;
  const heads = settings.num_heads.value;
  const place = (setting: Setting<unknown>) => setting.property?.value.span ?? read.span;

  const keyHeads = settings.num_kv_heads.value ?? heads;
  if (heads % keyHeads !== 0) {
    const wanted = { value: heads, span: settings.num_heads.property?.span ?? null };
    const nearby = nearestDivisors(heads, keyHeads);
    report(errors.keyHeadsDoNotDivide(place(settings.num_kv_heads), where, wanted, keyHeads, nearby));
    return null;
  }

  const given = settings.head_dim.value;
  if (given === null && hidden_size.value % heads !== 0) {
    const hidden = { value: hidden_size.value, span: hidden_size.property?.span ?? null };
    const nearby = nearestDivisors(hidden.value, heads);
    report(errors.headsDoNotDivide(place(settings.num_heads), where, hidden, heads, nearby));
    return null;
  }
  const headDim = given ?? hidden_size.value / heads;
  if (heads * headDim > largestDimension) {
    report(
      errors.overflow(place(settings.num_heads), where, 'num_heads * head_dim', heads * headDim, largestDimension),
    );
    return null;
  }
  const derived = given === null ? `hidden_size ${hidden_size.value} / num_heads ${heads}` : null;
  const span = place(given === null ? settings.num_heads : settings.head_dim);
  const encoding = resolvePositions(read, { value: headDim, span, derived }, context);
  if (encoding === null) return null;
  const { bias, qkv_bias, output_bias, qk_norm, qk_norm_over } = settings;
  if (qk_norm.value === null && qk_norm_over.property) {
    const mend = 'give a `qk_norm`, or remove it';
    report(errors.actsOnNothing(qk_norm_over.property.span, 'qk_norm_over', 'there is no `qk_norm`', mend));
    return null;
  }
  if (settings.mask.property && settings.causal.property) {
    report(errors.exclusive(settings.mask.property.span, 'mask', placed('causal', settings.causal)));
    return null;
  }
  return {
    num_heads: heads,
    num_kv_heads: keyHeads,
    head_dim: headDim,
    qkv_bias: qkv_bias.value ?? bias.value,
    output_bias: output_bias.value ?? bias.value,
    causal: settings.causal.value,
    window_size: settings.window_size.value,
    scale: settings.scale.value,
    qk_norm: qk_norm.value,
    qk_norm_over: qk_norm_over.value,
    output_gate: settings.output_gate.value,
    position_encoding: encoding,
    softcap: settings.softcap.value,
    score: settings.score.value,
    mask: settings.mask.value,
    origin: context.origin(read.span),
  };
}

/** A head's size, where it was said and, where it was worked out, how. */
export interface HeadDimension {
  readonly value: number;
  readonly span: Span | null;
  readonly derived: string | null;
}

function resolvePositions(
  read: Read<'attention'>,
  headDim: HeadDimension,
  context: BlockContext,
): PositionEncoding | null {
  const { value, property } = read.settings.position_encoding;
  const length = context.max_seq_len;
  switch (value.word) {
    case 'alibi':
    case 'none':
      return { kind: value.word };
    case 'rope':
      return resolveRope(value.settings, headDim, context);
    case 'sinusoidal': {
      const { value: width, property: written } = context.hidden_size;
      if (width % 2 === 0) return { kind: 'sinusoidal' };
      context.report(errors.oddWidth(written?.value.span ?? read.span, context.where, width));
      return null;
    }
    case 'learned': {
      const positions = value.settings.max_positions.value ?? length.value;
      if (positions >= length.value) return { kind: 'learned', max_positions: positions };
      const lengthSpan = length.property?.span ?? null;
      const span = value.settings.max_positions.property?.span ?? property!.span;
      context.report(errors.tooFewPositions(span, context.where, positions, lengthSpan, length.value));
      return null;
    }
  }
}

function resolveFeedForward(read: Read<'ffn'>, context: BlockContext): FeedForward | null {
  const { hidden_dim, activation, gate, bias } = read.settings;
  const width = hidden_dim.value ?? 4 * context.hidden_size.value;
  if (width > largestDimension) {
    context.report(errors.overflow(read.span, context.where, 'hidden_dim, 4 * hidden_size,', width, largestDimension));
    return null;
  }
  return {
    hidden_dim: width,
    activation: activation.value,
    gate: gate.value,
    bias: bias.value,
    origin: context.origin(read.span),
  };
}

/** The divisors of `whole` that are nearest to `near`, one on each side where there is one. */
function nearestDivisors(whole: number, near: number): number[] {
  let below = 1;
  let above: number | null = null;
  for (let low = 1; low * low <= whole; low++) {
    if (whole % low !== 0) continue;
    for (const divisor of [low, whole / low]) {
      if (divisor < near && divisor > below) below = divisor;
      if (divisor > near && (above === null || divisor < above)) above = divisor;
    }
  }
  return above === null ? [below] : [below, above];
}
