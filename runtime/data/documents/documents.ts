// Documents: the texts that a file, a folder of files or standard input holds, one after the other, whatever the format.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../../compiler/diagnostic.ts';
import { explainReading } from '../text.ts';
import { readTextPieces } from '../text-pieces.ts';
import { readBytes } from './bytes.ts';
import { lineOf, readJsonLines } from './json-lines.ts';
import { readParquet, rowOf } from './parquet.ts';

/** A document of several in a file. */
export interface Document {
  readonly text: string;
  /** Its line or row, from 1. */
  readonly number: number;
}

export interface ReadOptions {
  /** The field of a JSON line, or the column of a table, that is the text. */
  readonly textField: string;
  /** Told of what is left out: a line that is no JSON, or has no text. Null to refuse it. */
  readonly onSkipped: ((place: string, why: string) => void) | null;
  /** A file that standard input was put into, to be read more than once. */
  readonly standardInput?: string | null;
}

/** What a file is read as, by its name; `.gz` and `.zst` after it are taken off first. */
const formats = {
  text: ['.txt', '.md', '.text'],
  'JSON lines': ['.jsonl', '.ndjson'],
  parquet: ['.parquet'],
} as const;
export type Format = keyof typeof formats;

/** Characters of documents that are given as one piece, at least. */
const PIECE = 1 << 20;

/** The format of a file: text, where its name says nothing. */
export function formatOf(path: string): Format {
  return knownFormat(path) ?? 'text';
}

/** Whether a file's name says a format. */
export const hasKnownFormat = (path: string): boolean => knownFormat(path) !== null;

function knownFormat(path: string): Format | null {
  const name = path.replace(/\.(gz|zst)$/, '');
  const found = Object.entries(formats).find(([, endings]) => endings.some(ending => name.endsWith(ending)));
  return (found?.[0] as Format | undefined) ?? null;
}

/**
 * The files that a path stands for: itself, or of a folder all that have a known format, by name.
 *
 * @throws UserError where there is none.
 */
export function filesOf(path: string): string[] {
  if (path === '-') return [path];
  try {
    if (!statSync(path).isDirectory()) return [path];
  } catch (error) {
    throw explainReading(error, path);
  }
  const endings = Object.values(formats).flat();
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' });
  const files = names
    .filter(hasKnownFormat)
    .sort()
    .map(name => join(path, name));
  if (files.length > 0) return files;
  const tokens = names.find(name => name.endsWith('.bin'));
  throw new UserError(
    `the folder ${path} holds no file with text in it (${endings.join(', ')}, with .gz or .zst or without)` +
      (tokens === undefined ? '' : `; files of tokens are given one by one, such as ${join(path, tokens)}`),
  );
}

/** @throws UserError where a field or column is asked for, and no file has any. */
export function requireFields(files: readonly string[], textField: string | null): void {
  if (textField === null || files.some(file => file === '-' || formatOf(file) !== 'text')) return;
  throw new UserError(`--text-field ${textField} is for JSON lines and tables, and the data has none; leave it out`);
}

/**
 * The documents of one file, or of standard input (`-`), which is text unless a text field is asked for; a text file is one
 * document. They come one after the other, each of which ends a line, in pieces of UTF-8 of about a megabyte: as much as is
 * in memory of a text file of any size.
 *
 * @param cut where a text may be cut, as readTextPieces asks it
 * @throws UserError where it cannot be read, holds nothing, or is not what its name says.
 */
export async function* documentPieces(
  path: string,
  options: ReadOptions,
  asLines: boolean,
  cut: (text: Buffer) => number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  if (readAs(path, asLines) === 'text') {
    yield* readTextPieces(path, cut, options.standardInput);
    return;
  }
  const encoder = new TextEncoder();
  let gathered = '';
  for await (const { text } of documentsOf(path, options, asLines)) {
    gathered += `${text}\n`;
    if (gathered.length < PIECE) continue;
    yield encoder.encode(gathered);
    gathered = '';
  }
  if (gathered !== '') yield encoder.encode(gathered);
}

/** A document, or a piece of one: whole characters of UTF-8. */
export interface DocumentPart {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** True where a document begins with it. */
  readonly begins: boolean;
}

/** The same, with where its document stands. */
export interface PlacedPart extends DocumentPart {
  /** The line or the row, from 1; 0 for all of a text file. */
  readonly number: number;
}

/**
 * The same documents in parts: a text file, of any size, in pieces of about a megabyte, each of the others as it is.
 *
 * @throws UserError as documentPieces
 */
export async function* documentParts(path: string, options: ReadOptions, asLines: boolean): AsyncGenerator<PlacedPart> {
  if (readAs(path, asLines) === 'text') {
    let begins = true;
    for await (const bytes of readTextPieces(path, wholeCharacters, options.standardInput)) {
      yield { bytes, begins, number: 0 };
      begins = false;
    }
    return;
  }
  const encoder = new TextEncoder();
  for await (const { text, number } of documentsOf(path, options, asLines))
    yield { bytes: encoder.encode(text), begins: true, number };
}

/** Where the document of a part stands, as a person looks for it. */
export function placeOf(path: string, number: number): string {
  if (number === 0) return path === '-' ? 'standard input' : path;
  return formatOf(path) === 'parquet' ? rowOf(path, number) : lineOf(path, number);
}

/** The documents of JSON lines, or of a table. */
function documentsOf(path: string, options: ReadOptions, asLines: boolean): AsyncGenerator<Document> {
  if (readAs(path, asLines) === 'parquet') return readParquet(path, options);
  return readJsonLines(path, readBytes(path, options.standardInput), options);
}

/** How many of the bytes are whole characters. */
function wholeCharacters(text: Uint8Array): number {
  let end = text.length;
  while (end > 0 && (text[end - 1]! & 0xc0) === 0x80) end -= 1;
  // What ends with a lead byte is cut before it; ASCII is whole.
  return end > 0 && text[end - 1]! < 0x80 ? text.length : end - 1;
}

/** What a file or standard input is read as. */
export function readAs(path: string, asLines: boolean): Format {
  if (path.endsWith('.json'))
    throw new UserError(
      `${path} is a JSON document; malc reads a text a line (.jsonl): jq -c '.[]' ${path} > texts.jsonl`,
    );
  if (path.endsWith('.bin'))
    throw new UserError(`${path} holds tokens, to train from (malc train -d ${path}); a text is needed here`);
  return path === '-' && asLines ? 'JSON lines' : formatOf(path);
}
