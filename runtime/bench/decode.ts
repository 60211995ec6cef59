// Generation: how fast prompts go in, and how fast tokens come out one by one, for one text and for several at once, of the
// same length and of different ones.

import type { Model } from '../../compiler/check/model.ts';
import { compile } from '../../compiler/index.ts';
import type { ProductType } from '../../compiler/targets/cpu/kernel-source.ts';
import { compiledFor } from '../../compiler/targets/names.ts';
import { buildCachedBy } from '../cache.ts';
import { NativeModel } from '../native.ts';
import { type Measurement, summarize } from './measurement.ts';
import type { Place } from './place.ts';
import { randomTokens } from './workload.ts';

export interface DecodeRequest {
  readonly model: Model;
  readonly dtype: ProductType;
  /** Texts at once, for each measurement. */
  readonly batches: readonly number[];
  /** Tokens of the longest prompt, and tokens after each. */
  readonly prompt: number;
  readonly tokens: number;
  readonly threads: number;
  readonly repeats: number;
}

/** Whether the texts of a batch are equally long, or their prompts grow evenly up to the longest. */
export type Lengths = 'alike' | 'different';

export interface DecodeResult {
  readonly batch: number;
  readonly lengths: Lengths;
  /** Tokens a second of all texts together. */
  readonly prompt: Measurement;
  readonly generation: Measurement;
  /** The program's memory, the cache of keys and values included. */
  readonly memoryBytes: number;
}

/** Each repeat runs every batch, so that heat and neighbours hurt all alike; the first one is thrown away. */
export async function benchDecode(request: DecodeRequest, place: Place): Promise<DecodeResult[]> {
  const { model, dtype, batches, prompt, tokens, threads } = request;
  const { target, builder, device } = place;
  const { files } = compile(model, { target: compiledFor(target), dtype });
  const { libraryPath } = await buildCachedBy(files, builder);
  const opened: NativeModel[] = [];
  try {
    for (const maxBatch of batches) {
      const maxContext = prompt + tokens;
      const options = { maxBatch, maxTime: prompt, maxContext, training: false, threads, device };
      const native = NativeModel.open(libraryPath, options);
      opened.push(native);
      await native.initialize(1);
    }
    const runs = opened.flatMap(native => runsOf(native, prompt));
    for (let repeat = -1; repeat < request.repeats; repeat++) {
      for (const run of runs) {
        const { ofPrompt, ofGeneration } = await generate(run.native, run.prompts, tokens);
        if (repeat < 0) continue;
        run.prompt.push(run.prompts.reduce((sum, length) => sum + length, 0) / ofPrompt);
        run.generation.push((run.prompts.length * tokens) / ofGeneration);
      }
    }
    return runs.map(run => ({
      batch: run.prompts.length,
      lengths: run.lengths,
      prompt: summarize(run.prompt),
      generation: summarize(run.generation),
      memoryBytes: run.native.bytes,
    }));
  } finally {
    for (const native of opened) native.close();
  }
}

/** One measurement, and what it found so far. */
interface Run {
  readonly native: NativeModel;
  readonly lengths: Lengths;
  /** Tokens of each text's prompt. */
  readonly prompts: readonly number[];
  readonly prompt: number[];
  readonly generation: number[];
}

/** All prompts of the same length, and, of several texts, the n-th of `batch` with n / batch of it. */
function runsOf(native: NativeModel, longest: number): Run[] {
  const { maxBatch: batch } = native.options;
  const run = (lengths: Lengths, lengthOf: (n: number) => number): Run => ({
    native,
    lengths,
    prompts: Array.from({ length: batch }, (_, n) => lengthOf(n)),
    prompt: [],
    generation: [],
  });
  const alike = run('alike', () => longest);
  return batch === 1 ? [alike] : [alike, run('different', n => Math.ceil(((n + 1) * longest) / batch))];
}

/** Seconds of prompts, in one call, and of the tokens after them. What comes out is not read: sampling is no part of it. */
async function generate(native: NativeModel, prompts: readonly number[], tokens: number) {
  const batch = prompts.length;
  const time = Math.max(...prompts);
  const text = randomTokens(native.vocabularySize, batch * time);
  const next = randomTokens(native.vocabularySize, batch);
  const counts = Int32Array.from(prompts);
  const began = performance.now();
  await native.decode(text, { batch, time, starts: new Int32Array(batch), counts });
  const read = performance.now();
  for (let n = 0; n < tokens; n++)
    await native.decode(next, { batch, time: 1, starts: counts.map(count => count + n) });
  return { ofPrompt: (read - began) / 1000, ofGeneration: (performance.now() - read) / 1000 };
}
