// The cache of what is made of data: by content, whole or absent, and gone when nobody has used it for a month.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { explainWriting, makeFolder, WriteError, writeFileAtomic } from '../atomic-file.ts';
import { cacheFolder } from '../cache.ts';
import { startOf, thisHost } from '../processes.ts';

/** Days after which what was not used is removed. */
const DAYS_KEPT = 30;

/** Part of every key: another number where the same data would become something else. */
const VERSION = 1;

/** Where it lies; made where it is not there. */
export function dataFolder(): string {
  const folder = join(cacheFolder(), 'data');
  makeFolder(folder);
  return folder;
}

/** A key for what follows from `parts` alone. */
export function cacheKey(parts: readonly unknown[]): string {
  const text = JSON.stringify([VERSION, ...parts]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

/**
 * The folder that stands for `key`, made unless it is there. Of processes that make the same at once one wins; what a
 * killed one left is removed when something else is made.
 *
 * @param make fills a new folder
 * @throws WriteError where the disk is full, or the cache cannot be written.
 */
export async function cachedFolder(key: string, make: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(dataFolder(), key);
  if (existsSync(folder)) {
    touch(folder);
    return folder;
  }
  removeStale();
  const temporary = temporaryName(folder);
  // Ctrl-C leaves while it is made.
  const discard = () => rmSync(temporary, { recursive: true, force: true });
  process.once('exit', discard);
  try {
    await mkdir(temporary);
    await make(temporary);
    await rename(temporary, folder).catch(error => {
      if (!existsSync(folder)) throw error;
    });
  } catch (error) {
    throw explained(error, folder);
  } finally {
    await rm(temporary, { recursive: true, force: true });
    process.off('exit', discard);
  }
  return folder;
}

/** What was written for `key`, or null. */
export function cachedValue(key: string): unknown {
  const path = join(dataFolder(), `${key}.json`);
  if (!existsSync(path)) return null;
  touch(path);
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** @throws WriteError as cachedFolder */
export function cacheValue(key: string, value: unknown): void {
  const path = join(dataFolder(), `${key}.json`);
  try {
    writeFileAtomic(path, JSON.stringify(value));
  } catch (error) {
    throw explained(error, path);
  }
}

/** A name in the cache that is this process's own; what has it is removed when the process is gone. */
export function temporaryName(path: string): string {
  return `${path}.${process.pid}@${thisHost()}.tmp`;
}

/** Says that something is used. In a cache that is another's to write, that other sees to what is kept. */
function touch(path: string): void {
  const now = new Date();
  try {
    utimesSync(path, now, now);
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

function removeStale(): void {
  const folder = dataFolder();
  const oldest = Date.now() - DAYS_KEPT * 24 * 60 * 60 * 1000;
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const [, pid, host] = /\.(\d+)@(.*)\.tmp$/.exec(name) ?? [];
    const isLeft = host === thisHost() && startOf(Number(pid)) === null;
    const modified = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? oldest;
    if (isLeft || modified < oldest) rmSync(path, { recursive: true, force: true });
  }
}

/** What could not be written, by the name that it would have had, and how to have it elsewhere. */
function explained(error: unknown, path: string): unknown {
  const told =
    error instanceof WriteError && error.cause ? explainWriting(error.cause, path) : explainWriting(error, path);
  if (!(told instanceof WriteError)) return told;
  return new WriteError(`${told.message}. What is made of data lies in the cache; MALC_CACHE chooses another place.`);
}
