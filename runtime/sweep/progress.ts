// How a sweep goes, on one line: which run, how far, and what is left of all. On a terminal it is redrawn in place; elsewhere
// each run gives a line when it ends.
import { describeCount, describeDuration } from '../show/quantities.ts';
import type { Screen } from '../show/step-line.ts';
import type { StepRecord } from '../train/metrics.ts';
import type { RunResult } from './results.ts';

/** The place of a run among all of a sweep. */
export interface Place {
  /** From 1. */
  readonly number: number;
  readonly of: number;
  readonly variant: string;
  readonly seed: number;
  readonly steps: number;
  /** What the run and those after it take, as it was found before. */
  readonly seconds: number;
  readonly secondsAfter: number;
}

/** A line that changes more often than this is not read. */
const LEAST_MILLISECONDS = 100;

export class Progress {
  readonly #screen: Screen;
  #drawnAt = 0;
  #isDrawn = false;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Shows a step, on a terminal. */
  step(place: Place, record: StepRecord): void {
    const now = performance.now();
    if (!this.#screen.isTTY || (now - this.#drawnAt < LEAST_MILLISECONDS && record.step < place.steps)) return;
    const left = place.seconds * (1 - record.step / place.steps) + place.secondsAfter;
    const done = `step ${record.step}/${place.steps}  loss ${record.loss.toFixed(3)}`;
    this.#screen.write(`\r${head(place)}  ${done}  ${describeDuration(left)} left of all\u001b[K`);
    this.#drawnAt = now;
    this.#isDrawn = true;
  }

  /** Shows what a run came to. */
  ended(place: Place, { state, loss, bitsPerByte, tokensPerSecond, seconds, steps, reason }: RunResult): void {
    const rate = tokensPerSecond === null ? '' : `  ${describeCount(tokensPerSecond)} tokens/s`;
    const bits = bitsPerByte === null ? '' : ` (${bitsPerByte.toFixed(3)} bits a byte)`;
    const early = state === 'patience' ? `  ended at step ${steps}` : '';
    const what =
      state === 'failed'
        ? `failed: ${reason!.split('\n')[0]}`
        : `val loss ${loss?.toFixed(4) ?? ''}${bits}${rate}  ${describeDuration(seconds)}${early}`;
    this.note(`${head(place)}  ${what}`);
  }

  /** Writes a line of its own. */
  note(text: string): void {
    if (this.#isDrawn) this.#screen.write('\r\u001b[K');
    this.#isDrawn = false;
    this.#screen.write(`${text}\n`);
  }
}

const head = ({ number, of, variant, seed }: Place): string =>
  `  ${String(number).padStart(String(of).length)}/${of}  ${variant}  seed ${seed}`;
