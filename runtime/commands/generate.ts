// malc generate: continues a prompt with a trained model, token by token.
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Command } from './command.ts';

/** The prompt goes into the model in pieces of at most so many tokens. */
const PIECE = 256;

export const generate: Command = {
  name: 'generate',
  describe: 'Continue a prompt with a trained model',
  options: {
    checkpoint: { type: 'string', alias: 'c', required: true, describe: 'A run folder, or one of its step-N folders' },
    prompt: { type: 'string', alias: 'p', describe: 'What the text begins with', whenAbsent: 'standard input' },
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
  ],

  async run(args) {
    const { join } = await import('node:path');
    const { buildModel } = await import('../build.ts');
    const { readText } = await import('../data/text.ts');
    const { generate } = await import('../generate/generate.ts');
    const { readModelConfig } = await import('../hub/config.ts');
    const { NativeModel } = await import('../native.ts');
    const { loadWeights } = await import('../train/checkpoint.ts');
    const { findCheckpoint } = await import('../train/run-folder.ts');
    const { promptTokens } = await import('../train/samples.ts');

    const { folder, run } = findCheckpoint(args.checkpoint as string);
    const model = readModelConfig(join(run, 'config.json'));
    const tokenizer = await readRunTokenizer(folder, run);
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

/**
 * The run's tokenizer, and no other: with a strange one the model would write, and write nonsense. An imported model was
 * trained elsewhere (`folder` is `run`, without a state), and nothing says what its tokenizer's hash was.
 */
async function readRunTokenizer(folder: string, run: string): Promise<Tokenizer> {
  const { existsSync } = await import('node:fs');
  const { join } = await import('node:path');
  const { UserError } = await import('../../compiler/diagnostic.ts');
  const { readTokenizer, tokenizerHash } = await import('../tokenizer/json.ts');
  const { readState } = await import('../train/checkpoint.ts');

  const path = join(run, 'tokenizer.json');
  if (!existsSync(path)) throw new UserError(`there is no ${path}: copy the run's tokenizer back, or the whole run`);
  const tokenizer = readTokenizer(path);
  if (folder !== run && tokenizerHash(tokenizer) !== readState(folder).tokenizerHash) {
    throw new UserError(`${path} is not the tokenizer that ${folder} was trained with: copy the run's own back`);
  }
  return tokenizer;
}
