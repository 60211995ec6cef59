// What a thread of the tokenizer does: the jobs that threads.ts sends it, one after the other.
import { parentPort, workerData } from 'node:worker_threads';
import { UserError } from '../../compiler/diagnostic.ts';
import { WordCounter } from './count.ts';
import { parseTokenizer } from './json.ts';
import type { CountedWords } from './learn.ts';
import type { SplitName } from './split.ts';
import { encodePiece, type TextPiece } from './text-piece.ts';
import type { Tokenizer } from './tokenizer.ts';
import { learnTokenizer, type TrainTokenizerOptions } from './train.ts';

/** What a thread needs to know for all its jobs: how to count, or the tokenizer.json to encode by. */
export type ThreadSettings =
  | { readonly split: SplitName; readonly specialTokens: readonly string[] }
  | { readonly tokenizer: string };

export interface Jobs {
  /** Counts a text; the counts stay with the thread. Texts are UTF-8. */
  count: { input: Uint8Array<ArrayBuffer>; result: null };
  /** All that the thread has counted. */
  counted: { input: null; result: CountedWords };
  /** Learns from what all threads have counted; tells how many tokens there are; gives tokenizer.json. */
  learn: { input: { counted: readonly CountedWords[]; options: LearnOptions }; result: string };
  encode: { input: TextPiece; result: Int32Array };
}

export type LearnOptions = Required<
  Pick<TrainTokenizerOptions, 'vocabSize' | 'minFrequency' | 'specialTokens' | 'split'>
>;

export type Reply =
  | { readonly progress: number }
  | { readonly result: unknown }
  | { readonly error: string; readonly byUser: boolean };

const settings = workerData as ThreadSettings;
const port = parentPort!;
let counter = newCounter();
let tokenizer: Tokenizer | null = null;

function newCounter(): WordCounter | null {
  return 'split' in settings ? new WordCounter(settings.split, settings.specialTokens) : null;
}

const workers: { [Kind in keyof Jobs]: (input: Jobs[Kind]['input']) => Jobs[Kind]['result'] } = {
  count(text) {
    counter!.addText(text);
    return null;
  },
  counted() {
    const counted = counter!.counted();
    counter = newCounter();
    return counted;
  },
  learn({ counted, options }) {
    const all = newCounter()!;
    for (const part of counted) all.addCounted(part);
    return learnTokenizer(all.counted(), options, done => port.postMessage({ progress: done } satisfies Reply));
  },
  encode(piece) {
    if (tokenizer === null && 'tokenizer' in settings) tokenizer = parseTokenizer(settings.tokenizer, 'the tokenizer');
    return encodePiece(piece, tokenizer!);
  },
};

port.on('message', ({ kind, input }: { kind: keyof Jobs; input: never }) => {
  try {
    const result = workers[kind](input);
    port.postMessage({ result } satisfies Reply, buffersOf(result));
  } catch (error) {
    const { message } = error as Error;
    port.postMessage({ error: message, byUser: error instanceof UserError } satisfies Reply);
  }
});

/** Buffers that are handed over instead of copied. */
function buffersOf(result: Jobs[keyof Jobs]['result']): ArrayBuffer[] {
  if (result instanceof Int32Array) return [result.buffer as ArrayBuffer];
  if (result === null || typeof result === 'string') return [];
  return [result.bytes, result.starts, result.counts].map(array => array.buffer as ArrayBuffer);
}
