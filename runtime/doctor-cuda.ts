// What `malc doctor` says of CUDA: the driver and its devices, nvcc, the checker of kernels. Nobody needs any of it.
import { execFile } from 'node:child_process';
import { MachineError } from '../compiler/diagnostic.ts';
import { findCudaCompiler } from '../compiler/targets/cuda/toolchain.ts';
import { findCublas } from './cublas.ts';
import { type CudaDevice, findCudaDevice, findCudaDriver, whyNoDevice } from './cuda-device.ts';
import { describeMemory } from './show/quantities.ts';

export interface Finding {
  readonly name: string;
  /** `missing`: malc cannot work; `limited`: it works, slower or with less; `absent`: something that few have. */
  readonly state: 'ok' | 'absent' | 'limited' | 'missing';
  readonly found: string;
  /** What to do about it; null where nothing is to be done. */
  readonly remedy: string | null;
}

const TOOLKIT = 'https://developer.nvidia.com/cuda-downloads';

/** With a GPU, what is missing to use it is told as such. */
export async function gpu(): Promise<Finding[]> {
  const found = findCudaDriver();
  const device = findCudaDevice(found);
  const tools = [await nvcc(device), cublas(), await sanitizer()];
  if (device === null) {
    const { problem, remedy } = whyNoDevice(found);
    return [{ name: 'GPU', state: 'absent', found: problem, remedy }, ...tools];
  }
  const { version, devices } = found as Extract<typeof found, { devices: unknown }>;
  const driver = { name: 'GPU driver', state: 'ok', found: `runs CUDA up to ${version}`, remedy: null } as const;
  return [driver, ...devices.map((each, n) => described(each, n)), ...tools];
}

function described({ name, memory, capability, multiprocessors }: CudaDevice, number: number): Finding {
  const able = `compute capability ${capability.join('.')}, ${multiprocessors} multiprocessors`;
  return { name: `GPU ${number}`, state: 'ok', found: `${name}, ${describeMemory(memory)}, ${able}`, remedy: null };
}

async function nvcc(device: CudaDevice | null): Promise<Finding> {
  const name = 'nvcc';
  try {
    const { command, version } = await findCudaCompiler();
    return { name, state: 'ok', found: `${command}: ${version}`, remedy: null };
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    const remedy = `--target cuda compiles with it: install the CUDA toolkit, 12 or newer: ${TOOLKIT}`;
    // Without a GPU nobody misses it.
    return { name, state: device ? 'limited' : 'absent', found: 'none', remedy };
  }
}

/** What `--autotune` holds malc's own kernels against, and programs take where it was faster. */
function cublas(): Finding {
  const name = 'cuBLASLt';
  const remedy = `only for --autotune on a GPU, which has it as a candidate; a part of the CUDA toolkit: ${TOOLKIT}`;
  try {
    const version = findCublas();
    const found = process.env.MALC_CUBLAS === '0' ? 'left aside by MALC_CUBLAS=0' : 'none';
    return version ? { name, state: 'ok', found: version, remedy: null } : { name, state: 'absent', found, remedy };
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    return { name, state: 'limited', found: 'none', remedy: error.message };
  }
}

async function sanitizer(): Promise<Finding> {
  const name = 'compute-sanitizer';
  const version = await new Promise<string | null>(resolve =>
    execFile(name, ['--version'], (error, stdout) =>
      resolve(error ? null : (/[Vv]ersion ([\d.]+)/.exec(stdout)?.[1] ?? '')),
    ),
  );
  if (version !== null) return { name, state: 'ok', found: version || 'there', remedy: null };
  const remedy = `only for looking for faults in kernels; a part of the CUDA toolkit: ${TOOLKIT}`;
  return { name, state: 'absent', found: 'none', remedy };
}
