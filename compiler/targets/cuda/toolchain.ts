// NVIDIA's compiler: finds it, knows its flags, and turns a folder of translation units into a shared library.
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { MachineError } from '../../diagnostic.ts';
import { architectureFlags, parseArchitectures, usualArchitectures } from './architectures.ts';
import { inParallel } from './in-parallel.ts';
import { allIncludedBy } from './included.ts';
import { invoke } from './invoke.ts';

export interface CudaCompiler {
  readonly command: string;
  readonly leadingArguments: readonly string[];
  /** The line of `--version` that says which release it is. */
  readonly version: string;
  /** Everything between the command and the file names of a translation unit. */
  readonly flags: readonly string[];
}

/** A compiled translation unit. */
export interface CompiledUnit {
  readonly object: string;
  /** What the compiler said besides. */
  readonly warnings: string;
}

/**
 * Resolves to a unit that was compiled before from the same contents, or has it compiled now.
 * @param contents everything that the unit depends on
 */
export type UnitCache = (
  contents: readonly string[],
  compile: (object: string) => Promise<string>,
) => Promise<CompiledUnit>;

const unitFlags = ['-c', '-O3', '-std=c++17', '-Xcompiler', '-fPIC,-Wall', '--threads', '2'];

/**
 * The runtime library is a part of the program, and looks for the driver when it is first called: the program loads on a
 * machine without a GPU. Units call their own library's functions, whatever else the process has loaded.
 */
const linkFlags = ['-shared', '-cudart', 'static', '--no-device-link', '-Xlinker', '-Bsymbolic-functions,-z,defs'];

/**
 * $NVCC, or nvcc.
 * @param architectures what it is to compile for, as in `sm_80,sm_90a`; both of these where nothing is said
 * @throws MachineError where there is none; UserError for an architecture that it does not know or that is too old.
 */
export async function findCudaCompiler(architectures?: string): Promise<CudaCompiler> {
  const command = process.env.NVCC?.trim() || 'nvcc';
  const { code, output } = await invoke(command, ['--version']);
  if (code !== 0)
    throw new MachineError(
      `the target cuda needs NVIDIA's compiler, and ${command} ${code === null ? 'was not found' : 'does not work'}. ` +
        'Install the CUDA toolkit, 12 or newer, and put nvcc on the PATH, or set NVCC to where it is.',
    );
  const version = output.split('\n').find(line => /release/.test(line)) ?? output.split('\n')[0]!;
  let wanted = usualArchitectures;
  if (architectures !== undefined) {
    const known = (await invoke(command, ['--list-gpu-code'])).output.match(/sm_\w+/g) ?? [];
    wanted = parseArchitectures(architectures, known);
  }
  const flags = [...unitFlags, ...architectureFlags(wanted)];
  return { command, leadingArguments: [], version: version.trim(), flags };
}

/**
 * Compiles the translation units of `folder`, as many at once as there are cores, and links them into the shared library
 * `output`. Resolves to the compiler's warnings, '' for none.
 * @param cache has units that were compiled before; without it each is compiled, into the folder
 * @throws Error where the compiler refuses the source, which is a fault of malc: the message says where the source is.
 */
export async function buildCudaLibrary(
  folder: string,
  compiler: CudaCompiler,
  output: string,
  cache?: UnitCache,
): Promise<string> {
  const read = (name: string) => readFileSync(join(folder, name), 'utf8');
  // The largest first: it would keep one core busy while the others have nothing left to do.
  const units = readdirSync(folder)
    .filter(name => name.endsWith('.cu'))
    .map(name => ({ name, text: read(name) }))
    .sort((a, b) => b.text.length - a.text.length);
  const compiled = await inParallel(units, async ({ name, text }): Promise<CompiledUnit> => {
    const compile = (object: string) => run(compiler, [...compiler.flags, join(folder, name), '-o', object], folder);
    const object = join(folder, `${basename(name, '.cu')}.o`);
    if (!cache) return { object, warnings: await compile(object) };
    const headers = [...allIncludedBy(text, read)].sort(([a], [b]) => (a < b ? -1 : 1)).flat();
    return cache([text, ...headers, compiler.command, compiler.version, ...compiler.flags], compile);
  });
  const objects = compiled.map(({ object }) => object);
  const linked = await run(compiler, [...linkFlags, ...objects, '-o', output], folder);
  return [...compiled.map(({ warnings }) => warnings), linked].filter(text => text !== '').join('\n');
}

/** Runs the compiler. Resolves to what it says. */
async function run(compiler: CudaCompiler, words: readonly string[], folder: string): Promise<string> {
  const result = await invoke(compiler.command, words);
  if (result.code === 0) return result.output;
  const errors = result.output.split('\n').filter(line => /error|fatal|undefined/.test(line));
  throw new Error(
    `${compiler.command} (${compiler.version}) could not compile the generated program.\n` +
      `${errors.slice(0, 20).join('\n')}\nThe source is kept: ${folder}`,
  );
}

/** The command that builds an executable of all translation units in a folder. */
export function programCommand({ command, leadingArguments, flags }: CudaCompiler): string[] {
  const ofLibrary = ['-shared', '-c', '-Xcompiler', '-fPIC,-Wall'];
  return [command, ...leadingArguments, ...flags.filter(flag => !ofLibrary.includes(flag)), '*.cu', '-o', 'train'];
}
