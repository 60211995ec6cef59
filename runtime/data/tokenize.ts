// Files of text as files of tokens: divided into what is learned from and what is held out, encoded in threads, and written
// as they come. No more of a text is in memory than the threads have at hand.
import { join } from 'node:path';
import { toUSVString } from 'node:util';
import { writeFileAtomic } from '../atomic-file.ts';
import { encodePieces } from '../tokenizer/encode.ts';
import type { TextPiece } from '../tokenizer/text-piece.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type DividedPart, divide } from './divide.ts';
import { documentParts } from './documents/documents.ts';
import type { Measured, Reading } from './measure.ts';
import { Packer } from './packing.ts';
import { TokenWriter } from './tokens.ts';

/** What stands beside the files of tokens, in DESCRIPTION. */
export interface TextDescription {
  /** Of the text that is held out, in UTF-8. */
  readonly validationBytes: number;
  /** The first lines of the text that is learned from. */
  readonly lines: readonly string[];
}

export const TRAINING = 'train.bin';
export const VALIDATION = 'val.bin';
export const DESCRIPTION = 'text.json';

/** Characters of the training text whose lines are kept. */
const LINES_WITHIN = 20_000;

export interface DividedText {
  readonly measured: Measured;
  readonly reading: Reading;
  readonly validationShare: number;
}

/** What texts give to training, in pieces, documents after one another as lines: what a tokenizer is learned from. */
export async function* trainingPieces(texts: readonly DividedText[]): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const packer = new Packer({ endOfText: null, cutsSafely: true });
  for (const text of texts) {
    for await (const part of dividedParts(text)) {
      if (part.isHeldOut) continue;
      for (const piece of packer.add(part)) yield piece.text;
    }
  }
  for (const piece of packer.end()) yield piece.text;
}

/**
 * Writes train.bin and val.bin into a folder, with their side-cars, and what else is known of the text.
 *
 * @param hash of the tokenizer, for the side-cars
 * @param onProgress is told the bytes of text that are encoded
 * @throws WriteError where the disk is full; UserError as documentParts and divide do
 */
export async function tokenize(
  text: DividedText,
  tokenizer: Tokenizer,
  folder: string,
  hash: string,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const { vocabularySize } = tokenizer;
  const writers = [TRAINING, VALIDATION].map(name => new TokenWriter(join(folder, name), vocabularySize));
  const [training, validation] = writers as [TokenWriter, TokenWriter];
  const packed = new PackedText(text, tokenizer);
  const bytes = text.measured.files.reduce((sum, file) => sum + file.bytes, 0);
  try {
    for await (const ids of encodePieces(packed.pieces(), tokenizer, bytes)) {
      const { isHeldOut, length } = packed.given.shift()!;
      (isHeldOut ? validation : training).append(ids);
      onProgress(length);
    }
    const source = { tokenizer: hash, text: text.measured.hash };
    for (const writer of writers) writer.finish(source);
  } catch (error) {
    for (const writer of writers) writer.discard();
    throw error;
  }
  const description: TextDescription = { validationBytes: packed.validationBytes, lines: linesOf(packed.beginning) };
  writeFileAtomic(join(folder, DESCRIPTION), JSON.stringify(description));
}

/** A text as pieces for threads, those of both streams as they come. */
class PackedText {
  /** Whose pieces those are that are given and not encoded yet. */
  readonly given: { readonly isHeldOut: boolean; readonly length: number }[] = [];
  validationBytes = 0;
  /** Of the training text, a little more than the lines that are kept. */
  beginning = '';
  readonly #text: DividedText;
  readonly #tokenizer: Tokenizer;

  constructor(text: DividedText, tokenizer: Tokenizer) {
    this.#text = text;
    this.#tokenizer = tokenizer;
  }

  async *pieces(): AsyncGenerator<TextPiece> {
    const [training, validation] = [new Packer(this.#tokenizer), new Packer(this.#tokenizer)];
    for await (const part of dividedParts(this.#text)) {
      if (part.isHeldOut) this.validationBytes += part.bytes.length;
      else this.#keep(part);
      yield* this.#told(part.isHeldOut, (part.isHeldOut ? validation : training).add(part));
    }
    yield* this.#told(false, training.end());
    yield* this.#told(true, validation.end());
  }

  *#told(isHeldOut: boolean, pieces: Iterable<TextPiece>): Generator<TextPiece> {
    for (const piece of pieces) {
      this.given.push({ isHeldOut, length: piece.text.length });
      yield piece;
    }
  }

  #keep({ bytes, begins }: DividedPart): void {
    if (this.beginning.length >= LINES_WITHIN) return;
    // No character takes more than four bytes.
    const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 4 * LINES_WITHIN));
    this.beginning += `${begins && this.beginning !== '' ? '\n' : ''}${start.toString('utf8')}`;
  }
}

async function* dividedParts({ measured, reading, validationShare }: DividedText): AsyncGenerator<DividedPart> {
  // What holds no text was told, or refused, when the files were measured.
  const again = { ...reading, onSkipped: () => {} };
  for (const file of measured.files)
    yield* divide(documentParts(file.path, again, reading.asLines), file, validationShare);
}

/** Half a surrogate pair, which no UTF-8 holds, is U+FFFD: it would come back as that from any tokenizer. */
function linesOf(beginning: string): string[] {
  return toUSVString(beginning.slice(0, LINES_WITHIN))
    .split('\n')
    .filter(line => line !== '');
}
