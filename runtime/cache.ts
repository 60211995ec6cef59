// The cache of built libraries, by content: one folder for each source, compiler, flags and processor, written by rename.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { cpus, homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { MachineError } from '../compiler/diagnostic.ts';
import { buildLibrary, type Compiler } from '../compiler/targets/cpu/toolchain.ts';
import type { UnitCache } from '../compiler/targets/cuda/toolchain.ts';

export interface CachedBuild {
  /** The shared library. */
  readonly libraryPath: string;
  /** The folder that holds the library and its sources. */
  readonly sourceFolder: string;
  /** True where nothing had to be compiled. */
  readonly cached: boolean;
  /** What the compiler said of it besides, when it was built; '' for nothing. */
  readonly warnings: string;
}

const LIBRARY = 'model.so';
/** Bytes that no build of a library can do without. */
const LEAST_SPACE = 2 ** 20;

/** Where built libraries lie: $MALC_CACHE, or `malc` in $XDG_CACHE_HOME or ~/.cache. */
export function cacheFolder(): string {
  return process.env.MALC_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'malc');
}

/** A compiler: what its output depends on, and how a folder of sources becomes a library. */
export interface Builder extends Pick<Compiler, 'command' | 'leadingArguments' | 'version' | 'flags'> {
  build(folder: string, output: string): Promise<string>;
}

/** The library of model.c and its headers. */
export const buildCached = (files: Readonly<Record<string, string>>, compiler: Compiler): Promise<CachedBuild> =>
  buildCachedBy(files, { ...compiler, build: (folder, output) => buildLibrary(folder, compiler, output) });

/**
 * The library of `files` (a source and its headers by name), built unless it is there. Processes that build the same files
 * at once each build and one wins; none sees half a library.
 *
 * @throws MachineError where the cache folder cannot be written, or its disk is full.
 */
export async function buildCachedBy(files: Readonly<Record<string, string>>, compiler: Builder): Promise<CachedBuild> {
  const folder = join(cacheFolder(), contentKey(files, compiler));
  const result = { libraryPath: join(folder, LIBRARY), sourceFolder: folder };
  if (existsSync(result.libraryPath)) return { ...result, cached: true, warnings: '' };
  const temporary = `${folder}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  // Ctrl-C leaves while the compiler works.
  const discard = () => rmSync(temporary, { recursive: true, force: true });
  process.once('exit', discard);
  let warnings: string;
  try {
    await writing(temporary, async () => {
      await mkdir(temporary, { recursive: true });
      for (const [name, text] of Object.entries(files)) await writeFile(join(temporary, name), text);
    });
    warnings = await buildOrTellFull(temporary, compiler);
    await writing(temporary, async () => {
      // A process that was quicker has put the same library there.
      await rename(temporary, folder).catch(error => {
        if (!existsSync(result.libraryPath)) throw error;
        discard();
      });
    });
  } finally {
    process.off('exit', discard);
  }
  return { ...result, cached: false, warnings };
}

/**
 * An object file of the cache, by what it was compiled from: it is compiled unless it is there, and like a library seen
 * by other processes when it is whole.
 */
export const cachedUnit: UnitCache = async (contents, compile) => {
  const folder = join(cacheFolder(), 'units');
  const object = join(folder, `${createHash('sha256').update(JSON.stringify(contents)).digest('hex').slice(0, 32)}.o`);
  if (existsSync(object)) return { object, warnings: '' };
  const temporary = `${object}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  await writing(temporary, async () => {
    await mkdir(folder, { recursive: true });
  });
  try {
    const warnings = await compile(temporary);
    await writing(temporary, () => rename(temporary, object));
    return { object, warnings };
  } finally {
    await rm(temporary, { force: true });
  }
};

/** A build that fails keeps its folder, for the message points into it; save where a full disk is all there is to say. */
async function buildOrTellFull(folder: string, compiler: Builder): Promise<string> {
  try {
    return await compiler.build(folder, join(folder, LIBRARY));
  } catch (error) {
    const full = [cacheFolder(), tmpdir()].find(isFull);
    if (full === undefined) throw error;
    await rm(folder, { recursive: true, force: true });
    throw new MachineError(
      `the disk that holds ${full} is full: the C compiler could not write there. Free some space, or set ` +
        `${full === tmpdir() ? 'TMPDIR' : 'MALC_CACHE'} to a folder on another disk.`,
    );
  }
}

function isFull(folder: string): boolean {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize < LEAST_SPACE;
}

/** Everything that decides what the library's code is; -march=native makes the processor a part of it. */
function contentKey(files: Readonly<Record<string, string>>, compiler: Builder): string {
  const hash = createHash('sha256');
  const parts = Object.keys(files)
    .sort()
    .flatMap(name => [name, files[name]!]);
  const command = [compiler.command, ...compiler.leadingArguments];
  hash.update(JSON.stringify([parts, command, compiler.version, compiler.flags, processor()]));
  return hash.digest('hex').slice(0, 32);
}

/** The processor's name and instruction sets. A virtual machine may hide some of the latter behind the same name. */
function processor(): string {
  const name = `${process.arch} ${cpus()[0]?.model ?? ''}`;
  if (process.platform !== 'linux') return name;
  const features = /^(?:flags|Features)\s*:.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
  return `${name} ${features?.[0] ?? ''}`;
}

async function writing(temporary: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw new MachineError(
      `the cache of built programs, ${cacheFolder()}, cannot be written: ${(error as Error).message}. ` +
        'Set MALC_CACHE to a folder that can.',
    );
  }
}
