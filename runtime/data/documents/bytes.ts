// The bytes of a file, unpacked where its name ends in .gz or .zst, piece by piece.
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';
import { UserError } from '../../../compiler/diagnostic.ts';
import { explainReading } from '../text.ts';

const PIECE = 1 << 20;

/**
 * The bytes of a file or of standard input (`-`).
 *
 * @param standardInput a file that standard input was put into, where it was
 * @throws UserError where it cannot be read, or is not packed as its name says.
 */
export async function* readBytes(path: string, standardInput: string | null = null): AsyncGenerator<Uint8Array> {
  const file = path === '-' ? standardInput : path;
  const raw = file === null ? process.stdin : createReadStream(file, { highWaterMark: PIECE });
  try {
    // Of a pipeline, unlike a pipe, a fault in reading ends what is unpacked, where it is thrown.
    if (path.endsWith('.gz')) yield* pipeline(raw, createGunzip({ chunkSize: PIECE }), () => {});
    else if (path.endsWith('.zst')) yield* unpackZstandard(raw);
    else yield* raw;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException & { code?: string | number };
    if (typeof code === 'number' || String(code).startsWith('Z_'))
      throw new UserError(
        `${path} cannot be unpacked (${message}); it was cut short or is something else: fetch it again`,
      );
    throw explainReading(error, path);
  }
}

/** Zstandard (RFC 8878), frame after frame. */
async function* unpackZstandard(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let pieces: Uint8Array[] = [];
  const unpacker = new Decompress(piece => void pieces.push(piece));
  for await (const bytes of packed) {
    unpacker.push(bytes);
    yield* pieces;
    pieces = [];
  }
  unpacker.push(new Uint8Array(0), true);
  yield* pieces;
}
