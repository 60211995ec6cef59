// Rotary positions and the ways to stretch them: what the frequencies' formulas need is checked here.
import * as dimensionErrors from '../dimension-errors.ts';
import * as errors from '../errors.ts';
import type { BlockContext, HeadDimension } from './block-context.ts';
import type { PositionEncoding, RopeScaling } from './model.ts';
import type { RopeSettings } from './properties.ts';

type Rope = Extract<PositionEncoding, { kind: 'rope' }>;

/** The encoding, or null where something is at fault, which has been reported. */
export function resolveRope(settings: RopeSettings, headDim: HeadDimension, context: BlockContext): Rope | null {
  const { where, report } = context;
  const { dims } = settings;
  if (dims.property && (dims.value! > headDim.value || dims.value! % 2 !== 0)) {
    report(dimensionErrors.ropeDimensions(dims.property.value.span, where, dims.value!, headDim.value));
    return null;
  }
  const turned = dims.value ?? headDim.value;
  if (turned % 2 !== 0) {
    report(dimensionErrors.oddHeadDimension(where, headDim));
    return null;
  }
  const scaling = resolveScaling(settings, turned, context);
  if (scaling === undefined) return null;
  const { rope_theta, interleaved } = settings;
  return { kind: 'rope', theta: rope_theta.value, dims: turned, interleaved: interleaved.value, scaling };
}

/** Undefined where something is at fault. */
function resolveScaling(settings: RopeSettings, dims: number, context: BlockContext): RopeScaling | null | undefined {
  const { rope_theta, rope_scaling, scaling } = settings;
  const { where, report } = context;
  if (scaling.value === null) {
    return rope_scaling.value === null ? null : { kind: 'linear', factor: rope_scaling.value };
  }
  const place = scaling.property!.span;
  if (rope_scaling.property) {
    report(errors.exclusive(rope_scaling.property.span, rope_scaling.property.name, { name: 'scaling', span: place }));
    return undefined;
  }
  const needs = (condition: string): undefined => {
    report(dimensionErrors.ropeScaling(place, where, scaling.value!.word, condition));
  };
  const { word } = scaling.value;
  switch (word) {
    case 'linear':
      return { kind: 'linear', factor: scaling.value.settings.factor.value };
    case 'ntk':
      if (dims <= 2) return needs('rope to turn more than 2 elements: it raises the factor to dims / (dims - 2)');
      return { kind: 'ntk', factor: scaling.value.settings.factor.value };
    case 'yarn': {
      const { factor, original_max_positions, beta_fast, beta_slow, attention_factor } = scaling.value.settings;
      if (beta_fast.value <= beta_slow.value) return needs('`beta_fast` above `beta_slow`');
      if (rope_theta.value <= 1) return needs('`theta` above 1: it divides by its logarithm');
      return {
        kind: 'yarn',
        factor: factor.value,
        original_max_positions: original_max_positions.value,
        beta_fast: beta_fast.value,
        beta_slow: beta_slow.value,
        attention_factor: attention_factor.value,
      };
    }
    case 'llama3': {
      const { factor, low_freq_factor, high_freq_factor, original_max_positions } = scaling.value.settings;
      if (high_freq_factor.value <= low_freq_factor.value) return needs('`high_freq_factor` above `low_freq_factor`');
      return {
        kind: 'llama3',
        factor: factor.value,
        low_freq_factor: low_freq_factor.value,
        high_freq_factor: high_freq_factor.value,
        original_max_positions: original_max_positions.value,
      };
    }
  }
}
