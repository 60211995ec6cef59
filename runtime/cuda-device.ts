// NVIDIA's GPUs, as their driver tells of them: found by its library alone, without a context and without CUDA's toolkit, so
// that a machine that has none says so in a millisecond.
import { loadLibrary, type NativeFunction, type Pointer } from './ffi.ts';

export interface CudaDevice {
  readonly name: string;
  /** Bytes in all. */
  readonly memory: number;
  /** Compute capability, such as [9, 0]: what machine code it runs. */
  readonly capability: readonly [major: number, minor: number];
  readonly multiprocessors: number;
}

export interface CudaDriver {
  /** The newest CUDA that it runs, such as 13.0. */
  readonly version: string;
  /** Those that programs may use, in the runtime's order: a program takes the first. */
  readonly devices: readonly CudaDevice[];
}

/** The driver, or why it cannot be used: in a phrase, and what to do about it. */
export type CudaFinding = CudaDriver | { readonly problem: string; readonly remedy: string };

/** What the programs need: cp.async and bfloat16 in the tensor cores, since Ampere. */
const OLDEST_CAPABILITY = 8;

/** Of cuda.h, from which the numbers below are too. */
const PROTOTYPES = {
  cuInit: 'int cuInit(unsigned int flags)',
  cuDriverGetVersion: 'int cuDriverGetVersion(_Out_ int *version)',
  cuDeviceGetCount: 'int cuDeviceGetCount(_Out_ int *count)',
  cuDeviceGet: 'int cuDeviceGet(_Out_ int *device, int ordinal)',
  cuDeviceGetName: 'int cuDeviceGetName(uint8_t *name, int length, int device)',
  cuDeviceTotalMem_v2: 'int cuDeviceTotalMem_v2(_Out_ size_t *bytes, int device)',
  cuDeviceGetAttribute: 'int cuDeviceGetAttribute(_Out_ int *value, int attribute, int device)',
};
/** Functions of a context, which asking for free memory needs. */
const CONTEXT_PROTOTYPES = {
  cuDevicePrimaryCtxRetain: 'int cuDevicePrimaryCtxRetain(_Out_ void **context, int device)',
  cuDevicePrimaryCtxRelease_v2: 'int cuDevicePrimaryCtxRelease_v2(int device)',
  cuCtxPushCurrent_v2: 'int cuCtxPushCurrent_v2(void *context)',
  cuCtxPopCurrent_v2: 'int cuCtxPopCurrent_v2(_Out_ void **context)',
  cuMemGetInfo_v2: 'int cuMemGetInfo_v2(_Out_ size_t *free, _Out_ size_t *total)',
  cuDeviceGet: 'int cuDeviceGet(_Out_ int *device, int ordinal)',
};
const NO_DEVICE = 100; // CUDA_ERROR_NO_DEVICE
const MULTIPROCESSORS = 16; // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
const CAPABILITY_MAJOR = 75; // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
const CAPABILITY_MINOR = 76;

const install = 'with an NVIDIA GPU in the machine, install its driver: https://www.nvidia.com/drivers';

/** Asks the driver once; a process sees the same devices all its life. */
export function findCudaDriver(): CudaFinding {
  finding ??= askDriver();
  return finding;
}

let finding: CudaFinding | null = null;

/** The device that a program would run on; null where there is none that it could. */
export function findCudaDevice(found: CudaFinding = findCudaDriver()): CudaDevice | null {
  const [device] = 'devices' in found ? found.devices : [];
  return device && device.capability[0] >= OLDEST_CAPABILITY ? device : null;
}

/** What nvcc compiles for, to run on a device: of Hopper and what is newer also what is this generation's own. */
export function architectureOf({ capability: [major, minor] }: Pick<CudaDevice, 'capability'>): string {
  return `sm_${major}${minor}${major >= 9 ? 'a' : ''}`;
}

/** Why there is no device that a program could run on, and what to do about it. */
export function whyNoDevice(found: CudaFinding = findCudaDriver()): { problem: string; remedy: string } {
  if ('problem' in found) return found;
  const { name, capability } = found.devices[0]!;
  return {
    problem: `${name} is of compute capability ${capability.join('.')}, and malc's programs need 8.0`,
    remedy: 'a GPU of the generation of Ampere (2020) or newer is needed; CUDA_VISIBLE_DEVICES chooses among several',
  };
}

/**
 * Bytes that are free on the device that a program would run on, as its driver says once it holds what every program holds
 * there besides: its context.
 */
export function freeDeviceMemory(): number {
  const driver = loadLibrary('libcuda.so.1', CONTEXT_PROTOTYPES);
  const must = (call: string, code: number): void => {
    if (code !== 0) throw new Error(`${call} of NVIDIA's driver gives ${code}`);
  };
  const [device, context, other]: [[number], [Pointer | null], [Pointer | null]] = [[0], [null], [null]];
  must('cuDeviceGet', driver.cuDeviceGet(device, 0));
  must('cuDevicePrimaryCtxRetain', driver.cuDevicePrimaryCtxRetain(context, device[0]));
  try {
    must('cuCtxPushCurrent', driver.cuCtxPushCurrent_v2(context[0]));
    const [free, total]: [[number | bigint], [number | bigint]] = [[0], [0]];
    const code = driver.cuMemGetInfo_v2(free, total);
    driver.cuCtxPopCurrent_v2(other);
    must('cuMemGetInfo', code);
    return Number(free[0]);
  } finally {
    driver.cuDevicePrimaryCtxRelease_v2(device[0]);
  }
}

function askDriver(): CudaFinding {
  let driver: Record<keyof typeof PROTOTYPES, NativeFunction>;
  try {
    driver = loadLibrary('libcuda.so.1', PROTOTYPES);
  } catch {
    return { problem: "there is no driver of NVIDIA's (libcuda.so.1)", remedy: install };
  }
  const code = driver.cuInit(0);
  if (code === NO_DEVICE) return { problem: "NVIDIA's driver sees no GPU", remedy: invisible };
  if (code !== 0) return { problem: `NVIDIA's driver does not start: cuInit gives ${code}`, remedy: broken };
  const ask = (name: keyof typeof PROTOTYPES, ...further: number[]): number => {
    const value: [number | bigint] = [0];
    const failed = driver[name](value, ...further);
    if (failed !== 0) throw new Error(`${name} of NVIDIA's driver gives ${failed}`);
    return Number(value[0]);
  };
  const version = ask('cuDriverGetVersion');
  const count = ask('cuDeviceGetCount');
  if (count === 0) return { problem: "NVIDIA's driver sees no GPU", remedy: invisible };
  const devices = Array.from({ length: count }, (_, ordinal): CudaDevice => {
    const device = ask('cuDeviceGet', ordinal);
    const attribute = (which: number) => ask('cuDeviceGetAttribute', which, device);
    const name = new Uint8Array(256);
    driver.cuDeviceGetName(name, name.length, device);
    return {
      name: Buffer.from(name.subarray(0, name.indexOf(0))).toString(),
      memory: ask('cuDeviceTotalMem_v2', device),
      capability: [attribute(CAPABILITY_MAJOR), attribute(CAPABILITY_MINOR)],
      multiprocessors: attribute(MULTIPROCESSORS),
    };
  });
  return { version: `${Math.floor(version / 1000)}.${(version % 1000) / 10}`, devices };
}

const invisible = 'CUDA_VISIBLE_DEVICES may hide it, or the container was started without it (docker run --gpus all)';
const broken = 'nvidia-smi says more; after an update of the driver the machine must be restarted';
