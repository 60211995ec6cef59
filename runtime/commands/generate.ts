// malc generate: continues prompts with a trained model, token by token, several texts at once.
import { type ProductType, productTypes } from '../../compiler/targets/cpu/kernel-source.ts';
import type { Beginning, Generated } from '../generate/generate.ts';
import type { Prompt } from '../generate/prompts.ts';
import type { NativeModel } from '../native.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Command, UsageError } from './command.ts';
import { chooseTarget, targetOption } from './target-option.ts';

/** A prompt goes into the model in pieces of at most so many tokens. */
const PIECE = 256;
/** Texts that are written at once, where there are as many. */
const AT_ONCE = 8;

export const generate: Command = {
  name: 'generate',
  describe: 'Continue prompts with a trained model',
  options: {
    checkpoint: {
      type: 'string',
      alias: 'c',
      required: true,
      describe: 'A run folder, one of its step-N folders, or a .safetensors file of weights',
    },
    prompt: {
      type: 'string',
      alias: 'p',
      array: true,
      describe: 'What the text begins with; several for several texts',
      whenAbsent: 'standard input',
    },
    'prompts-file': {
      type: 'string',
      describe: 'Take the prompts from a file, one a line, or from a .jsonl file the "text" of each line',
    },
    'num-samples': {
      type: 'number',
      number: 'count',
      alias: 'n',
      default: 1,
      describe: 'Texts for each prompt: text K, counted from 0, has seed + K',
    },
    'batch-size': {
      type: 'number',
      number: 'count',
      alias: 'b',
      default: AT_ONCE,
      describe: 'Texts to write at once; up to 8, each is to the bit what it is alone',
    },
    json: {
      type: 'boolean',
      default: false,
      describe: 'Print each text as a line of JSON: prompt, sample, seed, text, tokens, and why it ends',
    },
    'max-tokens': {
      type: 'number',
      number: 'countOrNone',
      alias: 'm',
      default: 100,
      describe: 'Tokens to write at most',
    },
    temperature: {
      type: 'number',
      number: 'zeroOrAbove',
      default: 0.8,
      describe: 'Below 1 surer, above it bolder; 0 always takes the likeliest token',
    },
    'top-k': { type: 'number', number: 'count', describe: 'Choose among the K likeliest tokens alone' },
    'top-p': {
      type: 'number',
      number: 'shareAboveZero',
      describe: 'Choose among the likeliest tokens, of probability P in all',
    },
    seed: { type: 'number', number: 'countOrNone', default: 0, describe: 'The same seed gives the same text' },
    ema: { type: 'boolean', default: false, describe: 'Write with the averages of the weights, of a run with --ema' },
    dtype: {
      type: 'string',
      default: 'f32',
      choices: productTypes,
      describe: 'The number type of matrix products: bf16 and int8 read half and a quarter of the memory',
    },
    target: targetOption,
    'min-p': {
      type: 'number',
      number: 'share',
      advanced: true,
      describe: 'Leave out tokens with less than this share of the likeliest’s',
    },
    'repetition-penalty': {
      type: 'number',
      number: 'aboveZero',
      advanced: true,
      describe: 'Above 1 makes what was written before less likely',
    },
    stop: {
      type: 'boolean',
      default: true,
      advanced: true,
      describe: 'Stop where a text ends; --no-stop goes on',
    },
    config: {
      type: 'string',
      advanced: true,
      describe: 'The config.json of the model that the weights are of',
      whenAbsent: 'the one beside them',
    },
    tokenizer: {
      type: 'string',
      alias: 't',
      advanced: true,
      describe: 'The tokenizer.json that the model was trained with',
      whenAbsent: 'the one beside the weights',
    },
    threads: {
      type: 'number',
      number: 'threads',
      advanced: true,
      describe: 'Threads of the native program',
      whenAbsent: 'all',
    },
  },
  examples: [
    ['malc generate -c runs/nano -p "Once upon a time"', 'write 100 tokens'],
    ['malc generate -c runs/nano/best -p ""', 'begin with nothing, from the best checkpoint'],
    ['malc generate -c runs/nano -p "A" -p "The" -n 4', 'four texts that begin with each'],
    ['malc generate -c runs/nano --prompts-file prompts.jsonl --json', 'a line of JSON for each prompt'],
  ],

  async run(args) {
    const { buildModel } = await import('../build.ts');
    const { openTrainedModel } = await import('../generate/trained-model.ts');
    const { NativeModel } = await import('../native.ts');

    if (args.prompt !== undefined && args['prompts-file'] !== undefined)
      throw new UsageError('give --prompt or --prompts-file, not both');
    const trained = openTrainedModel({
      checkpoint: args.checkpoint as string,
      config: args.config as string | undefined,
      tokenizer: args.tokenizer as string | undefined,
      averaged: args.ema === true,
    });
    const { model, tokenizer } = trained;
    const prompts = await promptsOf(args);
    const beginnings = await beginningsOf(prompts, tokenizer, args);
    const maxTokens = args['max-tokens'] as number;
    const longest = beginnings.reduce((most, { prompt }) => Math.max(most, prompt.length), 0);
    const { target, device } = await chooseTarget(args);
    const { libraryPath } = await buildModel(model, { target, dtype: args.dtype as ProductType });
    const native = NativeModel.open(libraryPath, {
      maxBatch: Math.min(args['batch-size'] as number, beginnings.length),
      maxTime: Math.min(PIECE, model.max_seq_len),
      maxContext: Math.min(longest + maxTokens, model.max_seq_len),
      training: false,
      threads: args.threads as number | undefined,
      device,
    });
    try {
      trained.load(native);
      await writeTexts(native, {
        prompts,
        beginnings,
        tokenizer,
        maxTokens,
        endOfText: args.stop ? tokenizer.endOfText : null,
        contextLength: model.max_seq_len,
        json: args.json === true,
      });
    } finally {
      native.close();
    }
  },
};

async function promptsOf(args: Readonly<Record<string, unknown>>): Promise<Prompt[]> {
  const { readText } = await import('../data/text.ts');
  const { namedPrompts, readPrompts } = await import('../generate/prompts.ts');
  const texts = args.prompt as readonly string[] | undefined;
  const file = args['prompts-file'] as string | undefined;
  return file === undefined ? namedPrompts(texts ?? [readText('-')]) : readPrompts(file);
}

/** Each prompt's samples, one after the other. Sample K draws as a text alone would with the seed that is K above. */
async function beginningsOf(
  prompts: readonly Prompt[],
  tokenizer: Tokenizer,
  args: Readonly<Record<string, unknown>>,
): Promise<Beginning[]> {
  const { promptTokens } = await import('../train/samples.ts');
  const sampler = {
    temperature: args.temperature as number,
    topK: args['top-k'] as number | undefined,
    topP: args['top-p'] as number | undefined,
    minP: args['min-p'] as number | undefined,
    repetitionPenalty: args['repetition-penalty'] as number | undefined,
  };
  return prompts.flatMap(({ text, name }) => {
    const prompt = promptTokens(text, tokenizer);
    return Array.from({ length: args['num-samples'] as number }, (_, sample) => ({
      prompt,
      name,
      sampler: { ...sampler, seed: (args.seed as number) + sample },
    }));
  });
}

interface Writing {
  readonly prompts: readonly Prompt[];
  /** The samples of the prompts, as many of each. */
  readonly beginnings: readonly Beginning[];
  readonly tokenizer: Tokenizer;
  readonly maxTokens: number;
  readonly endOfText: number | null;
  readonly contextLength: number;
  readonly json: boolean;
}

/** Writes all texts to standard output: one alone as it comes, of several each as soon as those before it are there. */
async function writeTexts(native: NativeModel, writing: Writing): Promise<void> {
  const { generateAll } = await import('../generate/generate.ts');
  const { prompts, beginnings, tokenizer, json } = writing;
  if (beginnings.length === 1 && !json) {
    const decoder = tokenizer.streamDecoder();
    process.stdout.write(prompts[0]!.text);
    const onToken = (token: number) => process.stdout.write(decoder.push(token));
    const [text] = await generateAll(native, [{ ...beginnings[0]!, onToken }], writing);
    process.stdout.write(`${decoder.end()}\n`);
    sayIfFull(text!, 'The text', writing);
    return;
  }
  const ended = new Map<number, Generated>();
  let shown = 0;
  await generateAll(native, beginnings, {
    ...writing,
    onText: (number, text) => {
      ended.set(number, text);
      for (let next = ended.get(shown); next; next = ended.get(shown)) {
        ended.delete(shown);
        show(shown++, next, writing);
      }
    },
  });
}

function show(number: number, text: Generated, writing: Writing): void {
  const { prompts, beginnings, tokenizer } = writing;
  const samples = beginnings.length / prompts.length;
  const prompt = prompts[Math.floor(number / samples)]!.text;
  const written = tokenizer.decode(text.tokens);
  if (writing.json) {
    const { seed } = beginnings[number]!.sampler;
    const { reason, tokens } = text;
    const line = { prompt, sample: number % samples, seed, text: written, tokens: tokens.length, reason };
    console.log(JSON.stringify(line));
    return;
  }
  console.log(`${number > 0 ? '---\n' : ''}${prompt}${written}`);
  sayIfFull(text, `Text ${number + 1}`, writing);
}

function sayIfFull({ reason }: Generated, name: string, { contextLength }: Writing): void {
  if (reason !== 'context') return;
  console.error(`${name} ends here: the model's context of ${contextLength} tokens is full.`);
}
