// Worker threads that count words, learn merges and encode texts, beside a main thread that reads and writes files.
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { UserError } from '../../compiler/diagnostic.ts';
import type { Jobs, Reply, ThreadSettings } from './worker.ts';

/** More threads than this only wait for the one that reads. */
const MOST_THREADS = 8;
/** Megabytes of young objects that a thread may have: what it makes of a piece of text is soon of no more use. */
const YOUNG = 8;
/** Jobs that a thread has at most: one that it does, and the next. */
const JOBS_AT_ONCE = 2;

/** Beside the bundle of the command line lies the bundle of the threads; see build.mjs. */
const entry = new URL(
  import.meta.url.endsWith('.ts') ? './worker-from-source.mjs' : './tokenizer-worker.js',
  import.meta.url,
);

/** Texts for threads, in UTF-8, in memory or as they are read. */
export type Texts = Iterable<Uint8Array<ArrayBuffer>> | AsyncIterable<Uint8Array<ArrayBuffer>>;

export class Threads {
  readonly #threads: Thread[];

  /** As many threads as the machine has processors, up to `most`, with what they need to know for all their jobs. */
  constructor(settings: ThreadSettings, most = MOST_THREADS) {
    const count = Math.min(most, availableParallelism());
    this.#threads = Array.from({ length: count }, () => new Thread(settings));
  }

  /** Does one job on the thread that has the fewest. What is in `transfer` is the thread's from then on. */
  run<Kind extends keyof Jobs>(
    kind: Kind,
    input: Jobs[Kind]['input'],
    options: { transfer?: ArrayBuffer[]; onProgress?: (done: number) => void } = {},
  ): Promise<Jobs[Kind]['result']> {
    const idlest = this.#threads.reduce((a, b) => (b.jobs < a.jobs ? b : a));
    return idlest.run(kind, input, options.transfer ?? [], options.onProgress ?? (() => {}));
  }

  /** Does one job on every thread. */
  onEach<Kind extends keyof Jobs>(kind: Kind, input: Jobs[Kind]['input']): Promise<Jobs[Kind]['result'][]> {
    return Promise.all(this.#threads.map(thread => thread.run(kind, input, [], () => {})));
  }

  /**
   * Results for texts, in their order; texts are drawn only as fast as threads have use for them.
   *
   * @param givenAway the memory of a text, which is the thread's from then on
   */
  async *map<Kind extends 'count' | 'encode'>(
    kind: Kind,
    texts: Iterable<Jobs[Kind]['input']> | AsyncIterable<Jobs[Kind]['input']>,
    givenAway: (text: Jobs[Kind]['input']) => ArrayBuffer,
  ): AsyncGenerator<Jobs[Kind]['result']> {
    const waiting: Promise<Jobs[Kind]['result']>[] = [];
    for await (const text of texts) {
      if (waiting.length === JOBS_AT_ONCE * this.#threads.length) yield await waiting.shift()!;
      const result = this.run(kind, text, { transfer: [givenAway(text)] });
      result.catch(() => {}); // It is thrown where it is awaited, which may be never, after another error.
      waiting.push(result);
    }
    for (const result of waiting) yield await result;
  }

  /** Ends the threads, whatever they do. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map(thread => thread.close()));
  }
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
  readonly onProgress: (done: number) => void;
}

class Thread {
  readonly #worker: Worker;
  /** Those who wait for this thread, in the order of their jobs. */
  readonly #waiting: Waiting[] = [];
  /** Why the thread ended; null while it runs. */
  #fault: Error | null = null;

  constructor(settings: ThreadSettings) {
    this.#worker = new Worker(entry, {
      workerData: settings,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG },
    });
    this.#worker.on('message', (reply: Reply) => this.#receive(reply));
    this.#worker.on('error', error => this.#fail(error as Error));
    this.#worker.on('exit', () => this.#fail(new Error('a thread of the tokenizer ended before its work')));
  }

  get jobs(): number {
    return this.#waiting.length;
  }

  run<Kind extends keyof Jobs>(
    kind: Kind,
    input: Jobs[Kind]['input'],
    transfer: ArrayBuffer[],
    onProgress: (done: number) => void,
  ): Promise<Jobs[Kind]['result']> {
    return new Promise((resolve, reject) => {
      // What is sent to a thread that has ended is never answered.
      if (this.#fault) return reject(this.#fault);
      this.#waiting.push({ resolve, reject, onProgress });
      this.#worker.postMessage({ kind, input }, transfer);
    });
  }

  close(): Promise<number> {
    return this.#worker.terminate();
  }

  #receive(reply: Reply): void {
    if ('progress' in reply) {
      this.#waiting[0]!.onProgress(reply.progress);
      return;
    }
    const { resolve, reject } = this.#waiting.shift()!;
    if ('result' in reply) resolve(reply.result as never);
    else reject(reply.byUser ? new UserError(reply.error) : new Error(reply.error));
  }

  #fail(error: Error): void {
    this.#fault ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
