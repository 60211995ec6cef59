// NVIDIA's compiler: finds it, knows its flags, and turns a folder with model.cu into a shared library.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { MachineError } from '../../diagnostic.ts';

export interface CudaCompiler {
  readonly command: string;
  readonly leadingArguments: readonly string[];
  /** The line of `--version` that says which release it is. */
  readonly version: string;
  /** Everything between the command and the file names. */
  readonly flags: readonly string[];
}

/**
 * Machine code for Ampere and for Hopper, and code for what is newer. The runtime library is a part of the program, and
 * looks for the driver when it is first called: the program loads on a machine without a GPU.
 */
const flags = [
  '-O3',
  '-std=c++17',
  '-shared',
  '-Xcompiler',
  '-fPIC,-Wall',
  '-cudart',
  'static',
  '-gencode',
  'arch=compute_80,code=[sm_80,compute_80]',
  '-gencode',
  'arch=compute_90a,code=sm_90a',
  '--threads',
  '2',
];

/**
 * $NVCC, or nvcc.
 *
 * @throws MachineError where there is none.
 */
export async function findCudaCompiler(): Promise<CudaCompiler> {
  const command = process.env.NVCC?.trim() || 'nvcc';
  const { code, output } = await invoke(command, ['--version']);
  if (code !== 0)
    throw new MachineError(
      `the target cuda needs NVIDIA's compiler, and ${command} ${code === null ? 'was not found' : 'does not work'}. ` +
        'Install the CUDA toolkit, 12 or newer, and put nvcc on the PATH, or set NVCC to where it is.',
    );
  const version = output.split('\n').find(line => /release/.test(line)) ?? output.split('\n')[0]!;
  return { command, leadingArguments: [], version: version.trim(), flags };
}

/**
 * Compiles `folder`/model.cu into the shared library `output`. Resolves to the compiler's warnings, '' for none.
 *
 * @throws Error where the compiler refuses the source, which is a fault of malc: the message says where the source is.
 */
export async function buildCudaLibrary(folder: string, compiler: CudaCompiler, output: string): Promise<string> {
  const source = join(folder, 'model.cu');
  const result = await invoke(compiler.command, [...compiler.flags, `-I${folder}`, source, '-o', output]);
  if (result.code === 0) return result.output;
  const errors = result.output.split('\n').filter(line => /error|fatal/.test(line));
  throw new Error(
    `${compiler.command} (${compiler.version}) could not compile the generated program.\n` +
      `${errors.slice(0, 20).join('\n')}\nThe source is kept: ${source}`,
  );
}

/** The command that builds an executable of all translation units in a folder. */
export function programCommand({ command, leadingArguments, flags }: CudaCompiler): string[] {
  const ofLibrary = ['-shared', '-c', '-Xcompiler', '-fPIC,-Wall'];
  return [command, ...leadingArguments, ...flags.filter(flag => !ofLibrary.includes(flag)), '*.cu', '-o', 'train'];
}

/** The code is null where the command does not exist or did not end by itself. */
function invoke(command: string, words: readonly string[]): Promise<{ code: number | null; output: string }> {
  const options = { maxBuffer: 64 * 1024 * 1024, env: { ...process.env, LC_ALL: 'C' } };
  return new Promise(resolve => {
    execFile(command, words, options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0;
      resolve({ code, output: `${stdout}${stderr}`.trim() });
    });
  });
}
