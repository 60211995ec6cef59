// Batches of windows from a token stream: shuffled for training, in order for validation. What a batch holds is a pure
// function of the seed and the number of samples drawn before it, so that one integer is the whole cursor of a run.
import { UserError } from '../../compiler/diagnostic.ts';
import { orderOf, Random } from './random.ts';
import type { TokenStream } from './tokens.ts';

/** Positions that are not scored, as malc.h has it. */
const NOT_SCORED = -1;

/** Streams of random numbers that an epoch takes, one for its order and one for its offset. */
const STREAMS_PER_EPOCH = 2;

export interface BatchShape {
  /** Sequences in a batch. */
  readonly batch: number;
  /** Positions in a sequence. */
  readonly time: number;
}

/**
 * Training batches. In each epoch the stream is cut into windows of time + 1 tokens, one every `time` tokens, so that
 * each token but the first is a label once; the cuts are shifted by an offset in [0, time) that changes from epoch to
 * epoch, and the windows come in a random order. All epochs have as many samples: what the offset pushes over the end
 * of the stream is left out for that epoch.
 */
export class Batches {
  readonly samplesPerEpoch: number;
  readonly #tokens: TokenStream;
  readonly #shape: BatchShape;
  readonly #seed: number;
  readonly #firstStream: number;
  #epoch = -1;
  #offset = 0;
  #order: (place: number) => number = place => place;

  /**
   * @param options.firstStream of the random numbers, of which each epoch takes two streams
   * @throws UserError where the stream is shorter than one window.
   */
  constructor(tokens: TokenStream, options: BatchShape & { readonly seed: number; readonly firstStream?: number }) {
    const { batch, time, seed, firstStream = 0 } = options;
    if (tokens.length < time + 1)
      throw new UserError(
        `the training text has ${tokens.length} tokens, and one window of ${time} positions needs ${time + 1}; ` +
          'give more text (--data) or shorter windows (--seq-len)',
      );
    this.#tokens = tokens;
    this.#shape = { batch, time };
    this.#seed = seed;
    this.#firstStream = firstStream;
    this.samplesPerEpoch = Math.max(1, Math.floor(tokens.length / time) - 1);
  }

  /** Where the window of a sample begins in the stream; samples are numbered from 0 and go on over the epochs. */
  sampleAt(index: number): number {
    const { time } = this.#shape;
    const epoch = Math.floor(index / this.samplesPerEpoch);
    if (epoch !== this.#epoch) {
      const stream = this.#firstStream + epoch * STREAMS_PER_EPOCH;
      const offsets = Math.min(time, this.#tokens.length - this.samplesPerEpoch * time);
      this.#order = orderOf(this.samplesPerEpoch, this.#seed, stream);
      this.#offset = new Random(this.#seed, stream + 1).below(offsets);
      this.#epoch = epoch;
    }
    return this.#offset + this.#order(index - epoch * this.samplesPerEpoch) * time;
  }

  /** Fills `tokens` and `labels`, [batch][time] each, with the samples from `index` on. */
  fill(index: number, tokens: Int32Array, labels: Int32Array): void {
    for (let row = 0; row < this.#shape.batch; row++) this.fillRow(index + row, row, tokens, labels);
  }

  /** Fills one row of `tokens` and `labels` with the sample `index`. */
  fillRow(index: number, row: number, tokens: Int32Array, labels: Int32Array): void {
    fillRow(this.#tokens, this.sampleAt(index), this.#shape.time, row, tokens, labels);
  }
}

/** Validation batches: windows that follow one another, each label once; what the last batch lacks is not scored. */
export class ValidationBatches {
  /** Batches that hold the whole stream. */
  readonly count: number;
  readonly #tokens: TokenStream;
  readonly #shape: BatchShape;

  /** @throws UserError where the stream has no two tokens. */
  constructor(tokens: TokenStream, { batch, time }: BatchShape) {
    if (tokens.length < 2)
      throw new UserError(
        `the validation text has ${tokens.length} token(s), and scoring one needs 2; ` +
          'give more text (--data) or hold out more of it (--validation-share)',
      );
    this.#tokens = tokens;
    this.#shape = { batch, time };
    this.count = Math.ceil((tokens.length - 1) / (batch * time));
  }

  /** Fills `tokens` and `labels`, [batch][time] each, with batch number `index`. */
  fill(index: number, tokens: Int32Array, labels: Int32Array): void {
    const { batch, time } = this.#shape;
    for (let row = 0; row < batch; row++)
      fillRow(this.#tokens, (index * batch + row) * time, time, row, tokens, labels);
  }
}

/** One row: the window that begins at `start`, and beyond the stream's end token 0, not scored. */
function fillRow(
  stream: TokenStream,
  start: number,
  time: number,
  row: number,
  tokens: Int32Array,
  labels: Int32Array,
): void {
  const scored = Math.max(0, Math.min(time, stream.length - 1 - start));
  const [first, end] = [row * time, (row + 1) * time];
  if (scored > 0) {
    stream.read(start, scored, tokens, first);
    stream.read(start + 1, scored, labels, first);
  }
  tokens.fill(0, first + scored, end);
  labels.fill(NOT_SCORED, first + scored, end);
}
