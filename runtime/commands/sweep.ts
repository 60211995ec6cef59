// malc sweep: experiments with architectures, from a file that says what is compared to a table and a page.
import type { OptionRules } from '../sweep/read-sweep.ts';
import { type Command, type Option, UsageError } from './command.ts';
import { type NumberKind, numberKinds } from './number-kinds.ts';
import { trainer } from './sweep-trainer.ts';
import { train } from './train.ts';

export const sweep: Command = {
  name: 'sweep',
  describe: 'Compare architectures: train the variants that a file lists, and show what they came to',
  positionals: [
    { name: 'file', describe: 'A sweep file, or one of malc’s own: attention, experts, layers', required: true },
  ],
  options: {
    data: {
      type: 'string',
      alias: 'd',
      array: true,
      describe: 'What all variants learn from, in place of the file’s own data',
    },
    output: { type: 'string', alias: 'o', describe: 'The folder of the runs', whenAbsent: 'runs/FILE' },
    'dry-run': { type: 'boolean', default: false, describe: 'Show what would be done, and write nothing' },
    table: { type: 'boolean', default: false, describe: 'Show what came of it so far, and train nothing' },
  },
  examples: [
    ['malc sweep attention', 'one that comes with malc; after Ctrl-C the same goes on'],
    ['malc sweep mine.sweep --dry-run', 'what would be trained, how large and how long'],
    ['malc sweep mine.sweep --table', 'the results so far'],
    ['malc show runs/attention', 'the page of a sweep, live while it goes on'],
  ],

  async run(args) {
    const { readSweep } = await import('../sweep/read-sweep.ts');
    const { runSweep, writeAll } = await import('../sweep/sweep.ts');
    const { resultTable } = await import('../sweep/table.ts');

    const read = readSweep(args.file as string, rules);
    const folder = (args.output as string | undefined) ?? `runs/${read.name}`;
    if (args.table) {
      if (args['dry-run']) throw new UsageError('--table shows what was done and --dry-run what would be; give one');
      console.log(resultTable(writeAll(folder)));
      return;
    }
    const ending = await runSweep({
      sweep: read,
      folder,
      data: (args.data as readonly string[] | undefined) ?? null,
      dryRun: args['dry-run'] as boolean,
      trainer,
      screen: process.stdout,
    });
    if (ending === 'planned') return;
    if (ending === 'done') {
      console.log(`\nthe page: malc show ${folder}, or ${folder}/page.html in a browser`);
      return;
    }
    console.log('\nsaved; the same command goes on from here');
    process.exitCode = 130;
  },
};

/** Options of `malc train` that are the sweep's own business, each with what says it. */
const refused: Readonly<Record<string, string>> = {
  output: 'each run has a folder of its own in that of the sweep: malc sweep --output',
  resume: 'malc sweep goes on by itself where it was stopped',
  'dry-run': 'malc sweep --dry-run shows what would be done',
  config: 'write the options into the sweep file',
  set: 'write the options into the sweep file',
  seed: 'write `seeds: [1, 2, 3]` outside of brackets',
  data: 'write `data: "FILE"` outside of brackets: all variants learn from the same text',
  tokenizer: 'write `tokenizer: "FILE"` outside of brackets: losses of different tokenizers cannot be compared',
};

const options: Readonly<Record<string, Option>> = train.options;

/** What a sweep file may say of `malc train`. */
export const rules: OptionRules = {
  names: Object.keys(options).filter(name => refused[name] === undefined),
  refused,
  isPath: name => ['model', 'checkpoint'].includes(name),
  isList: name => options[name]!.array === true,
  instead: name => options[name]!.instead ?? [],
  read(name, { kind, text }) {
    const { type, choices, number } = options[name]!;
    if (type === 'boolean') {
      if (text === 'true' || text === 'false') return { value: text === 'true' };
      return { complaint: `\`${name}\` is true or false, not \`${text}\`` };
    }
    if (type === 'number') {
      const range: NumberKind | null = number === undefined ? null : numberKinds[number];
      if (kind === 'number' && (range === null || range.holds(Number(text)))) return { value: Number(text) };
      return { complaint: `\`${name}\` is \`${text}\`; ${range?.expected ?? 'a number'} is needed` };
    }
    if (choices === undefined || choices.includes(text)) return { value: text };
    return { complaint: `\`${name}\` is one of ${choices.join(', ')}, not \`${text}\`` };
  },
};
