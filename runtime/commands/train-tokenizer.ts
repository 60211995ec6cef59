// malc train-tokenizer: a byte-level BPE tokenizer from texts, which are read piece by piece.
import { describeMemory } from '../show/quantities.ts';
import type { SplitName } from '../tokenizer/split.ts';
import type { Command } from './command.ts';
import { documentOptions } from './data.ts';

/** Compression is measured on so many bytes of each input at the most: enough to tell, and soon done. */
const SAMPLE = 2 ** 20;

const INPUTS = 'Text, .jsonl, .parquet, .gz, .zst, folders, hf:OWNER/NAME, or - for standard input';

export const trainTokenizer: Command = {
  name: 'train-tokenizer',
  describe: 'Learn a tokenizer (byte-level BPE, tokenizer.json) from text',
  options: {
    input: { type: 'string', alias: 'i', array: true, required: true, describe: INPUTS },
    ...documentOptions,
    output: { type: 'string', alias: 'o', default: 'tokenizer.json', describe: 'The file to write' },
    'vocab-size': { type: 'number', number: 'count', alias: 'v', default: 32000, describe: 'Tokens in all' },
    'min-frequency': {
      type: 'number',
      number: 'count',
      default: 2,
      advanced: true,
      describe: 'Merge no pair that occurs less often than this',
    },
    split: {
      type: 'string',
      choices: ['gpt2', 'cl100k', 'llama3', 'qwen2'],
      default: 'gpt2',
      advanced: true,
      describe: 'Whose pattern cuts the text into words before merging',
    },
    'special-tokens': {
      type: 'string',
      array: true,
      advanced: true,
      describe: 'Tokens that are marks and not text; they take the first ids',
      whenAbsent: '<|endoftext|>',
    },
  },
  examples: [
    ['malc train-tokenizer -i book.txt -v 2048', 'a small vocabulary, for a few megabytes'],
    ['malc train-tokenizer -i corpus.jsonl.gz', 'the field text of each line; --text-field for another'],
    ['cat *.txt | malc train-tokenizer -i -', 'read standard input'],
  ],

  async run(args) {
    const { checkWritable } = await import('../atomic-file.ts');
    const { documentPieces, filesOf, requireFields } = await import('../data/documents/documents.ts');
    const { Skipped } = await import('../data/documents/skipped.ts');
    const { fetchAll } = await import('../data/specs.ts');
    const { DataLine } = await import('../show/data-line.ts');
    const { writeTokenizer } = await import('../tokenizer/json.ts');
    const { lineCut } = await import('../tokenizer/split.ts');
    const { trainTokenizerInThreads } = await import('../tokenizer/train.ts');

    const output = args.output as string;
    const wanted = args['vocab-size'] as number;
    const textField = args['text-field'] as string | undefined;
    const skipped = new Skipped(line => console.error(line));
    const reading = { textField: textField ?? 'text', onSkipped: args.strict ? null : skipped.tell };
    const specialTokens = args['special-tokens'] as readonly string[] | undefined;
    checkWritable(output);
    const progress = new DataLine(process.stderr);
    const inputs: string[][] = [];
    for (const input of args.input as readonly string[]) {
      const { paths } = await fetchAll([input], progress.tell).finally(progress.clear);
      inputs.push(paths.flatMap(filesOf));
    }
    requireFields(inputs.flat(), textField ?? null);

    const start = performance.now();
    const samples: string[] = [];
    let bytes = 0;
    async function* pieces() {
      for (const files of inputs) {
        let wanting = SAMPLE;
        for (const file of files) {
          for await (const piece of documentPieces(file, reading, textField !== undefined, lineCut)) {
            const sample = piece.subarray(0, wanting);
            if (sample.length > 0) samples.push(Buffer.from(sample).toString());
            wanting -= sample.length;
            bytes += piece.length;
            yield piece;
          }
        }
      }
    }
    const tokenizer = await trainTokenizerInThreads(pieces(), {
      vocabSize: wanted,
      minFrequency: args['min-frequency'] as number,
      split: args.split as SplitName,
      ...(specialTokens !== undefined && { specialTokens }),
      onProgress: progress.tell,
    }).finally(progress.clear);
    skipped.report();
    writeTokenizer(output, tokenizer);

    const seconds = (performance.now() - start) / 1000;
    const size = tokenizer.vocabularySize;
    const sampled = samples.reduce((sum, sample) => sum + Buffer.byteLength(sample), 0);
    const tokens = samples.reduce((sum, sample) => sum + tokenizer.encode(sample).length, 0);
    console.log(
      `${output}: ${count(size)} tokens from ${describeMemory(bytes)} of text in ${seconds.toFixed(1)} s, ` +
        `${(sampled / tokens).toFixed(2)} bytes per token` +
        (sampled < bytes ? ` (measured on ${describeMemory(sampled)})` : ''),
    );
    if (size < wanted)
      console.log(
        `The text has no more pairs that occur ${args['min-frequency']} times: ` +
          `${count(size)} tokens instead of ${count(wanted)}.`,
      );
  },
};

function count(value: number): string {
  return value.toLocaleString('en-US');
}
