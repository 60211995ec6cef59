// From a Model to a library that can be opened: compile, then the machine's C compiler, unless the cache has it.
import type { Model } from '../compiler/check/model.ts';
import { compile } from '../compiler/index.ts';
import type { ProductType } from '../compiler/targets/cpu/kernel-source.ts';
import type { ScheduleOf } from '../compiler/targets/cpu/schedule.ts';
import { type Compiler, findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { buildCached, type CachedBuild } from './cache.ts';

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
