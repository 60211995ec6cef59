// Token streams: a text as ids, in memory and as the .bin files of nanoGPT (little-endian uint16, or uint32 where the
// vocabulary needs it), each with a JSON side-car that says what it was made from.
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { UserError } from '../../compiler/diagnostic.ts';
import { writeFileAtomic, writeWhole } from '../atomic-file.ts';
import { encodeLongText } from '../tokenizer/encode.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

export type Tokens = Uint16Array | Uint32Array;

/** What stands beside `train.bin` in `train.json`. */
export interface TokenSideCar {
  readonly dtype: 'uint16' | 'uint32';
  readonly count: number;
  /** SHA-256 of the tokenizer and of the text. */
  readonly tokenizer: string;
  readonly text: string;
}

/**
 * Cuts a text in two, the last `validationShare` of its characters for validation: at the end of the line nearest to
 * that place, so that neither side begins in the middle of a word.
 *
 * @throws UserError where the share is not in [0, 1).
 */
export function splitText(text: string, validationShare: number): { training: string; validation: string } {
  if (!(validationShare >= 0 && validationShare < 1))
    throw new UserError(
      `the validation share is ${validationShare}; ` +
        'give a number from 0 (nothing is held out) to less than 1, such as 0.1',
    );
  if (validationShare === 0) return { training: text, validation: '' };
  const target = Math.round(text.length * (1 - validationShare));
  const after = text.indexOf('\n', target) + 1;
  const before = text.lastIndexOf('\n', target - 1) + 1;
  const ends = [after, before].filter(end => end > 0 && end < text.length);
  // A text of one line is cut where it falls, though not inside a surrogate pair.
  const inPair = text.charCodeAt(target) >>> 10 === 0x37;
  const nearest = ends.sort((a, b) => Math.abs(a - target) - Math.abs(b - target))[0] ?? target + (inPair ? 1 : 0);
  return { training: text.slice(0, nearest), validation: text.slice(nearest) };
}

/** The ids of a text, in the smallest type that holds every id of the vocabulary; by threads where the text is long. */
export async function encodeTokens(text: string, tokenizer: Tokenizer): Promise<Tokens> {
  const Type = tokensType(tokenizer);
  const pieces: Tokens[] = [];
  for await (const ids of encodeLongText(text, tokenizer)) pieces.push(new Type(ids));
  const tokens = new Type(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let length = 0;
  for (const piece of pieces) {
    tokens.set(piece, length);
    length += piece.length;
  }
  return tokens;
}

function tokensType(tokenizer: Tokenizer): typeof Uint16Array | typeof Uint32Array {
  return tokenizer.vocabularySize <= 2 ** 16 ? Uint16Array : Uint32Array;
}

/** Writes tokens and their side-car. A crash in between leaves tokens without a side-car, never with a wrong one. */
export function writeTokens(path: string, tokens: Tokens, source: Pick<TokenSideCar, 'tokenizer' | 'text'>): void {
  rmSync(sideCarPath(path), { force: true });
  // Every machine that the native programs run on is little-endian, so memory is written as it lies.
  writeFileAtomic(path, file => writeWhole(file, new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)));
  const dtype = tokens instanceof Uint16Array ? 'uint16' : 'uint32';
  const sideCar: TokenSideCar = { dtype, count: tokens.length, ...source };
  writeFileAtomic(sideCarPath(path), `${JSON.stringify(sideCar, null, 2)}\n`);
}

/**
 * Reads a `.bin` file. Without a side-car it is taken for uint16, which is what nanoGPT writes.
 *
 * @throws UserError where the file is missing, torn, or not what its side-car says.
 */
export function readTokens(path: string): { tokens: Tokens; sideCar: TokenSideCar | null } {
  if (!existsSync(path)) throw new UserError(`there is no token file ${path}; check the path`);
  const sideCar = readSideCar(sideCarPath(path));
  const Type = sideCar?.dtype === 'uint32' ? Uint32Array : Uint16Array;
  const file = openSync(path, 'r');
  try {
    const { size } = fstatSync(file);
    const count = size / Type.BYTES_PER_ELEMENT;
    if (count !== (sideCar?.count ?? Math.floor(count)))
      throw new UserError(
        `${path} has ${size} bytes, but ${
          sideCar === null
            ? 'uint16 tokens take two each'
            : `${sideCar.count} tokens of ` + `${sideCar.dtype} take ${sideCar.count * Type.BYTES_PER_ELEMENT}`
        }; it was cut short: delete it and make it again`,
      );
    const tokens = new Type(count);
    const bytes = new Uint8Array(tokens.buffer);
    for (let read = 0; read < size; ) {
      const length = Math.min(size - read, 2 ** 30);
      const more = readSync(file, bytes, read, length, null);
      if (more === 0) throw new UserError(`${path} became shorter while it was read; run the command again`);
      read += more;
    }
    return { tokens, sideCar };
  } finally {
    closeSync(file);
  }
}

function sideCarPath(path: string): string {
  return path.replace(/(\.bin)?$/, '.json');
}

function readSideCar(path: string): TokenSideCar | null {
  if (!existsSync(path)) return null;
  try {
    const { dtype, count, tokenizer, text } = JSON.parse(readFileSync(path, 'utf8'));
    if ((dtype === 'uint16' || dtype === 'uint32') && Number.isSafeInteger(count))
      return { dtype, count, tokenizer, text };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new UserError(
    `${path} does not say the dtype (uint16, uint32) and the count of the tokens beside it; ` +
      'make both again with malc data prepare, or, if it is another file, move it away from there',
  );
}
