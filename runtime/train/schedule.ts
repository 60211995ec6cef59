// The learning rate of each step: a linear warm-up to the peak, and from there one of four ways down to a share of it.

/** What follows the warm-up. */
export const scheduleKinds = ['cosine', 'linear', 'wsd', 'constant'] as const;
export type ScheduleKind = (typeof scheduleKinds)[number];

export interface Schedule {
  readonly kind: ScheduleKind;
  /** The highest learning rate. */
  readonly peak: number;
  /** Where the way down ends, as a share of the peak; `constant` has none. */
  readonly floor: number;
  readonly warmupSteps: number;
  /** The last steps, in which `wsd` goes down. */
  readonly decaySteps: number;
  readonly steps: number;
}

/**
 * The learning rate of step `step`, counted from 0.
 *
 * Sources: cosine: Loshchilov, Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017, equation 5, without
 * restarts; wsd (warm-up, stable, decay): Hu et al., "MiniCPM", 2024, with the decay of Haegele et al., "Scaling laws and
 * compute-optimal training beyond fixed training durations", 2024, equation 1: one minus a square root.
 */
export function learningRateAt(schedule: Schedule, step: number): number {
  const { kind, peak, floor, warmupSteps, decaySteps, steps } = schedule;
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  const between = (share: number) => floor * peak + (1 - floor) * peak * share;
  const progress = (step - warmupSteps) / (steps - warmupSteps);
  switch (kind) {
    case 'cosine':
      return between(0.5 * (1 + Math.cos(Math.PI * progress)));
    case 'linear':
      return between(1 - progress);
    case 'wsd':
      return between(1 - Math.sqrt(Math.max(0, step - (steps - decaySteps)) / decaySteps));
    case 'constant':
      return peak;
  }
}
