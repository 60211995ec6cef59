// The command line: arguments to a command, errors to exit codes. The only importer of yargs, and the only place that
// exits the process.
import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import yargs, { type Argv, type Options } from 'yargs';
import { formatDiagnostic, MachineError, nearest, SourceError, UserError } from './compiler/diagnostic.ts';
import packageJson from './package.json' with { type: 'json' };
import type { Command, Option } from './runtime/commands/command.ts';
import { commands } from './runtime/commands/index.ts';
import { hasColor } from './runtime/show/color.ts';

/** The process's exit codes. A command that saved its state on Ctrl-C sets `process.exitCode` to `interrupted` itself. */
const exitCode = { user: 1, usage: 2, machine: 3, internal: 70, interrupted: 130, brokenPipe: 141 } as const;

/** The command line itself is at fault: the message is printed and the process leaves with 2. */
class UsageError extends Error {}

interface Choice {
  readonly command: Command;
  readonly args: Readonly<Record<string, unknown>>;
}

/** Stands for a lone `-`, which yargs drops from among the positionals: no argument can hold this character. */
const dash = '\0';

function withDashes(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withDashes);
  return value === dash ? '-' : value;
}

/** Finds the command and its arguments; null where help or the version was asked for and has been printed. */
function parse(words: readonly string[]): Choice | null {
  if (words.length === 0 || (words.length === 1 && ['--help', '-h', 'help'].includes(words[0]!))) {
    console.log(shortHelp());
    return null;
  }
  let choice: Choice | null = null;
  const named = commands.find(({ name }) => name === words.find(word => !word.startsWith('-')));
  const parser = yargs(words.map(word => (word === '-' ? dash : word)))
    .scriptName('malc')
    .locale('en')
    .updateStrings({ 'Positionals:': 'Arguments:' })
    .version(packageJson.version)
    .help('help', 'Shows this text')
    .alias('help', 'h')
    .wrap(Math.min(100, process.stdout.columns ?? 100))
    .exitProcess(false)
    .strict()
    .demandCommand(1, 'Name a command')
    .showHelpOnFail(false)
    .parserConfiguration({ 'boolean-negation': true, 'strip-aliased': true, 'camel-case-expansion': false })
    .fail((message, error) => {
      throw error instanceof UsageError ? error : new UsageError(explain(message.replaceAll(dash, '-'), words, named));
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
        const args = Object.fromEntries(Object.entries(parsed).map(([name, value]) => [name, withDashes(value)]));
        checkValues(command, args);
        choice = { command, args };
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
  return `malc ${packageJson.version}: ${packageJson.description}\n\n${lines.join('\n')}\n\nmalc COMMAND --help lists a command's options.`;
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
  for (const { name, describe, required } of command.positionals ?? []) {
    builder.positional(name, { type: 'string', describe, demandOption: required === true });
  }
  for (const [name, option] of Object.entries(command.options)) builder.option(name, yargsOption(option));
  for (const [example, does] of command.examples ?? []) builder.example(example, does);
  return builder;
}

function yargsOption(option: Option): Options {
  const { type, describe, alias, choices, required, array, advanced } = option;
  return {
    type,
    describe,
    group: advanced ? 'Advanced options:' : 'Options:',
    ...(alias !== undefined && { alias }),
    ...(choices !== undefined && { choices }),
    ...(option.default !== undefined && { default: option.default }),
    ...(required && { demandOption: true }),
    ...(array && { array }),
    ...(type !== 'boolean' && { requiresArg: true }),
  };
}

/** Refuses what yargs lets pass: a number that is none, and one option given twice. */
function checkValues(command: Command, args: Readonly<Record<string, unknown>>): void {
  for (const [name, option] of Object.entries(command.options)) {
    const value = args[name];
    if (Array.isArray(value) && !option.array) throw new UsageError(`--${name} is given more than once`);
    const values = Array.isArray(value) ? value : [value];
    if (option.type === 'number' && values.some(Number.isNaN)) throw new UsageError(`--${name} expects a number`);
  }
}

/** A usage error of yargs in our words, with the nearest name where one is close. */
function explain(message: string, words: readonly string[], command: Command | undefined): string {
  const complaint = command === undefined ? unknownCommand(words) : complainAbout(message, words, command);
  const advice = command === undefined ? 'malc lists the commands.' : `malc ${command.name} --help lists the options.`;
  return `${complaint}\n${advice}`;
}

function unknownCommand(words: readonly string[]): string {
  const word = words.find(word => !word.startsWith('-'));
  if (word === undefined) return `a command is needed before ${words[0]}`;
  const names = commands.map(({ name }) => name);
  return `there is no command ${word}${suggestion(nearest(word, names))}`;
}

function complainAbout(message: string, words: readonly string[], command: Command): string {
  const listed = (pattern: RegExp) => pattern.exec(message)?.[1]?.split(', ');
  const missing = listed(/^Missing required arguments?: (.*)$/);
  if (missing !== undefined) return `${missing.map(name => `--${name}`).join(', ')} ${isOrAre(missing)} needed`;
  if (message.startsWith('Not enough non-option arguments')) {
    const needed = positionalWords(command).filter(word => !word.startsWith('['));
    return `${needed.join(' ')} ${isOrAre(needed)} needed`;
  }
  const empty = listed(/^Not enough arguments following: (.*)$/);
  if (empty !== undefined) return `--${empty[0]} expects a value`;
  const choice = /Argument: (.*), Given: "(.*)", Choices: (.*)$/.exec(message);
  if (choice !== null) return `--${choice[1]} expects one of ${choice[3]!.replaceAll('"', '')}, not ${choice[2]}`;
  const unknown = listed(/^Unknown arguments?: (.*)$/);
  if (unknown !== undefined) return unknown.map(name => unknownArgument(name, words, command)).join('\n');
  return message;
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
  return Object.entries(command.options).flatMap(([name, { alias }]) => [name, ...[alias ?? []].flat()]);
}

/** Prints what went wrong and says with which code the process leaves. */
function report(error: unknown, words: readonly string[]): number {
  if (error instanceof UsageError) {
    console.error(`error: ${error.message}`);
    return exitCode.usage;
  }
  if (error instanceof SourceError) {
    const color = hasColor(process.stderr);
    const shown = error.diagnostics.map(diagnostic => formatDiagnostic(diagnostic, error.sources, { color }));
    console.error(shown.join('\n\n'));
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
    const folder = join(tmpdir(), 'malc-reports');
    mkdirSync(folder, { recursive: true });
    const time = new Date().toISOString().replace(/[:.]/g, '-');
    const path = join(folder, `${time}-${process.pid}.txt`);
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
  process.exit(error.code === 'EPIPE' ? exitCode.brokenPipe : report(error, words));
});
process.on('SIGINT', () => {
  // A command that has something to save listens itself, and decides.
  if (process.listenerCount('SIGINT') === 1) process.exit(exitCode.interrupted);
});
process.on('uncaughtException', error => process.exit(report(error, words)));
await main(words);
