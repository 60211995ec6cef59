// Token streams: ids in the .bin files of nanoGPT (little-endian uint16, or uint32 where the vocabulary needs it), each with
// a JSON side-car that says what it was made from. They are written as they come, and read where they are wanted.
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { UserError } from '../../compiler/diagnostic.ts';
import { AtomicFile, writeFileAtomic } from '../atomic-file.ts';

/** Tokens by their places, from 0 to `length`. */
export interface TokenStream {
  readonly length: number;
  /** Writes the `count` tokens from `start` on, all of which there are, to `target`, from `at` on. */
  read(start: number, count: number, target: Int32Array, at: number): void;
}

/** What stands beside `train.bin` in `train.json`. */
export interface TokenSideCar {
  readonly dtype: 'uint16' | 'uint32';
  readonly count: number;
  /** SHA-256 of the tokenizer and of the text. */
  readonly tokenizer: string;
  readonly text: string;
}

/** Tokens that are copied at once. */
const BLOCK = 2 ** 18;

/** Writes a file of tokens: with `finish` it is there, whole, and its side-car beside it. */
export class TokenWriter {
  length = 0;
  readonly #path: string;
  readonly #file: AtomicFile;
  readonly #Type: typeof Uint16Array | typeof Uint32Array;

  /**
   * @param vocabularySize decides how many bytes a token takes
   * @throws WriteError as writeFileAtomic does, here and later
   */
  constructor(path: string, vocabularySize: number) {
    this.#path = path;
    this.#file = new AtomicFile(path);
    this.#Type = vocabularySize <= 2 ** 16 ? Uint16Array : Uint32Array;
  }

  append(ids: Int32Array): void {
    // Every machine that the native programs run on is little-endian, so memory is written as it lies.
    this.#file.write(new Uint8Array(new this.#Type(ids).buffer));
    this.length += ids.length;
  }

  /** A crash in between leaves tokens without a side-car, never with a wrong one. */
  finish(source: Pick<TokenSideCar, 'tokenizer' | 'text'>): void {
    rmSync(sideCarPath(this.#path), { force: true });
    this.#file.finish();
    const dtype = this.#Type === Uint16Array ? 'uint16' : 'uint32';
    const sideCar: TokenSideCar = { dtype, count: this.length, ...source };
    writeFileAtomic(sideCarPath(this.#path), `${JSON.stringify(sideCar, null, 2)}\n`);
  }

  /** Leaves what was there before; to be called where a file that was begun is not finished. */
  discard(): void {
    this.#file.discard();
  }
}

/** Writes a whole stream as a file of tokens. */
export function writeTokens(
  path: string,
  tokens: TokenStream,
  source: Pick<TokenSideCar, 'tokenizer' | 'text'> & { readonly vocabularySize: number },
): void {
  const { vocabularySize, ...said } = source;
  const writer = new TokenWriter(path, vocabularySize);
  try {
    for (const block of blocksOf(tokens)) writer.append(block);
    writer.finish(said);
  } catch (error) {
    writer.discard();
    throw error;
  }
}

/** All tokens of a stream, in blocks; each is valid until the next. */
export function* blocksOf(tokens: TokenStream): Generator<Int32Array<ArrayBuffer>> {
  const block = new Int32Array(Math.min(BLOCK, tokens.length));
  for (let start = 0; start < tokens.length; start += BLOCK) {
    const count = Math.min(BLOCK, tokens.length - start);
    tokens.read(start, count, block, 0);
    yield block.subarray(0, count);
  }
}

/** A file of tokens that is open to be read. It stays readable when it is deleted meanwhile. */
export class TokenFile implements TokenStream {
  readonly path: string;
  readonly length: number;
  /** Null where there is none: it is taken for uint16 then, which is what nanoGPT writes. */
  readonly sideCar: TokenSideCar | null;
  readonly #file: number;
  readonly #Type: typeof Uint16Array | typeof Uint32Array;
  #bytes = Buffer.alloc(0);

  /** @throws UserError where the file is missing, torn, or not what its side-car says. */
  constructor(path: string) {
    if (!existsSync(path)) throw new UserError(`there is no token file ${path}; check the path`);
    this.path = path;
    this.sideCar = readSideCar(sideCarPath(path));
    this.#Type = this.sideCar?.dtype === 'uint32' ? Uint32Array : Uint16Array;
    this.#file = openSync(path, 'r');
    const { size } = fstatSync(this.#file);
    this.length = size / this.#Type.BYTES_PER_ELEMENT;
    if (this.length === (this.sideCar?.count ?? Math.floor(this.length))) return;
    this.close();
    throw torn(path, size, this.sideCar);
  }

  read(start: number, count: number, target: Int32Array, at: number): void {
    const width = this.#Type.BYTES_PER_ELEMENT;
    if (this.#bytes.length < count * width) this.#bytes = Buffer.from(new ArrayBuffer(count * width));
    for (let done = 0; done < count * width; ) {
      const read = readSync(this.#file, this.#bytes, done, count * width - done, start * width + done);
      if (read === 0) throw new UserError(`${this.path} became shorter while it was read; run the command again`);
      done += read;
    }
    target.set(new this.#Type(this.#bytes.buffer, 0, count), at);
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** The tokens [start, end) of a stream. */
export function partOf(tokens: TokenStream, start: number, end: number): TokenStream {
  return {
    length: end - start,
    read: (from, count, target, at) => tokens.read(start + from, count, target, at),
  };
}

/** Streams after one another, as one. */
export function joined(streams: readonly TokenStream[]): TokenStream {
  const starts = [0];
  for (const { length } of streams) starts.push(starts.at(-1)! + length);
  const [only] = streams;
  if (streams.length === 1 && only) return only;
  return {
    length: starts.at(-1)!,
    read(start, count, target, at) {
      const end = start + count;
      streams.forEach((stream, index) => {
        const first = Math.max(start, starts[index]!);
        const last = Math.min(end, starts[index + 1]!);
        if (first < last) stream.read(first - starts[index]!, last - first, target, at + first - start);
      });
    },
  };
}

function torn(path: string, size: number, sideCar: TokenSideCar | null): UserError {
  const width = sideCar?.dtype === 'uint32' ? 4 : 2;
  const expected =
    sideCar === null
      ? 'uint16 tokens take two each'
      : `${sideCar.count} tokens of ${sideCar.dtype} take ${sideCar.count * width}`;
  return new UserError(`${path} has ${size} bytes, but ${expected}; it was cut short: delete it and make it again`);
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
