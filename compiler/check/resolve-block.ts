// Makes a Block of what was written, in the model that uses it: defaults that depend on the model are filled, dimensions
// are checked against each other (LANGUAGE 1.3).
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { Span } from '../syntax/syntax.ts';
import type { Definitions } from './definitions.ts';
import type { Attention, Block, FeedForward, PositionEncoding } from './model.ts';
import { largestDimension, type Read, type Setting } from './properties.ts';
import { standardLibrary } from './standard-library.ts';

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
export const anonymousBlock = 'block';

/** The block, or null where something is at fault, which has been reported. */
export function resolveBlock(read: Read<'block'>, context: BlockContext): Block | null {
  const { attention, ffn, norm, norm_position, residual } = read.settings;
  const foundAttention = context.definitions.find('attention', attention.value);
  const foundFeedForward = context.definitions.find('ffn', ffn.value);
  if (norm.value === null && norm_position.property)
    context.report(errors.normPositionWithoutNorm(norm_position.property.span));
  if (!foundAttention || !foundFeedForward) return null;
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
    origin: context.origin(read.span),
  };
}

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
  const encoding = resolvePositions(read, context);
  if (encoding === null) return null;
  if (encoding.kind === 'rope' && headDim % 2 !== 0) {
    const derived = given === null ? `hidden_size ${hidden_size.value} / num_heads ${heads}` : null;
    report(
      errors.oddHeadDimension(place(given === null ? settings.num_heads : settings.head_dim), where, headDim, derived),
    );
    return null;
  }
  return {
    num_heads: heads,
    num_kv_heads: keyHeads,
    head_dim: headDim,
    bias: settings.bias.value,
    causal: settings.causal.value,
    window_size: settings.window_size.value,
    qk_norm: settings.qk_norm.value ? defaultNorm('rmsnorm') : null,
    position_encoding: encoding,
    origin: context.origin(read.span),
  };
}

function resolvePositions(read: Read<'attention'>, context: BlockContext): PositionEncoding | null {
  const { value, property } = read.settings.position_encoding;
  const length = context.max_seq_len;
  switch (value.word) {
    case 'none':
      return { kind: 'none' };
    case 'rope':
      return { kind: 'rope', theta: value.settings.rope_theta.value, scaling: value.settings.rope_scaling.value };
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

/** A standard norm with the constants that its definition gives. */
function defaultNorm(name: string): { name: string; constants: Record<string, number> } {
  const given = standardLibrary()
    .get(name)!
    .constants.filter(constant => !constant.learned);
  return { name, constants: Object.fromEntries(given.map(constant => [constant.name, constant.value])) };
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
