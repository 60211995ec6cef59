// From a Model to a library that can be opened: compile, then the compiler of the target, unless the cache has it.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Model } from '../compiler/check/model.ts';
import { type CompileOptions, compile, type PlanSummary } from '../compiler/index.ts';
import { buildLibrary, findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import {
  buildEmulated,
  buildEmulator,
  type EmulatorCompiler,
  emulatorSources,
  findEmulatorCompiler,
} from '../compiler/targets/cuda/emulator.ts';
import { buildCudaLibrary, findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { compiledFor, type RunTarget } from '../compiler/targets/names.ts';
import { type Builder, buildCachedBy, type CachedBuild, cachedUnit } from './cache.ts';
import { architectureOf, findCudaDevice } from './cuda-device.ts';
import { contentHash } from './train/settings.ts';
import type { Tuned } from './tuning.ts';

export interface Build extends CachedBuild {
  readonly plan: PlanSummary;
  /** Wall time of it all. */
  readonly seconds: number;
}

/** What of the compiler's options a run has. */
type CompiledOptions = Pick<
  CompileOptions,
  'dtype' | 'recompute' | 'profile' | 'frozen' | 'optimizer' | 'momentum' | 'masksDocuments'
>;

export interface BuildOptions extends CompiledOptions {
  /** Default cpu. */
  readonly target?: RunTarget;
  /** Finds how products are computed best, before anything is compiled. */
  readonly tune?: (() => Promise<Tuned>) | undefined;
}

/**
 * Builds a model's library. The compiler runs as a process of its own, so the caller may show progress meanwhile.
 *
 * @throws MachineError where the target's compiler is not there or the cache cannot be written; UserError where the
 * target cannot compile the model, or has not what is asked for.
 */
export async function buildModel(model: Model, options: BuildOptions = {}): Promise<Build> {
  const started = performance.now();
  const { target = 'cpu', tune, ...compiled } = options;
  const tuned = await tune?.();
  const { files, plan } = compile(model, { target: compiledFor(target), ...compiled, ...tuned?.options });
  // For the device that runs it alone: what else there is would double nvcc's time.
  const device = target === 'cuda' ? findCudaDevice() : null;
  const build = await buildFiles(target, files, { architectures: device ? architectureOf(device) : undefined });
  return { ...build, plan, seconds: (performance.now() - started) / 1000 };
}

export interface CompilerOptions {
  /** Of cuda: the architectures that it is to compile for, as in `sm_80,sm_90a`; both of these where nothing is said. */
  readonly architectures?: string | undefined;
  /** Whether each translation unit is compiled anew, though the cache may have it: where the time is what is asked for. */
  readonly anew?: boolean;
}

/**
 * The library of a program's files.
 *
 * @throws MachineError as buildModel does; UserError for an architecture that nvcc does not know or that is too old.
 */
export async function buildFiles(
  target: RunTarget,
  files: Readonly<Record<string, string>>,
  options: CompilerOptions = {},
): Promise<CachedBuild> {
  return buildCachedBy(files, await findBuilder(target, options));
}

/** The compiler of a target. @throws as buildFiles does. */
export function findBuilder(target: RunTarget, options: CompilerOptions = {}): Promise<Builder> {
  return builders[target](options);
}

const builders: Readonly<Record<RunTarget, (options: CompilerOptions) => Promise<Builder>>> = {
  async cpu() {
    const compiler = await findCompiler();
    return { ...compiler, build: (folder, output) => buildLibrary(folder, compiler, output) };
  },
  async cuda({ architectures, anew }) {
    const compiler = await findCudaCompiler(architectures);
    const cache = anew ? undefined : cachedUnit;
    return { ...compiler, build: (folder, output) => buildCudaLibrary(folder, compiler, output, cache) };
  },
  // Without the check of every access to memory, which is for tests.
  async 'cuda-simt'() {
    const compiler = await findEmulatorCompiler();
    const build = async (folder: string, output: string) => {
      const units = readdirSync(folder).filter(name => name.endsWith('.cu'));
      const sources = units.map(name => join(folder, name));
      const emulator = await cachedEmulator(compiler);
      const checked = false;
      await buildEmulated(compiler, { sources, include: [folder], emulator, output, library: true, checked });
      return '';
    };
    return { ...compiler, version: `g++ ${compiler.version}, emulator ${contentHash([identityOf(compiler)])}`, build };
  },
};

/** What the emulator's object file depends on. */
const identityOf = (compiler: EmulatorCompiler): string => JSON.stringify([emulatorSources(), compiler]);

/** The emulator's object file, from the cache: it is compiled once for all programs. */
export async function cachedEmulator(compiler: EmulatorCompiler): Promise<string> {
  const { object } = await cachedUnit([identityOf(compiler)], async output => {
    await buildEmulator(compiler, output);
    return '';
  });
  return object;
}
