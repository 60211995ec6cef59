// What a run records as it goes: metrics.jsonl, a line for each step, and samples.md. Both only ever grow at their end,
// and go back to a checkpoint's length when a run resumes from it.
import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync } from 'node:fs';
import { explainWriting, writeWhole } from '../atomic-file.ts';

/** One step, as metrics.jsonl holds it and the step line shows it. */
export interface StepRecord {
  /** Updates done, from 1. */
  readonly step: number;
  /** Mean negative log-likelihood of this step's tokens, in nats. */
  readonly loss: number;
  /** What was added to the loss besides, where there is any: of routers, and of predictions further ahead. */
  readonly auxiliary_loss?: number;
  /** Present where this step ended with an evaluation. */
  readonly validation_loss?: number;
  /** Of each source of a mixture, by its name; `validation_loss` is their mean by their shares. */
  readonly validation_losses?: Readonly<Record<string, number>>;
  readonly validation_bits_per_byte?: number;
  /** The same loss with the averages of the weights in their place, where these are kept. */
  readonly averaged_validation_loss?: number;
  /** Before clipping. */
  readonly gradient_norm: number;
  readonly learning_rate: number;
  /** Tokens given to the model since the run began. */
  readonly tokens: number;
  /** The native step alone, without evaluation and checkpoints. */
  readonly seconds: number;
  /** Of the whole process, resident. */
  readonly memory_bytes: number;
}

/** A file that is only appended to, each text at once, so that a crash loses at most the line being written. */
export class Journal {
  readonly path: string;
  readonly #file: number;

  /** @throws WriteError, as `append` does. */
  constructor(path: string) {
    this.path = path;
    try {
      this.#file = openSync(path, 'a');
    } catch (error) {
      throw explainWriting(error, path);
    }
  }

  get length(): number {
    return fstatSync(this.#file).size;
  }

  append(text: string | Uint8Array): void {
    try {
      writeWhole(this.#file, typeof text === 'string' ? Buffer.from(text, 'utf8') : text);
    } catch (error) {
      throw explainWriting(error, this.path);
    }
  }

  /** Makes what was appended last through a loss of power; a checkpoint that records `length` needs it. */
  sync(): void {
    try {
      fsyncSync(this.#file);
    } catch (error) {
      throw explainWriting(error, this.path);
    }
  }

  /** Forgets what was appended after the file had `length` bytes. */
  goBackTo(length: number): void {
    if (this.length > length) ftruncateSync(this.#file, length);
  }

  close(): void {
    closeSync(this.#file);
  }
}
