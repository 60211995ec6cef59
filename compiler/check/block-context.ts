// What the parts of a block need to know of the model that uses it, and what checking their dimensions shares.
import type { Diagnostic } from '../diagnostic.ts';
import type { Span } from '../syntax/syntax.ts';
import type { Definitions } from './definitions.ts';
import type { Setting } from './properties.ts';

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

/** A number of elements of a head, where it was said and, where it was worked out, how. */
export interface HeadDimension {
  readonly name: 'head_dim' | 'rope_head_dim';
  readonly value: number;
  readonly span: Span | null;
  readonly derived: string | null;
}

/** A property that is written, as a message's note points to it. */
export const placed = (name: string, { property }: Setting<unknown>) => ({ name, span: property!.span });

/** A number and where it was written, as a message's note says it. */
export const numberPlaced = ({ value, property }: Setting<number>) => ({ value, span: property?.span ?? null });

/** The divisors of `whole` that are nearest to `near`, one on each side where there is one. */
export function nearestDivisors(whole: number, near: number): number[] {
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
