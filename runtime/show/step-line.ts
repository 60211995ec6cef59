// What a training run shows: a line of columns for each logged step, under a header repeated each screen. On a terminal the
// line of the present step is redrawn in place meanwhile; elsewhere only whole lines are written.
import type { StepRecord } from '../train/metrics.ts';
import { describeCount, describeDuration, describeMemory } from './quantities.ts';

/** The part of a writable stream that is needed; `columns` and `rows` are there on a terminal. */
export interface Screen {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly rows?: number;
}

/** A value this many standard deviations above its recent mean is marked. */
const SPIKE = 4;
/** Steps whose times the rate and what is left are taken from. */
const WINDOW = 50;
/** What the columns show, and how wide the first may be; `ema`, of the averages of weights, is there where they are. */
const WIDTHS = { step: 0, loss: 7, val: 6, ema: 6, norm: 6, lr: 8, 'tok/s': 7, mem: 7, left: 6 };

export class StepLine {
  readonly #screen: Screen;
  readonly #steps: number;
  readonly #logEvery: number;
  readonly #columnsOf: readonly (readonly [name: string, width: number])[];
  readonly #loss = new Recent();
  readonly #norm = new Recent();
  readonly #clock: StepClock;
  /** The last evaluation since the last logged line. */
  #validation = '';
  #averaged = '';
  #linesLeft = 0;
  #live = false;
  #previousTokens = 0;

  /**
   * @param start the step that the run goes on from
   * @param averages whether averages of the weights are evaluated besides
   */
  constructor(
    screen: Screen,
    options: { steps: number; start: number; logEvery: number; tokensPerStep: number; averages?: boolean },
  ) {
    this.#screen = screen;
    this.#steps = options.steps;
    this.#logEvery = options.logEvery;
    this.#previousTokens = options.start * options.tokensPerStep;
    this.#clock = new StepClock(options.steps - options.start);
    const widths = { ...WIDTHS, step: `${options.steps}`.length * 2 + 1 };
    this.#columnsOf = Object.entries(widths).filter(([name]) => name !== 'ema' || options.averages);
  }

  /** Shows a step: as a line of its own where it is to be logged, else only in place on a terminal. */
  step(record: StepRecord): void {
    this.#clock.add(record.tokens - this.#previousTokens, record.seconds);
    this.#previousTokens = record.tokens;
    const lossMark = this.#loss.add(record.loss) > SPIKE ? '!' : '';
    const normMark = this.#norm.add(record.gradient_norm) > SPIKE ? '!' : '';
    if (record.validation_loss !== undefined) this.#validation = record.validation_loss.toFixed(3);
    if (record.averaged_validation_loss !== undefined) this.#averaged = record.averaged_validation_loss.toFixed(3);
    const rate = this.#clock.tokensPerSecond();
    const left = this.#clock.secondsFor(this.#steps - record.step);
    const text = this.#columns({
      step: `${record.step}/${this.#steps}`,
      loss: record.loss.toFixed(3) + lossMark,
      val: this.#validation,
      ema: this.#averaged,
      norm: record.gradient_norm.toFixed(2) + normMark,
      lr: record.learning_rate.toExponential(1).replace('e-0', 'e-'),
      'tok/s': rate === null ? '' : describeCount(rate),
      mem: describeMemory(record.memory_bytes),
      left: left === null ? '' : describeDuration(left),
    });
    const spiked = lossMark !== '' || normMark !== '';
    if (record.step % this.#logEvery === 0 || record.step === 1 || record.step === this.#steps || spiked) {
      this.#line(text);
      this.#validation = '';
      this.#averaged = '';
    } else if (this.#screen.isTTY) {
      this.#screen.write(`\r${text}\u001b[K`);
      this.#live = true;
    }
    if (record.validation_losses) this.note(`  validation  ${lossesOf(record.validation_losses)}`);
  }

  /** Shows a text that the model wrote, its first line shortened. */
  sample(text: string): void {
    const line = text.replaceAll(/\s+/g, ' ').trim();
    this.note(`  > ${line.length > 100 ? `${line.slice(0, 99)}…` : line}`);
  }

  /** Writes a line between the columns. */
  note(text: string): void {
    this.#clear();
    this.#screen.write(`${text}\n`);
    this.#linesLeft -= 1;
  }

  #line(text: string): void {
    this.#clear();
    if (this.#linesLeft <= 0) {
      const names = Object.fromEntries(this.#columnsOf.map(([name]) => [name, name]));
      this.#screen.write(`${this.#columns(names)}\n`);
      // Elsewhere than on a terminal, a header now and then still helps whoever pages through a log.
      this.#linesLeft = Math.max(8, (this.#screen.rows ?? 52) - 2);
    }
    this.#screen.write(`${text}\n`);
    this.#linesLeft -= 1;
  }

  #columns(values: Readonly<Record<string, string>>): string {
    return `  ${this.#columnsOf.map(([name, width]) => values[name]!.padEnd(width)).join('  ')}`.trimEnd();
  }

  #clear(): void {
    if (this.#live) this.#screen.write('\r\u001b[K');
    this.#live = false;
  }
}

/** The losses of a mixture's sources, by their names. */
function lossesOf(losses: NonNullable<StepRecord['validation_losses']>): string {
  return Object.entries(losses)
    .map(([name, loss]) => `${name} ${loss.toFixed(3)}`)
    .join(', ');
}

/** A running mean and variance with exponential weights: West 1979, "Updating mean and variance estimates". */
class Recent {
  #mean = 0;
  #variance = 0;
  #count = 0;

  /** Adds a value; returns how many standard deviations it lies above those before it, 0 while these are few. */
  add(value: number): number {
    this.#count += 1;
    const weight = Math.max(1 / this.#count, 0.03);
    const deviation = value - this.#mean;
    const z = this.#count > 20 && this.#variance > 0 ? deviation / Math.sqrt(this.#variance) : 0;
    this.#mean += weight * deviation;
    this.#variance = (1 - weight) * (this.#variance + weight * deviation ** 2);
    return z;
  }
}

/** Times of recent steps. The first ones warm caches and threads up and are left out; a trimmed mean forgives hiccups. */
class StepClock {
  #skip: number;
  readonly #times: { readonly tokens: number; readonly seconds: number }[] = [];

  constructor(steps: number) {
    this.#skip = Math.min(10, Math.ceil(steps / 20));
  }

  add(tokens: number, seconds: number): void {
    if (this.#skip > 0) {
      this.#skip -= 1;
      return;
    }
    this.#times.push({ tokens, seconds });
    if (this.#times.length > WINDOW) this.#times.shift();
  }

  tokensPerSecond(): number | null {
    const kept = this.#trimmed();
    if (kept.length === 0) return null;
    const total = kept.reduce((sum, { tokens, seconds }) => [sum[0]! + tokens, sum[1]! + seconds], [0, 0]);
    return total[0]! / total[1]!;
  }

  secondsFor(steps: number): number | null {
    const kept = this.#trimmed();
    if (kept.length === 0) return null;
    return (steps * kept.reduce((sum, { seconds }) => sum + seconds, 0)) / kept.length;
  }

  #trimmed() {
    const sorted = this.#times.toSorted((a, b) => a.seconds - b.seconds);
    const cut = Math.floor(sorted.length / 10);
    return sorted.slice(cut, sorted.length - cut);
  }
}
