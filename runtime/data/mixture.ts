// A mixture: batches from several sources, each with its share of the samples. Samples are as long as each other, so that
// shares of samples are shares of tokens. Like batches of one source, what a batch holds follows from the seed and the
// number of samples before it.
import { UserError } from '../../compiler/diagnostic.ts';
import { Batches, type BatchShape } from './batches.ts';
import { Random } from './random.ts';
import type { TokenStream } from './tokens.ts';

export interface SharedStream {
  readonly name: string;
  /** Of the samples; the shares of all are 1 together. */
  readonly share: number;
  readonly training: TokenStream;
}

/** Streams of random numbers that a source has, and the one that says where its turns begin. */
const STREAMS_PER_SOURCE = 2 ** 40;
const FIRST_TURN_STREAM = 2 ** 52;

export class Mixture {
  /** As many samples as all sources have together. */
  readonly samplesPerEpoch: number;
  readonly #batch: number;
  readonly #sources: readonly Batches[];
  readonly #turns: Turns;

  /** @throws UserError where a source is shorter than one window. */
  constructor(sources: readonly SharedStream[], options: BatchShape & { readonly seed: number }) {
    this.#batch = options.batch;
    this.#sources = sources.map((source, index) => batchesOf(source, sources.length, index, options));
    this.#turns = new Turns(
      sources.map(({ share }) => share),
      options.seed,
    );
    this.samplesPerEpoch = this.#sources.reduce((sum, source) => sum + source.samplesPerEpoch, 0);
  }

  /** Fills `tokens` and `labels`, [batch][time] each, with the samples from `index` on. */
  fill(index: number, tokens: Int32Array, labels: Int32Array): void {
    for (let row = 0; row < this.#batch; row++) {
      const [source, own] = this.#turns.at(index + row);
      this.#sources[source]!.fillRow(own, row, tokens, labels);
    }
  }

  /** How often each source has been gone through after so many samples. */
  passes(samples: number): number[] {
    return this.#turns.before(samples).map((count, index) => count / this.#sources[index]!.samplesPerEpoch);
  }
}

function batchesOf(
  { name, training }: SharedStream,
  count: number,
  index: number,
  options: BatchShape & { readonly seed: number },
): Batches {
  try {
    return new Batches(training, { ...options, firstStream: index * STREAMS_PER_SOURCE });
  } catch (error) {
    throw error instanceof UserError && count > 1 ? new UserError(`${name}: ${error.message}`) : error;
  }
}

/**
 * Whose turn a sample is. Of the first n samples source 0 has floor(share n + u), with u in [0, 1) from the seed; of those
 * that it leaves, source 1 likewise by its share of the rest, and so on: at every moment each has its share, but for one
 * sample for each source before it, and any turn is found without those before it.
 */
export class Turns {
  /** Of each source the share in what those before it leave, and where its turns begin. */
  readonly #shares: readonly number[];
  readonly #starts: readonly number[];

  constructor(shares: readonly number[], seed: number) {
    this.#shares = shares.map((share, index) => share / shares.slice(index).reduce((sum, each) => sum + each, 0));
    this.#starts = shares.map((_, index) => new Random(seed, FIRST_TURN_STREAM + index).uniform());
  }

  /** The source of sample `index`, and which of its own samples that is, from 0. */
  at(index: number): [source: number, own: number] {
    let rest = index;
    for (let source = 0; source < this.#shares.length - 1; source++) {
      const own = this.#count(source, rest);
      if (this.#count(source, rest + 1) > own) return [source, own];
      rest -= own;
    }
    return [this.#shares.length - 1, rest];
  }

  /** How many of the first `samples` samples each source has. */
  before(samples: number): number[] {
    let rest = samples;
    return this.#shares.map((_, source) => {
      const own = source === this.#shares.length - 1 ? rest : this.#count(source, rest);
      rest -= own;
      return own;
    });
  }

  #count(source: number, samples: number): number {
    return Math.floor(this.#shares[source]! * samples + this.#starts[source]!);
  }
}
