// What `--autotune` finds on a target, as options of the compiler: schedules of the CPU's products, or ways to compute a GPU's.
import type { CompileOptions } from '../compiler/index.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { autotune, type TuningRequest } from './autotune.ts';
import { autotuneCuda, type Finding, type TuningPlace } from './autotune-cuda.ts';
import { findBuilder } from './build.ts';
import { architectureOf, type CudaDevice, findCudaDriver } from './cuda-device.ts';

export interface Tuned {
  readonly options: Pick<CompileOptions, 'scheduleOf' | 'choiceOf'>;
  /** Of a GPU's products: how long each takes in each way. */
  readonly findings: readonly Finding[];
}

/** Nothing is measured: the cost models choose. */
export const untuned: Tuned = { options: {}, findings: [] };

/**
 * Measures a model's products where it will run.
 * @param device the GPU; null for the CPU
 * @throws MachineError as autotune and autotuneCuda do
 */
export async function tune(request: TuningRequest, device: CudaDevice | null): Promise<Tuned> {
  if (device === null) return { ...untuned, options: { scheduleOf: await autotune(request, await findCompiler()) } };
  const { choiceOf, findings } = await autotuneCuda(request, await tuningPlace(device));
  if (findings.length === 0)
    console.error(`--autotune: there is one way to compute each product on ${device.name}, and no cuBLASLt beside it`);
  return { options: { choiceOf }, findings };
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
