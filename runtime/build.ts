// From a Model to a library that can be opened: compile, then the compiler of the target, unless the cache has it.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Model } from '../compiler/check/model.ts';
import { compile } from '../compiler/index.ts';
import type { ProductType } from '../compiler/targets/cpu/kernel-source.ts';
import type { ScheduleOf } from '../compiler/targets/cpu/schedule.ts';
import { type Compiler, findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import {
  buildEmulated,
  buildEmulator,
  type EmulatorCompiler,
  emulatorSources,
  findEmulatorCompiler,
} from '../compiler/targets/cuda/emulator.ts';
import { buildCudaLibrary, findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { compiledFor, type RunTarget } from '../compiler/targets/names.ts';
import { buildCached, buildCachedBy, type CachedBuild } from './cache.ts';

export interface Build extends CachedBuild {
  /** Wall time of it all. */
  readonly seconds: number;
}

export interface BuildOptions {
  /** Default cpu. */
  readonly target?: RunTarget;
  /** What products multiply. Default f32. */
  readonly dtype?: ProductType;
  /** Finds the schedules of the CPU's products. */
  readonly tune?: ((compiler: Compiler) => Promise<ScheduleOf>) | undefined;
  /** Makes a program that takes the time of each launch. */
  readonly profile?: boolean;
}

/**
 * Builds a model's library. The compiler runs as a process of its own, so the caller may show progress meanwhile.
 *
 * @throws MachineError where the target's compiler is not there or the cache cannot be written; UserError where the
 * target cannot compile the model, or has not what is asked for.
 */
export async function buildModel(model: Model, options: BuildOptions = {}): Promise<Build> {
  const started = performance.now();
  const { target = 'cpu', dtype = 'f32', tune, profile = false } = options;
  const tuned = tune && { scheduleOf: await tune(await findCompiler()) };
  const { files } = compile(model, { target: compiledFor(target), dtype, profile, ...tuned });
  const build = await buildFiles(target, files);
  return { ...build, seconds: (performance.now() - started) / 1000 };
}

/** The library of a program's files. @throws MachineError as buildModel does. */
export function buildFiles(target: RunTarget, files: Readonly<Record<string, string>>): Promise<CachedBuild> {
  return builders[target](files);
}

const builders: Readonly<Record<RunTarget, (files: Readonly<Record<string, string>>) => Promise<CachedBuild>>> = {
  cpu: async files => buildCached(files, await findCompiler()),
  cuda: buildCuda,
  'cuda-simt': buildForEmulator,
};

async function buildCuda(files: Readonly<Record<string, string>>): Promise<CachedBuild> {
  const compiler = await findCudaCompiler();
  const build = (folder: string, output: string) => buildCudaLibrary(folder, compiler, output);
  return buildCachedBy(files, { ...compiler, build });
}

/** Without the check of every access to memory, which is for tests. */
async function buildForEmulator(files: Readonly<Record<string, string>>): Promise<CachedBuild> {
  const compiler = await findEmulatorCompiler();
  const own = emulatorSources();
  const hash = createHash('sha256').update(JSON.stringify(own)).digest('hex');
  return buildCachedBy(files, {
    ...compiler,
    version: `${compiler.version}, emulator ${hash}`,
    build: async (folder, output) =>
      buildEmulated(compiler, {
        sources: Object.keys(files).flatMap(name => (name.endsWith('.cu') ? join(folder, name) : [])),
        include: [folder],
        emulator: await emulatorObject(compiler, own),
        output,
        library: true,
        checked: false,
      }),
  });
}

/** The emulator itself, compiled. */
async function emulatorObject(compiler: EmulatorCompiler, own: Readonly<Record<string, string>>): Promise<string> {
  const build = (_folder: string, output: string) => buildEmulator(compiler, output);
  return (await buildCachedBy(own, { ...compiler, product: 'emulator.o', build })).libraryPath;
}
