// Writing a text with a model: the prompt goes into the key-value cache, then token after token follows.
import { UserError } from '../../compiler/diagnostic.ts';
import type { NativeModel } from '../native.ts';
import { type SamplerOptions, sampleToken } from './sampler.ts';

export interface GenerateOptions {
  readonly sampler: SamplerOptions;
  readonly maxTokens: number;
  /** The token that ends the text, or null to go on until another limit. It is not part of the result. */
  readonly endOfText: number | null;
  /** Positions that the model knows: prompt and continuation together never have more. */
  readonly contextLength: number;
  /** Told each token as it is drawn. */
  readonly onToken?: (token: number) => void;
  /** Aborted: the text ends where it is. */
  readonly stop?: AbortSignal;
}

export interface Generated {
  /** Without the prompt. */
  readonly tokens: readonly number[];
  /** Why the text ended: `end` the end-of-text token, `length` the tokens asked for, `context` the model's last position. */
  readonly reason: 'end' | 'length' | 'context' | 'stopped';
}

/**
 * Continues `prompt`. The model must have been opened with a key-value cache (`maxContext`) of at least `contextLength`.
 *
 * @throws UserError where the prompt is empty or leaves no room in the context.
 */
export async function generate(model: NativeModel, prompt: Int32Array, options: GenerateOptions): Promise<Generated> {
  const { sampler, maxTokens, endOfText, contextLength } = options;
  if (prompt.length === 0) throw new UserError('the prompt is empty; give at least one character');
  if (prompt.length >= contextLength) {
    throw new UserError(
      `the prompt has ${prompt.length} tokens; the model's context of ${contextLength} leaves room for at most ` +
        `${contextLength - 1}. Shorten the prompt.`,
    );
  }
  const text = Array.from(prompt);
  const finish = (reason: Generated['reason']): Generated => ({ tokens: text.slice(prompt.length), reason });
  if (maxTokens === 0) return finish('length');
  let logits = await prefill(model, prompt);
  for (;;) {
    const token = sampleToken(logits, sampler, text.length, text);
    if (token === endOfText) return finish('end');
    text.push(token);
    options.onToken?.(token);
    if (text.length - prompt.length === maxTokens) return finish('length');
    if (text.length === contextLength) return finish('context');
    if (options.stop?.aborted) return finish('stopped');
    logits = await model.decode(Int32Array.of(token), { batch: 1, time: 1, start: text.length - 1 });
  }
}

/** Puts the prompt into the cache, in pieces that the model takes; returns the logits that follow it. */
async function prefill(model: NativeModel, prompt: Int32Array): Promise<Float32Array> {
  const piece = model.options.maxTime;
  let logits: Float32Array = new Float32Array(0);
  for (let start = 0; start < prompt.length; start += piece) {
    const tokens = prompt.slice(start, start + piece);
    logits = await model.decode(tokens, { batch: 1, time: tokens.length, start });
  }
  return logits;
}
