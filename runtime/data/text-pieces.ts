// Text from files in pieces, so that a text of any size takes little memory: UTF-8, checked, cut at harmless places.
import { isUtf8 } from 'node:buffer';
import { closeSync, openSync } from 'node:fs';
import { emptyText, explainReading, notUtf8, readSome } from './text.ts';

/** What is read at once, in bytes. */
const BLOCK = 1 << 20;

/**
 * The text of a file, or of standard input where the path is `-`, in pieces of about a megabyte; joined, they are the
 * text without its byte order mark.
 *
 * @param cut says where a text may be cut: after how many of its bytes, as many as can be; 0 or less where nowhere
 * @throws UserError where there is no such file, it is empty, or not UTF-8 (at which byte).
 */
export function* readTextPieces(
  path: string,
  cut: (text: Buffer) => number,
): Generator<Uint8Array<ArrayBuffer>, void, undefined> {
  const name = path === '-' ? 'standard input' : path;
  const file = path === '-' ? 0 : opened(path);
  // Where the rest, which is not given yet, begins in the file.
  let offset = 0;
  let line = 1;
  let rest = Buffer.alloc(0);
  const piece = (length: number): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(rest.subarray(0, length));
    if (!isUtf8(bytes)) throw notUtf8(name, bytes, { offset, line });
    for (let i = 0; i < length; i++) if (bytes[i] === 0x0a) line++;
    const marked = offset === 0 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    offset += length;
    rest = rest.subarray(length);
    return marked ? bytes.slice(3) : bytes;
  };
  let given = false;
  try {
    for (;;) {
      // Where a text cannot be cut, twice as much is looked at the next time: not all of it again for each block.
      const block = Buffer.allocUnsafe(Math.max(BLOCK, rest.length));
      const count = readFully(file, path, block);
      rest = Buffer.concat([rest, block.subarray(0, count)]);
      const length = count < block.length ? rest.length : cut(rest);
      if (length <= 0 && count === block.length) continue;
      const bytes = piece(length);
      given ||= bytes.length > 0;
      if (bytes.length > 0) yield bytes;
      if (count < block.length) break;
    }
  } finally {
    if (path !== '-') closeSync(file);
  }
  if (!given) throw emptyText(path);
}

function opened(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw explainReading(error, path);
  }
}

/** Fills the block, as far as the file goes. */
function readFully(file: number, path: string, block: Buffer): number {
  let length = 0;
  try {
    for (let count = -1; count !== 0 && length < block.length; length += count) count = readSome(file, block, length);
  } catch (error) {
    throw explainReading(error, path);
  }
  return length;
}
