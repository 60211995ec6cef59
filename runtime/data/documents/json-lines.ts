// JSON lines: an object on each line, of which one field is the text.
import { constants, isUtf8 } from 'node:buffer';
import { UserError } from '../../../compiler/diagnostic.ts';
import type { Document, ReadOptions } from './documents.ts';

/** Where a line stands. */
export const lineOf = (path: string, number: number): string => `${path === '-' ? 'standard input' : path}:${number}`;

/**
 * The documents of a file of JSON lines; empty lines are none.
 *
 * @throws UserError for the first line that is no object with the field, where `onSkipped` is null; or where no line is.
 */
export async function* readJsonLines(
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  { textField, onSkipped }: ReadOptions,
): AsyncGenerator<Document> {
  let number = 0;
  let given = 0;
  let firstFault: string | null = null;
  for await (const line of linesOf(pieces)) {
    number += 1;
    const found = readLine(line, textField);
    if (found === null) continue;
    if ('text' in found) {
      given += 1;
      yield { text: found.text, number };
      continue;
    }
    const place = lineOf(path, number);
    firstFault ??= `${place}: ${found.fault}`;
    if (!onSkipped) throw new UserError(`${place}: ${found.fault}`);
    onSkipped(place, found.fault);
  }
  if (given > 0) return;
  const name = path === '-' ? 'standard input' : path;
  throw new UserError(firstFault ?? `${name} holds no line with a text in it`);
}

/** The lines of a text in pieces, without what ends them. */
async function* linesOf(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let rest: Buffer[] = [];
  for await (const piece of pieces) {
    const bytes = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    let from = 0;
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, from)) {
      yield Buffer.concat([...rest, bytes.subarray(from, end)]);
      rest = [];
      from = end + 1;
    }
    if (from < bytes.length) rest.push(Buffer.from(bytes.subarray(from)));
  }
  if (rest.length > 0) yield Buffer.concat(rest);
}

/** The text of a line, or what is wrong with it; null for an empty line. */
function readLine(line: Buffer, field: string): { text: string } | { fault: string } | null {
  if (line.length > constants.MAX_STRING_LENGTH)
    return { fault: `the line has ${line.length} bytes, too many for a text` };
  if (!isUtf8(line)) return { fault: 'the line is not UTF-8' };
  const written = line
    .toString('utf8')
    .replace(/^\uFEFF/, '')
    .trim();
  if (written === '') return null;
  let value: unknown;
  try {
    value = JSON.parse(written);
  } catch (error) {
    return { fault: `the line is no JSON (${(error as Error).message})` };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { fault: 'the line is no JSON object' };
  const text = (value as Record<string, unknown>)[field];
  if (typeof text === 'string' && text !== '') return { text };
  if (text === '') return { fault: `its '${field}' is empty` };
  const texts = Object.entries(value).filter(([, each]) => typeof each === 'string');
  const others = texts.length > 0 ? `; texts are in ${texts.map(([name]) => name).join(', ')} (--text-field)` : '';
  return { fault: `the object has no text '${field}'${others}` };
}
