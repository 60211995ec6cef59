// Text from a file or from standard input: UTF-8, checked, without its byte order mark.
import { constants, isUtf8 } from 'node:buffer';
import { readFileSync, readSync, statSync } from 'node:fs';
import { UserError } from '../../compiler/diagnostic.ts';

/**
 * The text of a file, or of standard input where the path is `-`.
 *
 * @throws UserError where there is no such file, it is empty, too large for one string, or not UTF-8 (at which byte).
 */
export function readText(path: string): string {
  const name = path === '-' ? 'standard input' : path;
  const bytes = path === '-' ? readStandardInput() : readBytes(path);
  if (bytes.length > constants.MAX_STRING_LENGTH) throw tooLarge(name, bytes.length);
  if (!isUtf8(bytes)) throw notUtf8(name, bytes);
  const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  const text = bytes.toString('utf8', marked ? 3 : 0);
  if (text === '') throw emptyText(path);
  return text;
}

/** The error for a text of no characters. */
export function emptyText(path: string): UserError {
  return new UserError(
    path === '-'
      ? 'standard input is empty; pipe a text into the command: cat book.txt | malc ...'
      : `${path} is empty; give a file with text in it, a megabyte or more to learn something from`,
  );
}

function readBytes(path: string): Buffer {
  try {
    const { size } = statSync(path);
    if (size > constants.MAX_STRING_LENGTH) throw tooLarge(path, size);
    return readFileSync(path);
  } catch (error) {
    throw explainReading(error, path);
  }
}

/** What a failed call to the system means for the user who wanted `path` read; any other error as it is. */
export function explainReading(error: unknown, path: string): unknown {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new UserError(`there is no file ${path} (in ${process.cwd()}); check the path`);
    case 'EISDIR':
      return new UserError(`${path} is a folder; give a text file, for a whole folder: cat ${path}/*.txt > all.txt`);
    case 'EACCES':
    case 'EPERM':
      return new UserError(`${path} may not be read; change its permissions: chmod u+r ${path}`);
    default:
      return error;
  }
}

function readStandardInput(): Buffer {
  const chunks: Buffer[] = [];
  for (;;) {
    const chunk = Buffer.allocUnsafe(1 << 16);
    const count = readSome(chunk);
    if (count === 0) return Buffer.concat(chunks);
    chunks.push(chunk.subarray(0, count));
  }
}

/**
 * Reads what standard input has, at least a byte, into a buffer, and returns how much it was, 0 at the end. Where it is a
 * terminal or a pipe that does not block, EAGAIN says: nothing there yet.
 */
function readSome(buffer: Buffer): number {
  for (;;)
    try {
      return readSync(0, buffer, 0, buffer.length, null);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EOF') return 0; // Windows: the other end of the pipe was closed
      if (code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
}

/** The error for a text that no string can hold. */
function tooLarge(name: string, size: number): UserError {
  return new UserError(
    `${name} has ${size} bytes, and a text is held in memory whole, ${constants.MAX_STRING_LENGTH} at the most; ` +
      'take a part of it (head -c 500M) or split it into several files (split -C 400M)',
  );
}

/** The error for bytes that are not UTF-8; `from` says where in the text they begin. */
export function notUtf8(name: string, bytes: Uint8Array, from = { offset: 0, line: 1 }): UserError {
  const offset = invalidUtf8Offset(bytes);
  const line = bytes.subarray(0, offset).reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), from.line);
  const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  const encoding = utf16 ? 'UTF-16' : 'ISO-8859-1';
  return new UserError(
    `${name} is not UTF-8: no whole character begins at byte ${from.offset + offset} (line ${line}), which is ` +
      `0x${bytes[offset]!.toString(16).padStart(2, '0')}; ` +
      `if it is ${encoding}, convert it: iconv -f ${encoding} -t UTF-8 FILE > text.txt`,
  );
}

/** Offset of the first character that is not well formed, or -1. The Unicode Standard 15.0, table 3-7. */
export function invalidUtf8Offset(bytes: Uint8Array): number {
  for (let start = 0; start < bytes.length; ) {
    const lead = bytes[start]!;
    const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length === 0 || start + length > bytes.length) return start;
    // The second byte's range keeps out overlong forms, surrogates and what lies above U+10FFFF.
    const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    for (let i = 1; i < length; i++) {
      const byte = bytes[start + i]!;
      if (byte < (i === 1 ? low : 0x80) || byte > (i === 1 ? high : 0xbf)) return start;
    }
    start += length;
  }
  return -1;
}
