// malc data: what a data set holds (preview), and its tokens as files that train reads at once (prepare).
import type { Preview } from '../data/preview.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Command, type Option, UsageError } from './command.ts';

const actions = ['preview', 'prepare'] as const;

/** What a run learns from. */
export const dataOption = {
  type: 'string',
  alias: 'd',
  array: true,
  describe:
    'Text, .jsonl, .parquet, .gz, .zst, .bin, folders, hf:OWNER/NAME, - for standard input; in a mixture each has a ' +
    'weight, FILE:0.7',
} as const satisfies Option;

/** The options of commands that read documents. */
export const documentOptions = {
  'text-field': {
    type: 'string',
    describe: 'The field of JSON lines, or the column, that is the text; with -, says that these come',
    whenAbsent: 'text',
    advanced: true,
  },
  strict: {
    type: 'boolean',
    default: false,
    describe: 'Refuse lines that hold no text, which are skipped otherwise',
    advanced: true,
  },
} as const satisfies Record<string, Option>;

export const data: Command = {
  name: 'data',
  describe: 'Look at a data set, or turn it into tokens',
  positionals: [
    { name: 'action', describe: 'preview or prepare', required: true },
    { name: 'spec', describe: 'Files, folders, hf:OWNER/NAME, or - for standard input', required: true, array: true },
  ],
  options: {
    tokenizer: {
      type: 'string',
      alias: 't',
      describe: 'A tokenizer.json',
      whenAbsent: 'prepare: learned from the text',
    },
    output: { type: 'string', alias: 'o', describe: 'prepare: the folder to write train.bin and val.bin to' },
    'vocab-size': { type: 'number', number: 'count', describe: 'prepare: tokens to learn', whenAbsent: '32000' },
    'validation-share': {
      type: 'number',
      number: 'shareBelowOne',
      describe: 'prepare: the share that is held out',
      whenAbsent: '0.1',
    },
    count: { type: 'number', number: 'count', alias: 'n', describe: 'preview: documents to show', whenAbsent: '3' },
    ...documentOptions,
  },
  examples: [
    ['malc data preview corpus.jsonl.gz -t tokenizer.json', 'lengths, duplicates, and where tokens begin'],
    ['malc data prepare texts/ -o tokens', 'train.bin, val.bin and tokenizer.json, for malc train -d tokens/train.bin'],
  ],

  async run(args) {
    const action = actions.find(each => each === args.action);
    if (action === undefined) throw new UsageError(`malc data can ${actions.join(' and ')}, not '${args.action}'`);
    const others = action === 'preview' ? ['output', 'vocab-size', 'validation-share'] : ['count'];
    const stray = others.find(name => args[name] !== undefined);
    if (stray !== undefined) throw new UsageError(`malc data ${action} has no use for --${stray}`);
    await (action === 'preview' ? preview(args) : prepare(args));
  },
};

async function preview(args: Readonly<Record<string, unknown>>): Promise<void> {
  const { filesOf, readAs, requireFields } = await import('../data/documents/documents.ts');
  const { Skipped } = await import('../data/documents/skipped.ts');
  const { previewOf } = await import('../data/preview.ts');
  const { fetchAll } = await import('../data/specs.ts');
  const { DataLine } = await import('../show/data-line.ts');
  const { describeMemory } = await import('../show/quantities.ts');
  const { readTokenizer } = await import('../tokenizer/json.ts');

  const tokenizer = args.tokenizer === undefined ? null : readTokenizer(args.tokenizer as string);
  const textField = args['text-field'] as string | undefined;
  const skipped = new Skipped(line => console.error(line));
  const progress = new DataLine(process.stderr);
  const { paths } = await fetchAll(args.spec as readonly string[], progress.tell).finally(progress.clear);
  const files = paths.flatMap(filesOf);
  requireFields(files, textField ?? null);
  const asLines = textField !== undefined;
  const { survey, tokens, shown } = await previewOf(files, {
    reading: { textField: textField ?? 'text', onSkipped: args.strict ? null : skipped.tell, asLines },
    tokenizer,
    most: (args.count as number | undefined) ?? 3,
    onFile(file) {
      progress.clear();
      console.log(`${file === '-' ? 'standard input' : file}: ${readAs(file, asLines)}`);
    },
    onProgress: done => progress.tell({ phase: 'read', done, total: null }),
  }).finally(progress.clear);
  skipped.report();
  const { documents, characters, bytes, lengths, duplicates, firstDuplicate, isExact } = survey;
  const number = (value: number) => value.toLocaleString('en');
  console.log(`\n  documents   ${number(documents)}, ${number(characters)} characters, ${describeMemory(bytes)}`);
  console.log(`  lengths     ${lengths.map(number).join(' / ')} characters: shortest, 10 %, median, 90 %, longest`);
  const [place, before] = firstDuplicate ?? [];
  const repeats = firstDuplicate === null ? '' : `, such as ${place}, which is ${before} again`;
  console.log(`  duplicates  ${isExact ? '' : 'about '}${number(duplicates)}${repeats}`);
  if (tokenizer) console.log(`  tokens      ${number(tokens)}, ${(bytes / tokens).toFixed(2)} bytes each`);
  for (const document of shown) await showDocument(document, tokenizer);
}

async function showDocument({ text, place }: Preview['shown'][number], tokenizer: Tokenizer | null): Promise<void> {
  const { hasColor, paint } = await import('../show/color.ts');
  const { showTokens } = await import('../show/token-colors.ts');

  console.log(`\n${paint('dim', place)}`);
  if (tokenizer === null) {
    console.log(text);
    return;
  }
  const ids = tokenizer.encode(text);
  const pieces = Array.from(ids, id => tokenizer.decode(Int32Array.of(id)));
  console.log(showTokens(pieces, hasColor(process.stdout)));
}

async function prepare(args: Readonly<Record<string, unknown>>): Promise<void> {
  const { rmSync } = await import('node:fs');
  const { join } = await import('node:path');
  const { checkFolderWritable, makeFolder } = await import('../atomic-file.ts');
  const { Skipped } = await import('../data/documents/skipped.ts');
  const { readSpecs } = await import('../data/specs.ts');
  const { writeTokens } = await import('../data/tokens.ts');
  const { readTokenizer, tokenizerHash, writeTokenizer } = await import('../tokenizer/json.ts');
  const { DataLine } = await import('../show/data-line.ts');
  const { readCorpus } = await import('../train/corpus.ts');

  if (args.output === undefined) throw new UsageError('--output is needed: the folder to write the tokens to');
  if (args.tokenizer !== undefined && args['vocab-size'] !== undefined)
    throw new UsageError('--vocab-size is of a tokenizer that is learned, and --tokenizer gives one; give one of them');
  const specs = args.spec as readonly string[];
  if (readSpecs(specs).some(source => source.isWeighted))
    throw new UsageError('weights are for malc train, which draws from several texts; prepare makes one of them');
  const folder = args.output as string;
  checkFolderWritable(folder);
  const skipped = new Skipped(line => console.error(line));
  const progress = new DataLine(process.stderr);
  const corpus = await readCorpus(specs, {
    validationShare: (args['validation-share'] as number | undefined) ?? 0.1,
    tokenizer: args.tokenizer === undefined ? null : readTokenizer(args.tokenizer as string),
    vocabularySize: (args['vocab-size'] as number | undefined) ?? 32_000,
    textField: (args['text-field'] as string | undefined) ?? null,
    onSkipped: args.strict ? null : skipped.tell,
    onProgress: progress.tell,
  }).finally(progress.clear);
  skipped.report();
  makeFolder(folder);
  const { vocabularySize } = corpus.tokenizer;
  const source = { tokenizer: tokenizerHash(corpus.tokenizer), text: corpus.hash, vocabularySize };
  writeTokens(join(folder, 'train.bin'), corpus.training, source);
  // Without any, an older file would be taken for it.
  if (corpus.validation.length > 0) writeTokens(join(folder, 'val.bin'), corpus.validation, source);
  else for (const name of ['val.bin', 'val.json']) rmSync(join(folder, name), { force: true });
  writeTokenizer(join(folder, 'tokenizer.json'), corpus.tokenizer);
  const counts = [corpus.training.length, corpus.validation.length, corpus.documents];
  const [training, validation, documents] = counts.map(count => count.toLocaleString('en'));
  console.log(`${folder}: ${training} tokens to learn from, ${validation} held out, ${documents} documents`);
}
