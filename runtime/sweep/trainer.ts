// What a sweep asks of `malc train`, which does everything with a single run: the command hands it in, for commands know
// the sweep and not the other way round.
import type { Observer, TrainResult } from '../train/loop.ts';
import type { Prepared } from '../train/prepare.ts';

/** Options of `malc train` by their long names. */
export type TrainOptions = Readonly<Record<string, unknown>>;

/** A run's program as it was found to be. */
export interface Measured {
  /** What the program holds, exactly. */
  readonly bytes: number;
  /** Of the median step. */
  readonly secondsPerStep: number;
}

/** A run that came to nothing, as its model or its numbers have it: it failed a check, diverged, or found no memory. */
export interface RunFailure {
  readonly ending: 'failed';
  readonly reason: string;
}

/** What a run tells while it goes on. */
export type RunObserver = Pick<Observer, 'step'> & { note(text: string): void };

export interface Trainer {
  /**
   * All that a run would be. Nothing is compiled, and nothing written.
   *
   * @throws UserError as `malc train` does, here and below.
   */
  prepare(options: TrainOptions): Promise<Prepared>;
  /** Compiles the run's program and takes a few steps with it. Nothing is written but the cache of programs. */
  measure(options: TrainOptions): Promise<Measured>;
  /**
   * Trains, or goes on, up to the end or until Ctrl-C; what is left is an ordinary run folder.
   *
   * @throws UserError and MachineError as `malc train` does for what is no fault of the run's own, such as its data.
   */
  train(options: TrainOptions, observer: RunObserver): Promise<TrainResult | RunFailure>;
}
