// malc generate: continues a prompt with a trained model, token by token.
import type { Command } from './command.ts';

/** The prompt goes into the model in pieces of at most so many tokens. */
const PIECE = 256;

export const generate: Command = {
  name: 'generate',
  describe: 'Continue a prompt with a trained model',
  options: {
    checkpoint: { type: 'string', alias: 'c', required: true, describe: 'A run folder, or one of its step-N folders' },
    prompt: { type: 'string', alias: 'p', describe: 'What the text begins with  [default: standard input]' },
    'max-tokens': { type: 'number', alias: 'm', default: 100, describe: 'Tokens to write at most' },
    temperature: { type: 'number', default: 0.8, describe: '0 always takes the likeliest token' },
    'top-k': { type: 'number', describe: 'Only the K likeliest tokens' },
    'top-p': { type: 'number', describe: 'Only the likeliest tokens that reach the probability P' },
    'min-p': { type: 'number', describe: 'Only tokens with this share of the likeliest one’s probability' },
    'repetition-penalty': { type: 'number', advanced: true, describe: 'Above 1, makes tokens of the text less likely' },
    seed: { type: 'number', default: 0, describe: 'The same seed gives the same text' },
    stop: { type: 'boolean', default: true, describe: 'End at the end-of-text token; --no-stop goes on' },
    threads: { type: 'number', advanced: true, describe: 'Threads of the native program  [default: all]' },
  },
  examples: [
    ['malc generate -c runs/nano -p "Once upon a time"', 'writes 100 tokens'],
    ['malc generate -c runs/nano/best -p "" --temperature 0', 'the likeliest text, from its beginning'],
  ],

  async run(args) {
    const { join } = await import('node:path');
    const { buildModel } = await import('../build.ts');
    const { readText } = await import('../data/text.ts');
    const { generate } = await import('../generate/generate.ts');
    const { readModelConfig } = await import('../hub/config.ts');
    const { NativeModel } = await import('../native.ts');
    const { readTokenizer } = await import('../tokenizer/json.ts');
    const { loadWeights } = await import('../train/checkpoint.ts');
    const { findCheckpoint } = await import('../train/run-folder.ts');
    const { promptTokens } = await import('../train/samples.ts');

    await checkNumbers(args);
    const { folder, run } = findCheckpoint(args.checkpoint as string);
    const model = readModelConfig(join(run, 'config.json'));
    const tokenizer = readTokenizer(join(run, 'tokenizer.json'));
    const prompt = (args.prompt as string | undefined) ?? readText('-');
    const { libraryPath } = await buildModel(model);
    const native = NativeModel.open(libraryPath, {
      maxBatch: 1,
      maxTime: Math.min(PIECE, model.max_seq_len),
      maxContext: model.max_seq_len,
      training: false,
      threads: args.threads as number | undefined,
    });
    try {
      loadWeights(folder, native);
      const decoder = tokenizer.streamDecoder();
      process.stdout.write(prompt);
      const { reason } = await generate(native, promptTokens(prompt, tokenizer), {
        sampler: {
          temperature: args.temperature as number,
          topK: args['top-k'] as number | undefined,
          topP: args['top-p'] as number | undefined,
          minP: args['min-p'] as number | undefined,
          repetitionPenalty: args['repetition-penalty'] as number | undefined,
          seed: args.seed as number,
        },
        maxTokens: args['max-tokens'] as number,
        endOfText: args.stop ? tokenizer.endOfText : null,
        contextLength: model.max_seq_len,
        onToken: token => process.stdout.write(decoder.push(token)),
      });
      process.stdout.write(`${decoder.end()}\n`);
      if (reason === 'context')
        console.error(`The text ends here: the model's context of ${model.max_seq_len} tokens is full.`);
    } finally {
      native.close();
    }
  },
};

/** Refuses numbers that mean nothing, by the option's name. */
async function checkNumbers(args: Readonly<Record<string, unknown>>): Promise<void> {
  const { UserError } = await import('../../compiler/diagnostic.ts');
  const require = (name: string, holds: (value: number) => boolean, expected: string) => {
    const value = args[name] as number | undefined;
    if (value !== undefined && !holds(value)) throw new UserError(`--${name} is ${value}; ${expected} is needed`);
  };
  const whole = (least: number) => (value: number) => Number.isSafeInteger(value) && value >= least;
  require('max-tokens', whole(0), 'a whole number from 0 on');
  require('temperature', value => value >= 0 && Number.isFinite(value), '0 or a number above');
  require('top-k', whole(1), 'a whole number of at least 1');
  require('top-p', value => value > 0 && value <= 1, 'a number above 0, at most 1,');
  require('min-p', value => value >= 0 && value <= 1, 'a number from 0 to 1');
  require('repetition-penalty', value => value > 0 && Number.isFinite(value), 'a number above 0');
  require('seed', whole(0), 'a whole number from 0 on');
  require('threads', whole(1), 'a whole number of at least 1');
}
