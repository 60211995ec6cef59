// The text that a model writes while it trains, with the same prompt each time, so that one can watch it learn.
import { checkPrompt, generate } from '../generate/generate.ts';
import type { NativeModel } from '../native.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** Tokens of a sample, besides the prompt. */
const LENGTH = 64;

/** Prepares samples from a prompt; an empty one stands for the beginning of a text. */
export class Sampling {
  /** Positions that the model's key-value cache must hold. */
  readonly contextLength: number;
  readonly #prompt: string;
  readonly #tokens: Int32Array;
  readonly #tokenizer: Tokenizer;
  readonly #seed: number;

  /**
   * @param contextLength what the model knows at most
   * @throws UserError where the prompt leaves no room in it: before the run, and not at its first sample.
   */
  constructor(prompt: string, tokenizer: Tokenizer, contextLength: number, seed: number) {
    this.#prompt = prompt;
    this.#tokenizer = tokenizer;
    this.#tokens = promptTokens(prompt, tokenizer);
    this.#seed = seed;
    this.contextLength = Math.min(contextLength, this.#tokens.length + LENGTH);
    checkPrompt({ prompt: this.#tokens, name: '--prompt' }, this.contextLength);
  }

  async write(model: NativeModel): Promise<string> {
    const { tokens } = await generate(model, this.#tokens, {
      sampler: { temperature: 0.8, seed: this.#seed },
      maxTokens: LENGTH,
      endOfText: this.#tokenizer.endOfText,
      contextLength: this.contextLength,
    });
    return this.#prompt + this.#tokenizer.decode(tokens);
  }
}

/** A prompt as tokens. An empty one is what stands before every text: the end of the one before, or else a new line. */
export function promptTokens(prompt: string, tokenizer: Tokenizer): Int32Array {
  if (prompt !== '') return tokenizer.encode(prompt);
  return tokenizer.endOfText === null ? tokenizer.encode('\n') : Int32Array.of(tokenizer.endOfText);
}
