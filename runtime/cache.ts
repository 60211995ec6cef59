// The cache of built libraries, by content: one folder for each source, compiler, flags and processor, written by rename.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { cpus, homedir } from 'node:os';
import { join } from 'node:path';
import { MachineError } from '../compiler/diagnostic.ts';
import { buildLibrary, type Compiler } from '../compiler/targets/cpu/toolchain.ts';

export interface CachedBuild {
  /** The shared library. */
  readonly libraryPath: string;
  /** The folder that holds the library and its sources. */
  readonly sourceFolder: string;
  /** True where nothing had to be compiled. */
  readonly cached: boolean;
}

const LIBRARY = 'model.so';

/** Where built libraries lie: $MALC_CACHE, or `malc` in $XDG_CACHE_HOME or ~/.cache. */
export function cacheFolder(): string {
  return process.env.MALC_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'malc');
}

/**
 * The library of `files` (model.c and its headers by name), built unless it is there. Processes that build the same files
 * at once each build and one wins; none sees half a library.
 *
 * @throws MachineError where the cache folder cannot be written.
 */
export async function buildCached(files: Readonly<Record<string, string>>, compiler: Compiler): Promise<CachedBuild> {
  const folder = join(cacheFolder(), contentKey(files, compiler));
  const result = { libraryPath: join(folder, LIBRARY), sourceFolder: folder };
  if (existsSync(result.libraryPath)) return { ...result, cached: true };
  const temporary = `${folder}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  await writing(async () => {
    await mkdir(temporary, { recursive: true });
    for (const [name, text] of Object.entries(files)) await writeFile(join(temporary, name), text);
  });
  // A failed build keeps its folder: the message points into it.
  await buildLibrary(temporary, compiler, join(temporary, LIBRARY));
  await writing(async () => {
    try {
      await rename(temporary, folder);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      if (!existsSync(result.libraryPath)) throw error;
    }
  });
  return { ...result, cached: false };
}

/** Everything that decides what the library's code is; -march=native makes the processor a part of it. */
function contentKey(files: Readonly<Record<string, string>>, compiler: Compiler): string {
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

async function writing(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new MachineError(
      `the cache of built programs, ${cacheFolder()}, cannot be written: ${(error as Error).message}. ` +
        'Set MALC_CACHE to a folder that can.',
    );
  }
}
