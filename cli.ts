// The command line: arguments to a command, errors to exit codes. The only importer of yargs, and the only place that
// exits the process.
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import yargs, { type Argv, type Options } from 'yargs';
import { formatDiagnostics, MachineError, nearest, SourceError, UserError } from './compiler/diagnostic.ts';
import packageJson from './package.json' with { type: 'json' };
import { type Command, type Option, UsageError } from './runtime/commands/command.ts';
import { withConfigured } from './runtime/commands/config-words.ts';
import { commands } from './runtime/commands/index.ts';
import { type NumberKind, numberKinds } from './runtime/commands/number-kinds.ts';
import { plannedCommands } from './runtime/commands/planned.ts';
import { hasColor } from './runtime/show/color.ts';

/** The process's exit codes. A command that saved its state on Ctrl-C sets `process.exitCode` to `interrupted` itself. */
const exitCode = { user: 1, usage: 2, machine: 3, internal: 70, interrupted: 130, brokenPipe: 141 } as const;

/** How `-`, standard input, travels through yargs, which takes it for an option without a name. */
const LONE_DASH = '\0-';

interface Choice {
  readonly command: Command;
  readonly args: Readonly<Record<string, unknown>>;
}

/** Finds the command and its arguments; null where help or the version was asked for and has been printed. */
function parse(typed: readonly string[]): Choice | null {
  let words = typed;
  if (words.length === 0 || (words.length === 1 && ['--help', '-h', 'help'].includes(words[0]!))) {
    console.log(shortHelp());
    return null;
  }
  if (words[0] === 'help') return parse([...words.slice(1), '--help']);
  const named = commands.find(({ name }) => name === words[0]);
  if (named === undefined && !words[0]!.startsWith('-')) throw new UsageError(withAdvice(unknownCommand(words), named));
  if (named !== undefined) words = withConfigured(named, words);
  let choice: Choice | null = null;
  const parser = yargs(words.map(word => (word === '-' ? LONE_DASH : word)))
    .scriptName('malc')
    .locale('en')
    .updateStrings({ 'Positionals:': 'Arguments:' })
    .version(packageJson.version)
    .help('help', 'Show this text')
    .alias('help', 'h')
    .wrap(Math.min(100, process.stdout.columns ?? 100))
    .exitProcess(false)
    .strict()
    .demandCommand(1, 'Name a command')
    .showHelpOnFail(false)
    .parserConfiguration({ 'boolean-negation': true, 'strip-aliased': true, 'camel-case-expansion': false })
    .fail((message, error) => {
      throw error instanceof UsageError
        ? error
        : new UsageError(explain(message.replaceAll(LONE_DASH, '-'), words, named));
    });
  for (const command of commands) {
    const places = (command.positionals ?? []).map(({ name, required, array }) => {
      const place = array ? `${name}..` : name;
      return required ? `<${place}>` : `[${place}]`;
    });
    // Not listed by yargs: shortHelp lists them, in the order of use.
    parser.command(
      [command.name, ...places].join(' '),
      false,
      builder => describeCommand(builder, command),
      ({ _, $0, ...parsed }) => {
        choice = { command, args: completeArguments(command, parsed, words) };
      },
    );
  }
  parser.parseSync();
  return choice;
}

/** What `malc` alone prints: the commands in the order in which they are used. */
function shortHelp(): string {
  const forms = commands.map(command => [command.name, ...positionalWords(command)].join(' '));
  const width = Math.max(...forms.map(form => form.length));
  const lines = commands.map((command, index) => `  malc ${forms[index]!.padEnd(width)}   ${command.describe}`);
  const what = packageJson.description.replace(/(.{1,88})(?:\s+|$)/g, '$1\n');
  return `malc ${packageJson.version}\n${what}\n${lines.join('\n')}\n\nmalc COMMAND --help lists a command's options.`;
}

function positionalWords(command: Command): string[] {
  return (command.positionals ?? []).map(({ name, required, array }) => {
    const word = `${name.toUpperCase()}${array ? '..' : ''}`;
    return required ? word : `[${word}]`;
  });
}

function describeCommand(builder: Argv, command: Command): Argv {
  builder
    .version(false)
    .usage(`malc ${[command.name, ...positionalWords(command), '[OPTIONS]'].join(' ')}\n\n${command.describe}`);
  for (const { name, describe, required, array } of command.positionals ?? []) {
    // yargs gives a list the default [], which is nothing to tell.
    const asList = array === true && { array, default: undefined };
    builder.positional(name, { type: 'string', describe, demandOption: required === true, ...asList });
  }
  for (const [name, option] of Object.entries(command.options)) builder.option(name, yargsOption(option));
  for (const [example, does] of command.examples ?? []) builder.example(example, does);
  return builder;
}

function yargsOption(option: Option): Options {
  const { type, describe, alias, choices, required, array, advanced, whenAbsent } = option;
  return {
    type,
    describe,
    group: advanced ? 'Advanced options:' : 'Options:',
    ...(alias !== undefined && { alias }),
    ...(choices !== undefined && { choices }),
    // That a switch is off goes without saying in help; completeArguments adds it.
    ...(option.default !== undefined && option.default !== false && { default: option.default }),
    ...(whenAbsent !== undefined && { defaultDescription: whenAbsent }),
    ...(required && { demandOption: true }),
    ...(array && { array }),
    ...(type !== 'boolean' && { requiresArg: true }),
  };
}

/** The arguments with what yargs leaves out, once what it lets pass has been refused. */
function completeArguments(
  command: Command,
  parsed: Readonly<Record<string, unknown>>,
  words: readonly string[],
): Record<string, unknown> {
  const args = Object.fromEntries(
    Object.entries(parsed).map(([name, value]) => [name, Array.isArray(value) ? value.map(readDash) : readDash(value)]),
  );
  for (const [name, option] of Object.entries(command.options)) {
    if (option.auto && writtenValue([name, ...aliasesOf(option)], words)?.text === 'auto') args[name] = 'auto';
    const complaint = complainAboutValue(name, option, args[name], words);
    if (complaint !== null) throw new UsageError(withAdvice(complaint, command));
    if (option.default === false) args[name] ??= false;
  }
  return args;
}

function readDash(value: unknown): unknown {
  return value === LONE_DASH ? '-' : value;
}

/** What is wrong with an option's value, or null: two where one is meant, no number, a number out of range. */
function complainAboutValue(name: string, option: Option, value: unknown, words: readonly string[]): string | null {
  const { type, array } = option;
  if (type !== 'boolean' && words.includes(`--no-${name}`)) return `there is no option --no-${name}`;
  if (value === undefined) return null;
  if (Array.isArray(value) && !array) return `--${name} is given more than once`;
  const written = writtenValue([name, ...aliasesOf(option)], words);
  if (type === 'boolean' && written?.joined && !['true', 'false'].includes(written.text)) {
    return `--${name} is a switch and takes no value, such as ${written.text}`;
  }
  if (type !== 'number' || written === null) return null;
  const { text } = written;
  if (value === 'auto') return null;
  if (Number.isNaN(value) || text.trim() === '')
    return `--${name} expects a number${option.auto ? ' or auto' : ''}, not '${text}'`;
  const kind: NumberKind | null = option.number === undefined ? null : numberKinds[option.number];
  return kind === null || kind.holds(value as number) ? null : `--${name} is ${text}; ${kind.expected} is needed`;
}

/** The value of an option as it was typed: `joined` to its name (`--lr=1`, `-b4`) or the word after it. */
function writtenValue(names: readonly string[], words: readonly string[]): { text: string; joined: boolean } | null {
  for (const [index, word] of words.entries()) {
    for (const name of names) {
      const option = dashed(name);
      if (word === option) return { text: words[index + 1] ?? '', joined: false };
      if (word.startsWith(`${option}=`)) return { text: word.slice(option.length + 1), joined: true };
      if (name.length === 1 && word.startsWith(option)) return { text: word.slice(option.length), joined: true };
    }
  }
  return null;
}

function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

/** A usage error of yargs in our words, with the nearest name where one is close. */
function explain(message: string, words: readonly string[], command: Command | undefined): string {
  return withAdvice(command === undefined ? unknownCommand(words) : complainAbout(message, words, command), command);
}

function withAdvice(complaint: string, command: Command | undefined): string {
  const advice = command === undefined ? 'malc lists the commands.' : `malc ${command.name} --help lists the options.`;
  return `${complaint}\n${advice}`;
}

function unknownCommand(words: readonly string[]): string {
  const word = words[0]!;
  if (word.startsWith('-')) return `a command is needed before ${word}`;
  const planned = plannedCommands[word];
  if (planned !== undefined) return `there is no command ${word} yet: ${planned}`;
  const names = commands.map(({ name }) => name);
  return `there is no command ${word}${suggestion(nearest(word, names))}`;
}

function complainAbout(message: string, words: readonly string[], command: Command): string {
  const listed = (pattern: RegExp) => pattern.exec(message)?.[1]?.split(', ');
  const missing = listed(/^Missing required arguments?: (.*)$/);
  if (missing !== undefined) {
    const complaint = `${missing.map(dashed).join(', ')} ${isOrAre(missing)} needed`;
    // `malc info tiny.mal`: the value is there, without its name.
    const stray = words[words.indexOf(command.name) + 1];
    return missing.length > 1 || stray === undefined || stray.startsWith('-')
      ? complaint
      : `${complaint}. Did you mean ${dashed(missing[0]!)} ${stray}?`;
  }
  if (message.startsWith('Not enough non-option arguments')) {
    const needed = positionalWords(command).filter(word => !word.startsWith('['));
    return `${needed.join(' ')} ${isOrAre(needed)} needed`;
  }
  const empty = listed(/^Not enough arguments following: (.*)$/);
  if (empty !== undefined) return complainAboutNothing(empty[0]!, words, command);
  const choice = /Argument: (.*), Given: "(.*)", Choices: (.*)$/.exec(message);
  if (choice !== null) return `--${choice[1]} expects one of ${choice[3]!.replaceAll('"', '')}, not ${choice[2]}`;
  const unknown = listed(/^Unknown arguments?: (.*)$/);
  if (unknown !== undefined) return unknown.map(name => unknownArgument(name, words, command)).join('\n');
  return message;
}

/** An option without a value, or before one that looks like an option. */
function complainAboutNothing(name: string, words: readonly string[], command: Command): string {
  const complaint = `${dashed(name)} expects a value`;
  const next = words[words.indexOf(dashed(name)) + 1];
  if (!next?.startsWith('-') || optionNames(command).some(each => dashed(each) === next)) return complaint;
  return `${complaint}; one that begins with - is joined to it by =, as in ${dashed(name)}='${next}'`;
}

function unknownArgument(name: string, words: readonly string[], command: Command): string {
  const written = words.find(word => word.startsWith('-') && word.replace(/^-+(no-)?|=.*$/g, '') === name);
  if (written === undefined) return `'${name}' is one argument too many`;
  const option = nearest(name, optionNames(command));
  return `there is no option ${written.split('=')[0]}${suggestion(option === null ? null : `--${option}`)}`;
}

function isOrAre(names: readonly string[]): string {
  return names.length > 1 ? 'are' : 'is';
}

function suggestion(name: string | null): string {
  return name === null ? '' : `. Did you mean ${name}?`;
}

function optionNames(command: Command): string[] {
  return Object.entries(command.options).flatMap(([name, option]) => [name, ...aliasesOf(option)]);
}

function aliasesOf({ alias }: Option): string[] {
  return [alias ?? []].flat();
}

/** Prints what went wrong and says with which code the process leaves. */
function report(error: unknown, words: readonly string[]): number {
  if (error instanceof UsageError) {
    console.error(`error: ${error.message}`);
    return exitCode.usage;
  }
  if (error instanceof SourceError) {
    const color = hasColor(process.stderr);
    console.error(formatDiagnostics(error.diagnostics, error.sources, { color }));
    return exitCode.user;
  }
  if (error instanceof UserError || error instanceof MachineError) {
    console.error(`error: ${error.message}`);
    return error instanceof UserError ? exitCode.user : exitCode.machine;
  }
  const summary = error instanceof Error ? error.message : String(error);
  console.error(`internal error: ${summary}\nThis is a fault of malc, not of your input.`);
  const path = writeDump(error, words);
  console.error(
    path === null
      ? `Please report it with this text:\n${dumpText(error, words)}`
      : `Please report it, with the file ${path}`,
  );
  return exitCode.internal;
}

/** Keeps what a report of an internal error needs; null where nothing can be written. */
function writeDump(error: unknown, words: readonly string[]): string | null {
  try {
    const time = new Date().toISOString().replace(/[:.]/g, '-');
    // Straight into the temporary folder: a folder of reports would belong to the user who made it first.
    const path = join(tmpdir(), `malc-report-${time}-${process.pid}.txt`);
    writeFileSync(path, dumpText(error, words));
    return path;
  } catch {
    return null;
  }
}

function dumpText(error: unknown, words: readonly string[]): string {
  const versions = `malc ${packageJson.version}, node ${process.version}, ${process.platform} ${process.arch}`;
  return `${versions}\narguments: ${JSON.stringify(words)}\n\n${inspect(error)}\n`;
}

async function main(words: readonly string[]): Promise<void> {
  try {
    const choice = parse(words);
    if (choice !== null) await choice.command.run(choice.args);
  } catch (error) {
    process.exitCode = report(error, words);
  }
}

const words = process.argv.slice(2);
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // Whoever read our output has left: leave as quietly, with the code that a broken pipe gives any program.
  if (error.code === 'EPIPE') process.exit(exitCode.brokenPipe);
  const full = error.code === 'ENOSPC';
  process.exit(
    report(full ? new UserError('cannot write the output: the disk is full; free some space') : error, words),
  );
});
process.on('SIGINT', () => {
  // A command that has something to save listens itself, and decides.
  if (process.listenerCount('SIGINT') === 1) process.exit(exitCode.interrupted);
});
process.on('uncaughtException', error => process.exit(report(error, words)));
await main(words);
