// The prompts of a file: one a line, or, in a .jsonl file, the `text` of each line.
import { UserError } from '../../compiler/diagnostic.ts';
import { readText } from '../data/text.ts';

export interface Prompt {
  readonly text: string;
  /** What messages call it. */
  readonly name: string;
}

/** Prompts of the command line: `the prompt`, or `prompt 1` and so on. */
export const namedPrompts = (texts: readonly string[]): Prompt[] =>
  texts.map((text, n) => ({ text, name: texts.length === 1 ? 'the prompt' : `prompt ${n + 1}` }));

/**
 * The prompts of a file, or of standard input where the path is `-`. An empty line is an empty prompt, with which a text
 * begins from nothing.
 *
 * @throws UserError where the file cannot be read or a line of a .jsonl file is no object with a `text`
 */
export function readPrompts(path: string): Prompt[] {
  const lines = readText(path)
    .replace(/\r?\n$/, '')
    .split(/\r?\n/);
  const file = path === '-' ? 'standard input' : path;
  return lines.map((line, n) => {
    const where = `${file}, line ${n + 1}`;
    return { text: path.endsWith('.jsonl') ? textOf(line, where) : line, name: `prompt ${n + 1} (${where})` };
  });
}

function textOf(line: string, where: string): string {
  const wanted =
    'each line of a .jsonl file is an object with a prompt as "text", such as {"text": "Once upon a time"}';
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new UserError(`${where}: this is no JSON (${(error as Error).message}); ${wanted}`);
  }
  const text = typeof value === 'object' && value !== null && 'text' in value ? value.text : undefined;
  if (typeof text !== 'string') throw new UserError(`${where}: there is no "text"; ${wanted}`);
  return text;
}
