// Files that are whole or absent: written to a temporary file in the same folder, synced, then renamed into place.
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UserError } from '../compiler/diagnostic.ts';

/** Something cannot be written where the user wants it: the disk, the folder or its permissions are in the way. */
export class WriteError extends UserError {}

/**
 * Writes `data` to `path`, replacing what was there. A reader, or the next run after a crash, sees the old file or the
 * whole new one, never a part. Text is written as UTF-8.
 *
 * @throws WriteError where the disk is full, the folder is missing or may not be written to, or the path is no file.
 */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  const file = new AtomicFile(path);
  try {
    file.write(typeof data === 'string' ? Buffer.from(data, 'utf8') : data);
    file.finish();
  } catch (error) {
    file.discard();
    throw error;
  }
}

/** A file that is written piece by piece, and there when it is finished: whole, in the place of what was there before. */
export class AtomicFile {
  readonly #path: string;
  readonly #temporary: string;
  #file: number | null;

  /** @throws WriteError as writeFileAtomic does, here and later. */
  constructor(path: string) {
    this.#path = path;
    this.#temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
    try {
      checkPlainFile(path);
      this.#file = openSync(this.#temporary, 'w');
    } catch (error) {
      throw explainWriting(error, path);
    }
  }

  write(bytes: Uint8Array): void {
    try {
      writeWhole(this.#file!, bytes);
    } catch (error) {
      throw explainWriting(error, this.#path);
    }
  }

  finish(): void {
    try {
      fsyncSync(this.#file!);
      this.#close();
      renameSync(this.#temporary, this.#path);
      syncFolder(dirname(this.#path));
    } catch (error) {
      throw explainWriting(error, this.#path);
    }
  }

  /** Leaves what was there before; to be called where a file that was begun is not finished. */
  discard(): void {
    this.#close();
    rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }
}

/**
 * Makes a folder and those above it that are not there.
 *
 * @throws WriteError
 */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'EEXIST' || code === 'ENOTDIR' ? notFolder(path) : explainWriting(error, path);
  }
}

/**
 * Says before long work begins what would keep files from being written into a folder, which need not be there yet.
 *
 * @throws WriteError
 */
export function checkFolderWritable(path: string): void {
  let nearest = path;
  while (!existsSync(nearest)) nearest = dirname(nearest);
  if (!statSync(nearest).isDirectory()) throw notFolder(path);
  try {
    accessSync(nearest, constants.W_OK);
  } catch {
    throw noPermission(path, nearest);
  }
}

/**
 * Says before long work begins what would keep its result from being written.
 *
 * @throws WriteError as writeFileAtomic does, save for a full disk.
 */
export function checkWritable(path: string): void {
  try {
    checkPlainFile(path);
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    throw explainWriting(error, path);
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

function notPlainFile(path: string): WriteError {
  return new WriteError(
    `cannot write ${path}: it is there already and is not a plain file but a folder, a link or a device; ` +
      'give the path of a file',
  );
}

function notFolder(path: string): WriteError {
  return new WriteError(`${path} cannot be a folder: it, or a part of it, is a file; choose another path`);
}

function noPermission(path: string, folder: string): WriteError {
  return new WriteError(
    `cannot write ${path}: no permission to write in ${folder}; ` +
      'choose a folder of your own, or change its permissions',
  );
}

/** What a failed call to the system means for the user who wanted `path` written; any other error as it is. */
export function explainWriting(error: unknown, path: string): unknown {
  const folder = dirname(path);
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return new WriteError(
        `cannot write ${path}: the folder ${folder} does not exist; ` +
          `create it (mkdir -p ${folder}) or choose another path`,
      );
    case 'ENOTDIR':
      return new WriteError(`cannot write ${path}: a part of ${folder} is a file, not a folder; choose another path`);
    case 'EISDIR':
      return notPlainFile(path);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return noPermission(path, folder);
    case 'ENOSPC':
    case 'EDQUOT':
      return new WriteError(
        `cannot write ${path}: the disk is full (or the quota is used up); ` +
          'free some space, or choose a folder on another disk',
        { cause: error },
      );
    case 'EFBIG':
      return new WriteError(
        `cannot write ${path}: a file may not be so large there, by its file system or by the shell's limit ` +
          '(ulimit -f); choose a folder on another disk, or raise the limit',
        { cause: error },
      );
    default:
      return error;
  }
}
