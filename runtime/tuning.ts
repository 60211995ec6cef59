// What `--autotune` finds on a target, as options of the compiler: schedules of the CPU's products, or ways to compute a GPU's
// launches.
import type { CompileOptions } from '../compiler/index.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { autotune, type TuningRequest } from './autotune.ts';
import { autotuneCuda, type Finding, failuresOf, type TuningPlace } from './autotune-cuda.ts';
import { findBuilder } from './build.ts';
import { architectureOf, type CudaDevice, findCudaDriver } from './cuda-device.ts';

export interface Tuned {
  readonly options: Pick<CompileOptions, 'scheduleOf' | 'choiceOf' | 'anyOrder'>;
  /** Of a GPU's launches: how long each takes in each way. */
  readonly findings: readonly Finding[];
}

/** Nothing is measured: the cost models choose. */
export const untuned: Tuned = { options: {}, findings: [] };

/**
 * Measures what of a model there are several ways for, where it will run. Ways that fail are told of on stderr.
 * @param device the GPU; null for the CPU
 * @throws UserError and MachineError as autotune and autotuneCuda do
 */
export async function tune(request: TuningRequest, device: CudaDevice | null): Promise<Tuned> {
  if (device === null) return { ...untuned, options: { scheduleOf: await autotune(request, await findCompiler()) } };
  const { choiceOf, findings } = await autotuneCuda(request, await tuningPlace(device));
  if (findings.length === 0)
    console.error(`--autotune: there is one way to compute each launch on ${device.name}, and no cuBLASLt beside it`);
  for (const failure of findings.flatMap(failuresOf)) console.error(`--autotune leaves out ${failure}`);
  return { options: { choiceOf, anyOrder: request.anyOrder ?? false }, findings };
}

/** A GPU as what is measured is kept for it. @throws MachineError where there is no nvcc */
export async function tuningPlace(device: CudaDevice): Promise<TuningPlace> {
  const { name, multiprocessors, capability } = device;
  const driver = findCudaDriver();
  return {
    builder: await findBuilder('cuda', { architectures: architectureOf(device) }),
    gpu: `${name}, driver for CUDA ${'version' in driver ? driver.version : 'unknown'}`,
    multiprocessors,
    isHopper: capability.join('.') === '9.0',
  };
}
