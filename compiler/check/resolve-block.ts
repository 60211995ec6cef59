// Makes a Block of what was written, in the model that uses it: what mixes positions, what follows it, and how both join
// the residual stream.
import * as dimensionErrors from '../dimension-errors.ts';
import * as errors from '../errors.ts';
import { type BlockContext, placed } from './block-context.ts';
import type { Block, StateSpace } from './model.ts';
import { largestDimension, type Read } from './properties.ts';
import { resolveAttention } from './resolve-attention.ts';
import { resolveFeedForward } from './resolve-feed-forward.ts';

/** A block without a name is called this. */
const anonymousBlock = 'block';

/** The block, or null where something is at fault, which has been reported. */
export function resolveBlock(read: Read<'block'>, context: BlockContext): Block | null {
  const { settings } = read;
  const { definitions, report } = context;
  const { norm, norm_position } = settings;
  const hasFeedForward = !definitions.isNone('ffn', settings.ffn.value);
  const foundStateSpace = settings.ssm.value && definitions.find('ssm', settings.ssm.value);
  const foundAttention = settings.ssm.property ? null : definitions.find('attention', settings.attention.value);
  const foundFeedForward = hasFeedForward ? definitions.find('ffn', settings.ffn.value) : null;
  const consistent = checkParts(read, hasFeedForward, context) && checkResidual(read, context);
  if (norm.value === null && norm_position.property)
    report(errors.normPositionWithoutNorm(norm_position.property.span));

  const mixer = foundStateSpace ?? foundAttention;
  if (!consistent || !mixer || (hasFeedForward && !foundFeedForward)) return null;
  if (![context, read, mixer, foundFeedForward].every(part => part?.sound !== false)) return null;
  const attention = foundAttention && resolveAttention(foundAttention, context);
  const ssm = foundStateSpace && resolveStateSpace(foundStateSpace, context);
  const ffn = foundFeedForward && resolveFeedForward(foundFeedForward, context);
  if (!(attention || ssm) || (hasFeedForward && !ffn)) return null;
  return {
    name: read.name ?? anonymousBlock,
    attention,
    ssm,
    ffn,
    norm: norm.value,
    norm_position: norm_position.value,
    residual: settings.residual.value,
    residual_scale: settings.residual_scale.value,
    parallel: settings.parallel.value,
    dropout: settings.dropout.value,
    origin: context.origin(read.span),
  };
}

/** False where the block's parts exclude each other, which is reported. */
function checkParts({ settings }: Read<'block'>, hasFeedForward: boolean, { report }: BlockContext): boolean {
  const { attention, ssm, parallel } = settings;
  if (attention.property && ssm.property) {
    report(errors.exclusive(ssm.property.span, 'ssm', placed('attention', attention)));
    return false;
  }
  if (parallel.value && !hasFeedForward) {
    const mend = 'give the block an `ffn`, or remove it';
    report(errors.actsOnNothing(parallel.property!.span, 'parallel', 'there is no `ffn` beside it', mend));
    return false;
  }
  return true;
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

function resolveStateSpace(read: Read<'ssm'>, context: BlockContext): StateSpace | null {
  const { state_dim, conv_kernel, expand, dt_rank } = read.settings;
  const hidden = context.hidden_size.value;
  const channels = expand.value * hidden;
  if (channels > largestDimension) {
    const span = expand.property?.value.span ?? read.span;
    context.report(dimensionErrors.overflow(span, context.where, 'expand * hidden_size', channels, largestDimension));
    return null;
  }
  return {
    state_dim: state_dim.value,
    conv_kernel: conv_kernel.value,
    expand: expand.value,
    dt_rank: dt_rank.value ?? Math.ceil(hidden / 16),
    origin: context.origin(read.span),
  };
}
