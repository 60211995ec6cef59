// CUDA programs of the tests on a real GPU: with MALC_TESTS_ON_DEVICE=sm_90a (an architecture of nvcc's) what they would
// compile for the emulator is compiled by nvcc, from the same sources. `npm run gpu` runs them so.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { packagePath } from '../../compiler/package-files.ts';
import { architectureFlags } from '../../compiler/targets/cuda/architectures.ts';
import { inParallel } from '../../compiler/targets/cuda/in-parallel.ts';
import type { TestedProgram } from '../simt/build.ts';

const run = promisify(execFile);

/** The architecture of the GPU that tests run on; null where they run in the emulator. */
export const deviceArchitecture: string | null = process.env.MALC_TESTS_ON_DEVICE?.trim() || null;

/**
 * Compiles and links a CUDA program for the GPU.
 *
 * @throws Error with the compiler's output where it refuses the source.
 */
export async function buildForDevice(program: TestedProgram, architecture: string): Promise<void> {
  const folders = [packagePath('test/simt'), packagePath('templates/cuda'), ...(program.include ?? [])];
  const flags = [
    '-O3',
    '-std=c++20',
    ...architectureFlags([architecture]),
    '-Xcompiler',
    '-fPIC',
    ...folders.map(path => `-I${path}`),
  ];
  const objects = await inParallel(program.sources, async source => {
    const object = `${program.output}.${program.sources.indexOf(source)}.o`;
    await nvcc([...flags, '-x', 'cu', '-c', source, '-o', object]);
    return object;
  });
  await nvcc([...(program.library ? ['-shared'] : []), ...objects, '-o', program.output]);
}

async function nvcc(words: readonly string[]): Promise<void> {
  await run(process.env.NVCC?.trim() || 'nvcc', words, { maxBuffer: 2 ** 26 });
}
