// Writing texts with a model: a prompt goes into the key-value cache, then token after token follows. Several texts are
// written at once, and where one ends the next takes its place (continuous batching: Yu et al., Orca, 2022).
import { UserError } from '../../compiler/diagnostic.ts';
import { NOT_A_NUMBER } from '../interface.ts';
import type { NativeModel } from '../native.ts';
import { notANumber, type SamplerOptions, sampleToken } from './sampler.ts';

/** What ends a text, and what hears of it. */
interface Limits {
  readonly maxTokens: number;
  /** The token that ends the text, or null to go on until another limit. It is not part of the result. */
  readonly endOfText: number | null;
  /** Positions that the model knows: prompt and continuation together never have more. */
  readonly contextLength: number;
  /** Aborted: texts end where they are. */
  readonly stop?: AbortSignal;
}

export interface GenerateOptions extends Limits {
  readonly sampler: SamplerOptions;
  /** Told each token as it is drawn. */
  readonly onToken?: (token: number) => void;
}

export interface GenerateAllOptions extends Limits {
  /** Told each text as it ends, by its number. */
  readonly onText?: (number: number, text: Generated) => void;
}

/** A text to be written. */
export interface Beginning {
  readonly prompt: Int32Array;
  /** What messages call the prompt: `the prompt`, `prompt 3`. */
  readonly name: string;
  readonly sampler: SamplerOptions;
  /** Told each token as it is drawn. */
  readonly onToken?: ((token: number) => void) | undefined;
}

export interface Generated {
  /** Without the prompt. */
  readonly tokens: readonly number[];
  /** Why the text ended: `end` the end-of-text token, `length` the tokens asked for, `context` the model's last position. */
  readonly reason: 'end' | 'length' | 'context' | 'stopped';
}

/**
 * Continues `prompt`. The model's key-value cache (`maxContext`) must have room for it and `maxTokens` more, or for
 * `contextLength` where that is less.
 *
 * @throws UserError where the prompt is empty or leaves no room in the context.
 */
export async function generate(model: NativeModel, prompt: Int32Array, options: GenerateOptions): Promise<Generated> {
  const { sampler, onToken } = options;
  const [text] = await generateAll(model, [{ prompt, name: 'the prompt', sampler, onToken }], options);
  return text!;
}

/**
 * Continues each of the prompts, as many at once as the model was opened for (`maxBatch`). Each text is what it would be
 * alone: its tokens are drawn by its own sampler's seed and their positions in it, and no text sees another. Of up to 8 at
 * once the logits are the same to the bit; the products of more rows add up in another order, and a bf16 or int8 program
 * rounds more of what they read.
 *
 * @returns the texts in the order of the prompts
 * @throws UserError where a prompt is empty or leaves no room in the context, before anything is written; and where the
 * model's answer to one is not a number. The message names the prompt.
 */
export async function generateAll(
  model: NativeModel,
  beginnings: readonly Beginning[],
  options: GenerateAllOptions,
): Promise<Generated[]> {
  for (const beginning of beginnings) checkPrompt(beginning, options.contextLength);
  const results: Generated[] = [];
  let begun = 0;
  /** The next text that wants a token; null once all were begun. */
  const next = (): Text | null => {
    for (; begun < beginnings.length; begun++) {
      const text = new Text(begun, beginnings[begun]!, options);
      if (text.ended === null) {
        begun++;
        return text;
      }
      finish(text.number, text.ended);
    }
    return null;
  };
  const finish = (number: number, text: Generated) => {
    results[number] = text;
    options.onText?.(number, text);
  };
  const slots = Array.from({ length: Math.min(model.options.maxBatch, beginnings.length) }, next);
  while (slots.some(text => text !== null)) {
    await advance(model, slots);
    slots.forEach((text, slot) => {
      if (!text?.ended) return;
      finish(text.number, text.ended);
      slots[slot] = next();
    });
  }
  return results;
}

/** @throws UserError where a prompt is empty or leaves no room in the context. */
export function checkPrompt({ prompt, name }: Pick<Beginning, 'prompt' | 'name'>, contextLength: number): void {
  if (prompt.length === 0) throw new UserError(`${name} is empty; give at least one character`);
  if (prompt.length >= contextLength) {
    throw new UserError(
      `${name} has ${prompt.length} tokens; the model's context of ${contextLength} leaves room for at most ` +
        `${contextLength - 1}. Shorten the prompt.`,
    );
  }
}

/** The token that follows a text. */
type Draw = (sampler: SamplerOptions, text: readonly number[]) => number;

/** A text in the making. */
class Text {
  readonly number: number;
  ended: Generated | null = null;
  /** Tokens of it that the cache holds. */
  cached = 0;
  readonly #beginning: Beginning;
  readonly #limits: Limits;
  readonly #tokens: number[];

  constructor(number: number, beginning: Beginning, limits: Limits) {
    this.number = number;
    this.#beginning = beginning;
    this.#limits = limits;
    this.#tokens = Array.from(beginning.prompt);
    const reason = this.#reasonToEnd(null);
    if (reason) this.#end(reason);
  }

  /** What the cache does not hold yet, at most `most` tokens of it. */
  pending(most: number): readonly number[] {
    return this.#tokens.slice(this.cached, this.cached + most);
  }

  /** False once the cache lacks no more than the last token. */
  get isReading(): boolean {
    return this.cached < this.#tokens.length - 1;
  }

  get sampler(): SamplerOptions {
    return this.#beginning.sampler;
  }

  /** Takes note that `count` more tokens are in the cache; after the last of them the next is drawn. */
  heard(count: number, draw: Draw): void {
    this.cached += count;
    const token = this.cached === this.#tokens.length ? this.#draw(draw) : null;
    if (token !== null && token !== this.#limits.endOfText) {
      this.#tokens.push(token);
      this.#beginning.onToken?.(token);
    }
    const reason = this.#reasonToEnd(token);
    if (reason) this.#end(reason);
  }

  #reasonToEnd(token: number | null): Generated['reason'] | null {
    const { endOfText, maxTokens, contextLength, stop } = this.#limits;
    if (token !== null && token === endOfText) return 'end';
    if (this.#tokens.length - this.#beginning.prompt.length === maxTokens) return 'length';
    if (this.#tokens.length === contextLength) return 'context';
    return stop?.aborted ? 'stopped' : null;
  }

  #draw(draw: Draw): number {
    try {
      return draw(this.sampler, this.#tokens);
    } catch (error) {
      throw error instanceof UserError ? new UserError(`${this.#beginning.name}: ${error.message}`) : error;
    }
  }

  #end(reason: Generated['reason']): void {
    this.ended = { tokens: this.#tokens.slice(this.#beginning.prompt.length), reason };
  }
}

/**
 * One call of the model: a piece of a prompt, where one is to be read, else the last token of every text. A prompt goes in
 * by itself, for beside it the others' products would be rounded otherwise than alone.
 */
async function advance(model: NativeModel, slots: readonly (Text | null)[]): Promise<void> {
  const reading = slots.find(text => text?.isReading) ?? null;
  const called = slots.map(text => (reading === null || text === reading ? text : null));
  const used = called.slice(0, called.findLastIndex(text => text !== null) + 1);
  const pieces = used.map(text => text?.pending(model.options.maxTime) ?? []);
  const counts = Int32Array.from(pieces, piece => piece.length);
  const time = Math.max(...counts);
  const tokens = new Int32Array(used.length * time);
  pieces.forEach((piece, slot) => {
    tokens.set(piece, slot * time);
  });
  const starts = Int32Array.from(used, text => text?.cached ?? 0);
  const draws = await drawsOf(model, tokens, { batch: used.length, time, starts, counts }, used);
  for (const [slot, text] of used.entries()) text?.heard(counts[slot]!, draws[slot]!);
}

/** One call of the model, and how each text's next token follows from it: chosen by the program, or of its logits here. */
async function drawsOf(
  model: NativeModel,
  tokens: Int32Array,
  size: { batch: number; time: number; starts: Int32Array; counts: Int32Array },
  texts: readonly (Text | null)[],
): Promise<Draw[]> {
  if (model.chooses) {
    const samplers = texts.map(text => text?.sampler ?? { temperature: 0, seed: 0 });
    const chosen = await model.choose(tokens, size, samplers);
    return Array.from(chosen, token => () => {
      if (token === NOT_A_NUMBER) throw notANumber();
      return token;
    });
  }
  const logits = await model.decode(tokens, size);
  const width = model.vocabularySize;
  return texts.map((_, slot) => {
    const own = logits.subarray(slot * width, (slot + 1) * width);
    return (sampler, text) => sampleToken(own, sampler, text.length, text);
  });
}
