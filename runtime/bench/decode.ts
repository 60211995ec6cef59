// Generation: how fast a prompt goes in, and how fast tokens come out one by one, for one text and for several at once.

import type { Model } from '../../compiler/check/model.ts';
import { compile } from '../../compiler/index.ts';
import type { Compiler } from '../../compiler/targets/cpu/toolchain.ts';
import { buildCached } from '../cache.ts';
import { NativeModel } from '../native.ts';
import { type Measurement, summarize } from './measurement.ts';
import { randomTokens } from './workload.ts';

export interface DecodeRequest {
  readonly model: Model;
  /** Texts at once, for each measurement. */
  readonly batches: readonly number[];
  /** Tokens of the prompt, and tokens after it. */
  readonly prompt: number;
  readonly tokens: number;
  readonly threads: number;
  readonly repeats: number;
}

export interface DecodeResult {
  readonly batch: number;
  /** Tokens a second of all texts together. */
  readonly prompt: Measurement;
  readonly generation: Measurement;
  /** The program's memory, the cache of keys and values included. */
  readonly memoryBytes: number;
}

/** Each repeat runs every batch, so that heat and neighbours hurt all alike; the first one is thrown away. */
export async function benchDecode(request: DecodeRequest, compiler: Compiler): Promise<DecodeResult[]> {
  const { model, batches, prompt, tokens, threads } = request;
  const { libraryPath } = await buildCached(compile(model).files, compiler);
  const runs: { batch: number; native: NativeModel; prompt: number[]; generation: number[] }[] = [];
  try {
    for (const batch of batches) {
      const options = { maxBatch: batch, maxTime: prompt, maxContext: prompt + tokens, training: false, threads };
      runs.push({ batch, native: NativeModel.open(libraryPath, options), prompt: [], generation: [] });
    }
    for (const { native } of runs) await native.initialize(1);
    for (let repeat = -1; repeat < request.repeats; repeat++) {
      for (const run of runs) {
        const { ofPrompt, ofGeneration } = await generate(run.native, run.batch, prompt, tokens);
        if (repeat < 0) continue;
        run.prompt.push((run.batch * prompt) / ofPrompt);
        run.generation.push((run.batch * tokens) / ofGeneration);
      }
    }
    return runs.map(run => ({
      batch: run.batch,
      prompt: summarize(run.prompt),
      generation: summarize(run.generation),
      memoryBytes: run.native.bytes,
    }));
  } finally {
    for (const { native } of runs) native.close();
  }
}

/** Seconds of a prompt and of the tokens after it. What comes out is not read: sampling is no part of it. */
async function generate(native: NativeModel, batch: number, prompt: number, tokens: number) {
  const text = randomTokens(native.vocabularySize, batch * prompt);
  const next = randomTokens(native.vocabularySize, batch);
  const began = performance.now();
  await native.decode(text, { batch, time: prompt, start: 0 });
  const read = performance.now();
  for (let n = 0; n < tokens; n++) await native.decode(next, { batch, time: 1, start: prompt + n });
  return { ofPrompt: (read - began) / 1000, ofGeneration: (performance.now() - read) / 1000 };
}
