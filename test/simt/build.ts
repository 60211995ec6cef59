// Compiles CUDA C++ for the emulator: g++ finds it in place of nvcc and a GPU (README.md).
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packagePath } from '../../compiler/package-files.ts';
import { inParallel } from '../../compiler/targets/cuda/in-parallel.ts';

const run = promisify(execFile);
const compiler = process.env.CXX?.trim() || 'g++';

const language = ['-std=c++20', '-g1', '-fPIC', '-Wall', '-Wextra'];
const cuda = [
  '-DMALC_SIMT',
  `-I${packagePath('test/simt')}`,
  `-I${packagePath('templates/cuda')}`,
  '-x',
  'c++', // whatever the file is called
  '-Wno-unknown-pragmas', // #pragma unroll
  '-Wno-psabi', // tensor maps as parameters are aligned to 128 bytes
  '-fno-threadsafe-statics',
  '-fno-gnu-unique', // variables of inline functions are each library's own, not the process's
];
/** Every memory access calls the emulator, which then sees races, and accesses out of bounds or to uninitialised memory. */
const checks = ['-fsanitize=thread,alignment,bounds', '--param', 'tsan-instrument-func-entry-exit=0'];

/** Whether g++ is there and works: what the tests ask first. */
export async function emulatorAvailable(): Promise<boolean> {
  try {
    const { stdout } = await run(compiler, ['-dumpfullversion', '-dumpversion']);
    return process.platform === 'linux' && Number.parseInt(stdout, 10) >= 12;
  } catch {
    return false;
  }
}

/** Compiles the emulator itself, once for all programs: `folder`/emulator.o, whose path it resolves to. */
export async function buildEmulator(folder: string): Promise<string> {
  const output = join(folder, 'emulator.o');
  await run(compiler, [...language, '-O2', '-c', packagePath('test/simt/emulator.cpp'), '-o', output]);
  return output;
}

export interface EmulatedProgram {
  /** CUDA C++ files, unchanged. */
  readonly sources: readonly string[];
  /** What buildEmulator resolved to. */
  readonly emulator: string;
  /** The executable, or the shared library where `library`. */
  readonly output: string;
  readonly library?: boolean;
  /** Further folders of headers. */
  readonly include?: readonly string[];
  /** Without checks a program runs about twice as fast, and only what the emulated instructions see is checked. */
  readonly checked?: boolean;
}

/**
 * Compiles and links a CUDA program for the emulator, with all checks unless told otherwise.
 *
 * @throws Error with the compiler's output where it refuses the source or warns of it.
 */
export async function buildEmulated(program: EmulatedProgram): Promise<void> {
  const include = (program.include ?? []).map(folder => `-I${folder}`);
  const flags = [...language, '-Werror', '-O1', ...cuda, ...include, ...(program.checked === false ? [] : checks)];
  const units = program.sources.map((source, number) => ({ source, object: `${program.output}.${number}.o` }));
  await inParallel(units, ({ source, object }) => run(compiler, [...flags, '-c', source, '-o', object]));
  const objects = units.map(({ object }) => object);
  // The emulator comes first: of functions that both have, such as those of std::string, its own must be taken, which
  // tell nothing of their accesses. GCC's library for -fsanitize=thread is not linked: the emulator stands in for it.
  const kind = program.library ? ['-shared'] : [];
  await run(compiler, [...kind, program.emulator, ...objects, '-o', program.output]);
}
