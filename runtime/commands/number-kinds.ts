// The kinds of numbers that options take. The command line holds every given value against its option's kind before the
// command runs, so that nobody waits for a text to be read only to hear that --lr may not be 0.

export interface NumberKind {
  /** In words that fit before "is needed". */
  readonly expected: string;
  holds(value: number): boolean;
}

/** More threads than any machine has cores. */
const MOST_THREADS = 1024;

const whole = (least: number): NumberKind => ({
  expected: `a whole number of at least ${least}`,
  holds: value => Number.isSafeInteger(value) && value >= least,
});

export const numberKinds = {
  count: whole(1),
  countOrNone: whole(0),
  threads: {
    expected: `a whole number from 1 to ${MOST_THREADS}`,
    holds: value => Number.isInteger(value) && value >= 1 && value <= MOST_THREADS,
  },
  aboveZero: { expected: 'a number above 0', holds: value => value > 0 && Number.isFinite(value) },
  zeroOrAbove: { expected: '0 or a number above', holds: value => value >= 0 && Number.isFinite(value) },
  share: { expected: 'a number from 0 to 1', holds: value => value >= 0 && value <= 1 },
  shareAboveZero: { expected: 'a number above 0, at most 1,', holds: value => value > 0 && value <= 1 },
  shareBelowOne: { expected: 'a number from 0 to less than 1', holds: value => value >= 0 && value < 1 },
} as const satisfies Readonly<Record<string, NumberKind>>;
