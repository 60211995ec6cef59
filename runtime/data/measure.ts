// What files of text hold, read once before anything is made of them: how many documents, how long, and a hash of all.
import { ContentHash } from './content-hash.ts';
import { documentParts, type ReadOptions, readAs } from './documents/documents.ts';

/** What one file holds. */
export interface MeasuredFile {
  readonly path: string;
  readonly documents: number;
  /** In UTF-16, as JavaScript counts, and in UTF-8. */
  readonly characters: number;
  readonly bytes: number;
}

export interface Measured {
  readonly files: readonly MeasuredFile[];
  /** Of all texts, in their order. */
  readonly hash: string;
}

/** How files of text are read. */
export interface Reading extends ReadOptions {
  /** Standard input comes as JSON lines. */
  readonly asLines: boolean;
}

/**
 * Reads all files, a piece at a time.
 *
 * @param onProgress is told the bytes of text read so far
 * @throws UserError as documentParts does
 */
export async function measure(
  files: readonly string[],
  reading: Reading,
  onProgress: (bytes: number) => void,
): Promise<Measured> {
  const hash = new ContentHash();
  const measured: MeasuredFile[] = [];
  let before = 0;
  for (const path of files) {
    const told = (bytes: number) => onProgress(before + bytes);
    const file = await measureFile(path, reading, hash, told);
    measured.push(file);
    before += file.bytes;
  }
  return { files: measured, hash: hash.digest() };
}

/** A document's length goes into the hash before it, so that a text file, which comes in pieces, is read twice. */
async function measureFile(
  path: string,
  reading: Reading,
  hash: ContentHash,
  onProgress: (bytes: number) => void,
): Promise<MeasuredFile> {
  const isText = readAs(path, reading.asLines) === 'text';
  let [documents, characters, bytes] = [0, 0, 0];
  for await (const part of documentParts(path, reading, reading.asLines)) {
    if (part.begins) documents += 1;
    characters += utf16Length(part.bytes);
    bytes += part.bytes.length;
    onProgress(bytes);
    if (isText) continue;
    hash.begin(part.bytes.length);
    hash.add(part.bytes);
  }
  if (isText) {
    hash.begin(bytes);
    for await (const part of documentParts(path, reading, reading.asLines)) hash.add(part.bytes);
  }
  return { path, documents, characters, bytes };
}

/** The length of a text of UTF-8 in UTF-16: a character takes one unit, and two where it takes four bytes. */
export function utf16Length(bytes: Uint8Array): number {
  let units = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if ((byte & 0xc0) !== 0x80) units += byte >= 0xf0 ? 2 : 1;
  }
  return units;
}
