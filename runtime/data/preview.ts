// What a data set is like, from one reading of its files: a survey of its documents, how many tokens they become, and how the
// first of them begin. As much of a text is in memory as is looked at.
import { statSync } from 'node:fs';
import { encodePieces } from '../tokenizer/encode.ts';
import type { TextPiece } from '../tokenizer/text-piece.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { documentParts, type PlacedPart, placeOf } from './documents/documents.ts';
import { type Survey, Surveyor } from './documents/survey.ts';
import type { Reading } from './measure.ts';
import { Packer } from './packing.ts';

/** Characters of a document that are shown. */
const SHOWN = 400;

export interface Preview {
  readonly survey: Survey;
  /** As `malc data prepare` makes them, without those between documents; 0 where there is no tokenizer. */
  readonly tokens: number;
  /** How the first documents begin, and where they stand. */
  readonly shown: readonly { readonly place: string; readonly text: string }[];
}

export interface PreviewOptions {
  readonly reading: Reading;
  readonly tokenizer: Tokenizer | null;
  /** How many documents are shown. */
  readonly most: number;
  /** Told of each file before it is read. */
  readonly onFile: (path: string) => void;
  /** Told the bytes of text read so far. */
  readonly onProgress: (bytes: number) => void;
}

/** @throws UserError as documentParts */
export async function previewOf(files: readonly string[], options: PreviewOptions): Promise<Preview> {
  const { reading, tokenizer, most, onFile, onProgress } = options;
  const surveyor = new Surveyor();
  const shown: { place: string; text: string }[] = [];
  async function* parts() {
    let done = 0;
    for (const file of files) {
      onFile(file);
      for await (const part of documentParts(file, reading, reading.asLines)) {
        surveyor.add(file, part);
        if (part.begins && shown.length < most)
          shown.push({ place: placeOf(file, part.number), text: beginningOf(part.bytes) });
        done += part.bytes.length;
        onProgress(done);
        yield part;
      }
    }
  }
  let tokens = 0;
  if (tokenizer === null) for await (const _ of parts());
  else tokens = await countTokens(parts(), tokenizer, files);
  return { survey: surveyor.result(), tokens, shown };
}

async function countTokens(
  parts: AsyncIterable<PlacedPart>,
  tokenizer: Tokenizer,
  files: readonly string[],
): Promise<number> {
  // At least: what is packed is more text. How much standard input has nobody knows.
  const bytes = files.reduce((sum, file) => sum + (file === '-' ? Number.POSITIVE_INFINITY : statSync(file).size), 0);
  let tokens = 0;
  const withoutMarks = function* (pieces: Iterable<TextPiece>) {
    for (const piece of pieces) {
      tokens -= piece.breaks.length;
      yield piece;
    }
  };
  async function* packed() {
    const packer = new Packer(tokenizer);
    for await (const part of parts) yield* withoutMarks(packer.add(part));
    yield* withoutMarks(packer.end());
  }
  for await (const ids of encodePieces(packed(), tokenizer, bytes)) tokens += ids.length;
  return tokens;
}

/** The beginning of a document whose first part this is; no character takes more than four bytes. */
const beginningOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.subarray(0, 4 * SHOWN))
    .toString()
    .slice(0, SHOWN);
