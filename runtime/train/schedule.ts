// The learning rate of each step: a linear warm-up, then half a cosine down to a share of the peak.
// Loshchilov, Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017, equation 5, without restarts.

export interface Schedule {
  /** The highest learning rate. */
  readonly peak: number;
  /** Where the cosine ends, as a share of the peak. */
  readonly floor: number;
  readonly warmupSteps: number;
  readonly steps: number;
}

/** The learning rate of step `step`, counted from 0. */
export function learningRateAt(schedule: Schedule, step: number): number {
  const { peak, floor, warmupSteps, steps } = schedule;
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  const progress = (step - warmupSteps) / (steps - warmupSteps);
  return floor * peak + (1 - floor) * peak * 0.5 * (1 + Math.cos(Math.PI * progress));
}
