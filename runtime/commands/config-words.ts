// Options from elsewhere than the command line: those of a JSON file (--config) and single ones (--set NAME=VALUE) become
// words of it, so that they pass the same checks. What the command line itself says wins, then --set, then the file.
import { readFileSync } from 'node:fs';
import { nearest, UserError } from '../../compiler/diagnostic.ts';
import { type Command, type Option, UsageError } from './command.ts';

/** The options of commands that take their options from a file, too. */
export const configOptions = {
  config: { type: 'string', describe: 'Options from a JSON file, such as a run’s run.json', advanced: true },
  set: { type: 'string', array: true, describe: 'Options as NAME=VALUE, over those of --config', advanced: true },
} as const satisfies Record<string, Option>;

/**
 * The words of a command line with those that --config and --set add, after the command's name.
 *
 * @throws UserError where the file cannot be read, is no JSON object, or holds what is no option of the command.
 * @throws UsageError where --set says no NAME=VALUE, or names no option.
 */
export function withConfigured(command: Command, words: readonly string[]): readonly string[] {
  // `malc bench` has another option of the name.
  if (command.options.config !== configOptions.config) return words;
  const configured = new Map<string, unknown>();
  const path = valuesOf('config', words)[0];
  if (path !== undefined)
    for (const [key, value] of Object.entries(readObject(path))) {
      const name = findOption(command, key);
      if (name === null) throw new UserError(`${path}: ${noOption(command, key)}`);
      if (value !== null) configured.set(name, value);
    }
  for (const pair of valuesOf('set', words)) {
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(pair) ?? [];
    if (key === undefined) throw new UsageError(`--set expects NAME=VALUE, such as lr=1e-3, not '${pair}'`);
    const name = findOption(command, key);
    if (name === null) throw new UsageError(`--set ${pair}: ${noOption(command, key)}`);
    for (const other of command.options[name]!.instead ?? []) configured.delete(other);
    configured.set(name, value);
  }
  const isSaid = (name: string) =>
    [name, ...(command.options[name]!.instead ?? [])].some(each => isGiven(each, command.options[each]!, words));
  const added = [...configured].filter(([name]) => !isSaid(name));
  const place = words.indexOf(command.name) + 1;
  return [...words.slice(0, place), ...added.flatMap(([name, value]) => wordsOf(name, value)), ...words.slice(place)];
}

/** Every value that stands after an option's name, up to the next option. */
function valuesOf(name: string, words: readonly string[]): string[] {
  return words.flatMap((word, index) => {
    if (word.startsWith(`--${name}=`)) return [word.slice(name.length + 3)];
    if (word !== `--${name}`) return [];
    const after = words.slice(index + 1);
    const end = after.findIndex(each => each.startsWith('-') && each !== '-');
    return after.slice(0, end < 0 ? undefined : end);
  });
}

function readObject(path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UserError(`--config ${path} cannot be read: ${(error as Error).message}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new UserError(`--config ${path} holds no JSON object of options, such as { "lr": 1e-3 }`);
}

/** The long name of an option that may be configured. */
function findOption({ options }: Command, key: string): string | null {
  const found = Object.entries(options).find(([name, option]) => name === key || aliasesOf(option).includes(key));
  return found === undefined || found[0] in configOptions ? null : found[0];
}

function noOption(command: Command, key: string): string {
  const names = Object.keys(command.options).filter(name => !(name in configOptions));
  const near = nearest(key, names);
  return `malc ${command.name} has no option '${key}'${near === null ? '' : `. Did you mean ${near}?`}`;
}

function isGiven(name: string, option: Option, words: readonly string[]): boolean {
  const forms = [name, ...aliasesOf(option)].map(each => (each.length === 1 ? `-${each}` : `--${each}`));
  return words.some(
    word =>
      word === `--no-${name}` ||
      forms.some(form => word === form || word.startsWith(`${form}=`) || (form.length === 2 && word.startsWith(form))),
  );
}

const aliasesOf = ({ alias }: Option): string[] => [alias ?? []].flat();

/** An option as it would be typed. */
function wordsOf(name: string, value: unknown): string[] {
  if (value === true) return [`--${name}`];
  if (value === false) return [`--no-${name}`];
  if (Array.isArray(value)) return value.length === 0 ? [] : [`--${name}`, ...value.map(String)];
  return [`--${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`];
}
