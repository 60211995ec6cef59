// Messages about dimensions that do not fit each other, one constructor each. `where` says which block of which model, and
// its layers; both numbers are in the message, and the note points to the other one.
import type { Diagnostic } from './diagnostic.ts';
import { either, error, quoted } from './message.ts';
import type { Span } from './syntax/syntax.ts';

/** A number and where it is written; null for a default. */
interface PlacedNumber {
  readonly value: number;
  readonly span: Span | null;
}

const noteOf = (name: string, { value, span }: PlacedNumber): Diagnostic['notes'][number] => ({
  message: `${name} is ${value}${span ? ' here' : ' by default'}`,
  span,
});

export const headsDoNotDivide = (
  span: Span | null,
  where: string,
  hidden: PlacedNumber,
  heads: number,
  nearby: readonly number[],
) =>
  error(
    span,
    `in ${where}, num_heads ${heads} does not divide hidden_size ${hidden.value}`,
    `${either(nearby.map(String))} heads would divide it; or give \`head_dim\``,
    [noteOf('hidden_size', hidden)],
  );

export const keyHeadsDoNotDivide = (
  span: Span | null,
  where: string,
  heads: PlacedNumber,
  keyHeads: number,
  nearby: readonly number[],
) =>
  error(
    span,
    `in ${where}, num_kv_heads ${keyHeads} does not divide num_heads ${heads.value}`,
    `each key-value head serves the same number of heads: ${either(nearby.map(String))} would divide ${heads.value}`,
    [noteOf('num_heads', heads)],
  );

export const oddHeadDimension = (
  where: string,
  { name, value, span, derived }: { name: string; value: number; span: Span | null; derived: string | null },
) =>
  error(
    span,
    `in ${where}, ${name} ${value} is odd${derived ? ` (${derived})` : ''}, and rope turns pairs of elements`,
    `give an even ${quoted(name)}, such as ${value + 1}, or ` +
      (name === 'head_dim' ? 'another `position_encoding`' : '0 for heads without rope'),
  );

export const oddWidth = (span: Span | null, where: string, hidden: number) =>
  error(
    span,
    `in ${where}, hidden_size ${hidden} is odd, and the sinusoidal position_encoding is pairs of a sine and a cosine`,
    'give an even `hidden_size`, or another `position_encoding`',
  );

export const ropeDimensions = (span: Span, where: string, dims: number, headDim: number) =>
  error(
    span,
    dims > headDim
      ? `in ${where}, rope's dims ${dims} is more than head_dim ${headDim}`
      : `in ${where}, rope's dims ${dims} is odd, and rope turns pairs of elements`,
    `give an even number up to ${headDim}`,
  );

export const ropeScaling = (span: Span, where: string, kind: string, condition: string) =>
  error(span, `in ${where}, ${quoted(kind)} scaling needs ${condition}`);

export const tooFewPositions = (span: Span, where: string, positions: number, length: PlacedNumber) =>
  error(
    span,
    `in ${where}, max_positions ${positions} is less than max_seq_len ${length.value}`,
    'positions beyond the table would have no vector: raise max_positions or lower max_seq_len',
    [noteOf('max_seq_len', length)],
  );

interface LearnedPositions {
  readonly where: string;
  readonly positions: number;
  readonly span: Span | null;
}

export const positionsDisagree = (first: LearnedPositions, second: LearnedPositions) =>
  error(
    second.span,
    `${second.where} has ${second.positions} learned positions, and ${first.where} has ${first.positions}`,
    'the table of learned positions is one for the whole model: give both the same max_positions',
    [{ message: `${first.positions} here`, span: first.span }],
  );

/** A property that `kind: mla` leaves no room for. */
export const besideLatent = (span: Span, name: string, why: string, kind: Span) =>
  error(span, `${quoted(name)} does not go with \`kind: mla\`: ${why}`, 'remove it', [
    { message: 'the latent is given here', span: kind },
  ]);

export const ropeOfNothing = (span: Span, where: string, encoding: Span) =>
  error(
    span,
    `in ${where}, rope_head_dim is 0, and position_encoding is rope`,
    'give a `rope_head_dim` above 0 or, for heads without rope, `position_encoding: none`',
    [{ message: 'rope is asked for here', span: encoding }],
  );

export const latentNeedsRope = (span: Span, where: string, dims: number, encoding: string, place: Span) =>
  error(
    span,
    `in ${where}, rope_head_dim is ${dims}, and position_encoding is ${encoding}`,
    'set `rope_head_dim: 0`, or remove `position_encoding`, which is then rope',
    [{ message: `${encoding} is asked for here`, span: place }],
  );

export const moreThanExperts = (span: Span, where: string, topK: number, experts: PlacedNumber) =>
  error(
    span,
    `in ${where}, top_k ${topK} is more than experts ${experts.value}`,
    `a token chooses from 1 to ${experts.value} of them`,
    [noteOf('experts', experts)],
  );

export const groupsDoNotDivide = (
  span: Span,
  where: string,
  groups: number,
  experts: PlacedNumber,
  nearby: readonly number[],
) =>
  error(
    span,
    `in ${where}, groups ${groups} does not divide experts ${experts.value}`,
    `groups are of one size: ${either(nearby.map(String))} would divide ${experts.value}`,
    [noteOf('experts', experts)],
  );

export const moreThanGroups = (span: Span, where: string, topGroups: number, groups: PlacedNumber) =>
  error(
    span,
    `in ${where}, top_groups ${topGroups} is more than groups ${groups.value}`,
    `a token chooses from 1 to ${groups.value} of them`,
    [noteOf('groups', groups)],
  );

export const moreThanInGroups = (span: Span, where: string, topK: number, topGroups: PlacedNumber, size: number) =>
  error(
    span,
    `in ${where}, top_k ${topK} is more than the ${topGroups.value * size} experts of the chosen groups ` +
      `(top_groups ${topGroups.value} of ${size} experts each)`,
    'lower `top_k`, or raise `top_groups`',
    [noteOf('top_groups', topGroups)],
  );

export const groupsOfOne = (span: Span, where: string, groups: number, experts: PlacedNumber) =>
  error(
    span,
    `in ${where}, groups ${groups} of experts ${experts.value} hold 1 each, and the sigmoid router ranks a group by its two best`,
    'give groups of at least 2 experts, or `router: softmax`',
    [noteOf('experts', experts)],
  );

export const moduleTooFarAhead = (span: Span, where: string, depth: number, length: PlacedNumber) =>
  error(
    span,
    `in ${where}, mtp's depth ${depth} is not below max_seq_len ${length.value}`,
    'the last module predicts the token depth + 1 ahead, which must be in the sequence: lower `depth`',
    [noteOf('max_seq_len', length)],
  );

export const overflow = (span: Span | null, where: string, what: string, value: number, limit: number) =>
  error(span, `in ${where}, ${what} is ${value}, more than ${limit}`);
