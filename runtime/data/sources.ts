// Files of text as they stand when a run reads them: standard input is put into a file, for it is read more than once, and
// what changes meanwhile is noticed.
import { rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../../compiler/diagnostic.ts';
import { explainWriting } from '../atomic-file.ts';
import { dataFolder, temporaryName } from './data-cache.ts';
import { readBytes } from './documents/bytes.ts';
import { explainReading } from './text.ts';

/** A file that standard input was put into. */
export interface PutAside {
  readonly path: string;
  remove(): void;
}

/** @throws WriteError where the disk is full, or the cache cannot be written. */
export async function putStandardInputAside(): Promise<PutAside> {
  const path = temporaryName(join(dataFolder(), 'standard-input'));
  const remove = () => {
    rmSync(path, { force: true });
    process.off('exit', remove);
  };
  process.once('exit', remove);
  try {
    const file = await open(path, 'w');
    try {
      for await (const bytes of readBytes('-')) await file.write(bytes);
    } finally {
      await file.close();
    }
  } catch (error) {
    remove();
    throw explainWriting(error, path);
  }
  return { path, remove };
}

/** What tells, without reading it, that a file is another than before. */
export type Stamp = readonly [path: string, size: string, modified: string, changed: string, inode: string];

/** A file that was modified less than so long ago may change once more without another time of modification. */
const SETTLED_MILLISECONDS = 2000;

/** @throws UserError where a file is not there. */
export function stampsOf(files: readonly string[]): Stamp[] {
  return files.map(path => {
    try {
      const { size, mtimeNs, ctimeNs, ino } = statSync(path, { bigint: true });
      return [path, String(size), String(mtimeNs), String(ctimeNs), String(ino)];
    } catch (error) {
      throw explainReading(error, path);
    }
  });
}

/** Whether the stamps of files are enough to know them again. */
export function areSettled(stamps: readonly Stamp[]): boolean {
  const latest = Date.now() - SETTLED_MILLISECONDS;
  return stamps.every(([, , modified]) => Number(BigInt(modified) / 1_000_000n) < latest);
}

/** @throws UserError where a file is another than it was. */
export function requireUnchanged(before: readonly Stamp[]): void {
  const now = stampsOf(before.map(([path]) => path));
  const changed = before.find((stamp, index) => stamp.join() !== now[index]!.join());
  if (changed) throw new UserError(`${changed[0]} changed while it was read; run the command again`);
}
