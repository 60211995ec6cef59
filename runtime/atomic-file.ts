// Files that are whole or absent: written to a temporary file in the same folder, synced, then renamed into place.
import {
  accessSync,
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../compiler/diagnostic.ts';

/**
 * Writes `data` to `path`, replacing what was there. A reader, or the next run after a crash, sees the old file or the
 * whole new one, never a part. Text is written as UTF-8; a function is given the open file and writes to it itself.
 *
 * @throws UserError where the disk is full, the folder is missing or may not be written to, or the path is no file.
 */
export function writeFileAtomic(path: string, data: string | Uint8Array | ((file: number) => void)): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}.tmp`);
  try {
    checkPlainFile(path);
    const file = openSync(temporary, 'w');
    try {
      try {
        if (typeof data === 'function') data(file);
        else writeWhole(file, typeof data === 'string' ? Buffer.from(data, 'utf8') : data);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, path);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    syncFolder(folder);
  } catch (error) {
    throw explained(error, path);
  }
}

/**
 * Says before long work begins what would keep its result from being written.
 *
 * @throws UserError as writeFileAtomic does, save for a full disk.
 */
export function checkWritable(path: string): void {
  try {
    checkPlainFile(path);
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw explained(error, path);
  }
}

/** A rename would put a plain file in the place of a device or a pipe, /dev/stdout for one. */
function checkPlainFile(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) throw notPlainFile(path);
}

/** Writes all of `bytes` at the file's position: one call to the system may take only a part of them. */
export function writeWhole(file: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written);
}

/** Makes the rename itself last through a loss of power. Windows cannot open a folder, and needs no such call. */
function syncFolder(folder: string): void {
  if (process.platform === 'win32') return;
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

function notPlainFile(path: string): UserError {
  return new UserError(
    `cannot write ${path}: it is there already and is not a plain file but a folder, a link or a device; ` +
      'give the path of a file',
  );
}

function explained(error: unknown, path: string): unknown {
  const folder = dirname(path);
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return new UserError(
        `cannot write ${path}: the folder ${folder} does not exist; ` +
          `create it (mkdir -p ${folder}) or choose another path`,
      );
    case 'ENOTDIR':
      return new UserError(`cannot write ${path}: a part of ${folder} is a file, not a folder; choose another path`);
    case 'EISDIR':
      return notPlainFile(path);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new UserError(
        `cannot write ${path}: no permission to write in ${folder}; ` +
          'choose a folder of your own, or change its permissions',
      );
    case 'ENOSPC':
    case 'EDQUOT':
      return new UserError(
        `cannot write ${path}: the disk is full (or the quota is used up); ` +
          'free some space, or choose a folder on another disk',
      );
    default:
      return error;
  }
}
