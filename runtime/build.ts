// From a Model to a library that can be opened: compile, then the machine's C compiler, or NVIDIA's, unless the cache has it.
import type { Model } from '../compiler/check/model.ts';
import { compile } from '../compiler/index.ts';
import type { ProductType } from '../compiler/targets/cpu/kernel-source.ts';
import type { ScheduleOf } from '../compiler/targets/cpu/schedule.ts';
import { type Compiler, findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import type { CudaProductType } from '../compiler/targets/cuda/kernel-source.ts';
import { buildCudaLibrary, findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { buildCached, buildCachedBy, type CachedBuild, cachedUnit } from './cache.ts';

export interface Build extends CachedBuild {
  /** Wall time of it all. */
  readonly seconds: number;
}

/**
 * Builds a model's library, with the schedules that `tune` finds where it is given. The C compiler runs as a process of its own, so the caller may show progress meanwhile.
 *
 * @throws MachineError where there is no C compiler or the cache cannot be written.
 */
export async function buildModel(
  model: Model,
  dtype: ProductType = 'f32',
  tune?: (compiler: Compiler) => Promise<ScheduleOf>,
): Promise<Build> {
  const started = performance.now();
  const compiler = await findCompiler();
  const { files } = compile(model, { dtype, ...(tune && { scheduleOf: await tune(compiler) }) });
  const build = await buildCached(files, compiler);
  return { ...build, seconds: (performance.now() - started) / 1000 };
}

/**
 * Builds a model's library for CUDA.
 *
 * @throws MachineError where there is no nvcc or the cache cannot be written; UserError where the target cannot compile
 * the model yet.
 */
export async function buildCudaModel(model: Model, dtype: CudaProductType): Promise<CachedBuild> {
  const { files } = compile(model, { target: 'cuda', dtype });
  return buildCuda(files);
}

/**
 * The library of translation units for CUDA and their headers.
 * @param architectures what it is for, as in `sm_80,sm_90a`; both of these where nothing is said
 * @throws UserError for an architecture that nvcc does not know or that is too old.
 */
export async function buildCuda(files: Readonly<Record<string, string>>, architectures?: string): Promise<CachedBuild> {
  const compiler = await findCudaCompiler(architectures);
  const build = (folder: string, output: string) => buildCudaLibrary(folder, compiler, output, cachedUnit);
  return buildCachedBy(files, { ...compiler, build });
}
