// How far data is: one line on standard error, rewritten in place and cleared at the end.
import type { DataProgress } from '../data/progress.ts';
import { describeDuration, describeMemory } from './quantities.ts';
import type { Screen } from './step-line.ts';

/** What takes less is not told, nor are two lines told within so many milliseconds. */
const PATIENCE = 500;
const INTERVAL = 100;

const doing = {
  fetch: 'fetching',
  read: 'reading',
  count: 'counting words',
  merge: 'learning tokens',
  tokenize: 'tokenizing',
} as const satisfies Record<DataProgress['phase'], string>;

export class DataLine {
  readonly #screen: Screen;
  #phase: DataProgress['phase'] | null = null;
  #began = 0;
  #told = 0;
  #isShown = false;

  /** Where the screen is no terminal, nothing is shown. */
  constructor(screen: Screen) {
    this.#screen = screen;
  }

  readonly tell = ({ phase, done, total }: DataProgress): void => {
    if (!this.#screen.isTTY) return;
    const now = performance.now();
    if (phase !== this.#phase) [this.#phase, this.#began, this.#told] = [phase, now, now + PATIENCE - INTERVAL];
    if (now - this.#told < INTERVAL) return;
    this.#told = now;
    const seconds = (now - this.#began) / 1000;
    const amount = phase === 'merge' ? (value: number) => value.toLocaleString('en') : describeMemory;
    const of = total === null ? '' : ` of ${amount(total)}`;
    const rate = phase === 'merge' ? '' : `, ${describeMemory(done / seconds)}/s`;
    const left = total === null ? '' : `, ${describeDuration((seconds * (total - done)) / Math.max(1, done))} left`;
    this.#screen.write(`\r${doing[phase]}: ${amount(done)}${of}${rate}${left}\u001b[K`);
    this.#isShown = true;
  };

  readonly clear = (): void => {
    if (this.#isShown) this.#screen.write('\r\u001b[K');
    this.#isShown = false;
  };
}
