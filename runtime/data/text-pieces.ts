// Text from files in pieces, so that a text of any size takes little memory: UTF-8, checked, cut at harmless places.
import { isUtf8 } from 'node:buffer';
import { readBytes } from './documents/bytes.ts';
import { emptyText, notUtf8 } from './text.ts';

/** What is looked at at once, in bytes. */
const BLOCK = 1 << 20;

/**
 * The text of a file, unpacked where its name says so, or of standard input where the path is `-`, in pieces of about a
 * megabyte; joined, they are the text without its byte order mark.
 *
 * @param cut says where a text may be cut: after how many of its bytes, as many as can be; 0 or less where nowhere
 * @param standardInput a file that standard input was put into, where it was
 * @throws UserError where there is no such file, it is empty, or not UTF-8 (at which byte).
 */
export async function* readTextPieces(
  path: string,
  cut: (text: Buffer) => number,
  standardInput: string | null = null,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const name = path === '-' ? 'standard input' : path;
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
  let blocks: Uint8Array[] = [];
  let waiting = 0;
  for await (const block of readBytes(path, standardInput)) {
    blocks.push(block);
    waiting += block.length;
    // Where a text cannot be cut, twice as much is looked at the next time: not all of it again for each block.
    if (waiting < Math.max(BLOCK, rest.length)) continue;
    rest = Buffer.concat([rest, ...blocks]);
    [blocks, waiting] = [[], 0];
    const length = cut(rest);
    if (length <= 0) continue;
    const bytes = piece(length);
    given ||= bytes.length > 0;
    if (bytes.length > 0) yield bytes;
  }
  rest = Buffer.concat([rest, ...blocks]);
  const last = piece(rest.length);
  if (last.length > 0) yield last;
  else if (!given) throw emptyText(path);
}
