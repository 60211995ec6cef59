// The emulator of CUDA (test/simt/README.md): g++ in place of nvcc and a GPU. Finds it, knows its flags, and turns CUDA C++,
// unchanged, into libraries and programs that run on the CPU.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MachineError } from '../../diagnostic.ts';
import { packagePath } from '../../package-files.ts';
import { inParallel } from './in-parallel.ts';
import { invoke } from './invoke.ts';

export interface EmulatorCompiler {
  readonly command: string;
  readonly leadingArguments: readonly string[];
  /** GCC's version, such as 12.2.0. */
  readonly version: string;
  /** Of programs, as products are built: everything but folders of headers and the file names. */
  readonly flags: readonly string[];
}

const language = ['-std=c++20', '-g1', '-fPIC', '-Wall', '-Wextra'];
const cuda = [
  '-Werror',
  '-O1',
  '-DMALC_SIMT',
  '-DMALC_HOPPER', // kernels for sm_90a are there: MALC_SIMT_CAPABILITY says whether they run
  '-x',
  'c++', // whatever the file is called
  '-Wno-unknown-pragmas', // #pragma unroll
  '-Wno-psabi', // tensor maps as parameters are aligned to 128 bytes
  '-fno-threadsafe-statics',
  '-fno-gnu-unique', // variables of inline functions are each library's own, not the process's
];
/** Every memory access calls the emulator, which then sees races, and accesses out of bounds or to uninitialised memory. */
const checks = ['-fsanitize=thread,alignment,bounds', '--param', 'tsan-instrument-func-entry-exit=0'];

const folder = () => packagePath('test/simt');

/** The oldest GCC that compiles the emulator. */
const OLDEST_GCC = 12;

/**
 * $CXX, or g++.
 *
 * @throws MachineError where there is none that can build the emulator, or this copy of malc came without it.
 */
export async function findEmulatorCompiler(): Promise<EmulatorCompiler> {
  if (!existsSync(join(folder(), 'emulator.cpp')))
    throw new MachineError(
      `the emulator of CUDA is not in this copy of malc: ${folder()} is missing. Install malc anew.`,
    );
  const command = process.env.CXX?.trim() || 'g++';
  const { code, output } = await invoke(command, ['-dumpfullversion', '-dumpversion']);
  const needed = `the target cuda-simt emulates CUDA with GCC's C++ compiler, ${OLDEST_GCC} or newer, on Linux`;
  const remedy = 'Install it (Debian, Ubuntu: sudo apt-get install -y g++), or set CXX to where it is.';
  if (process.platform !== 'linux') throw new MachineError(`${needed}; this is ${process.platform}`);
  if (code !== 0)
    throw new MachineError(`${needed}; ${command} ${code === null ? 'was not found' : 'is no GCC'}. ${remedy}`);
  if (Number.parseInt(output, 10) < OLDEST_GCC)
    throw new MachineError(`${needed}; ${command} is version ${output}. ${remedy}`);
  return { command, leadingArguments: [], version: output, flags: [...language, ...cuda] };
}

/** Every source of the emulator by name: what an emulated program's behaviour depends on besides its own files. */
export function emulatorSources(): Record<string, string> {
  const names = readdirSync(folder()).filter(name => /(?<!\.cu)\.(cpp|h)$/.test(name));
  return Object.fromEntries(names.sort().map(name => [name, readFileSync(join(folder(), name), 'utf8')]));
}

/**
 * Compiles the emulator itself, once for all programs, into the object file `output`.
 *
 * @throws Error with the compiler's output where it refuses the source.
 */
export async function buildEmulator({ command }: EmulatorCompiler, output: string): Promise<void> {
  await compile(command, [...language, '-O3', '-c', join(folder(), 'emulator.cpp'), '-o', output]);
}

export interface EmulatedProgram {
  /** CUDA C++ files, unchanged. */
  readonly sources: readonly string[];
  /** What buildEmulator wrote. */
  readonly emulator: string;
  /** The executable, or the shared library where `library`. */
  readonly output: string;
  readonly library?: boolean;
  /** Further folders of headers. */
  readonly include?: readonly string[];
  /** Without checks a program runs about twice as fast, and only what the emulated instructions see is checked. */
  readonly checked: boolean;
}

/**
 * Compiles CUDA C++ for the emulator, several files at once, and links it.
 *
 * @throws Error with the compiler's output where it refuses the source or warns of it.
 */
export async function buildEmulated({ command, flags }: EmulatorCompiler, program: EmulatedProgram): Promise<void> {
  const { sources, output } = program;
  const headers = [...(program.include ?? []), folder(), packagePath('templates/cuda')].map(path => `-I${path}`);
  const words = [...flags, ...headers, ...(program.checked ? checks : [])];
  const units = sources.map((source, number) => ({ source, object: `${output}.${number}.o` }));
  await inParallel(units, ({ source, object }) => compile(command, [...words, '-c', source, '-o', object]));
  const objects = units.map(({ object }) => object);
  // The emulator comes first: of functions that both have, such as those of std::string, its own must be taken, which
  // tell nothing of their accesses. GCC's library for -fsanitize=thread is not linked: the emulator stands in for it.
  const kind = program.library ? ['-shared'] : [];
  await compile(command, [...kind, program.emulator, ...objects, '-o', output]);
  await Promise.all(objects.map(object => rm(object)));
}

async function compile(command: string, words: readonly string[]): Promise<void> {
  const { code, output } = await invoke(command, words);
  if (code !== 0) throw new Error(`${command} could not compile for the emulator:\n${output}`);
}
