// The C compiler of this machine: finds it, knows its flags, and turns a folder with model.c into a shared library.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MachineError } from '../../diagnostic.ts';

export interface Compiler {
  /** As it is called: a name found on the path, or what $CC says. */
  readonly command: string;
  /** Further words of $CC, such as the `gcc` of `ccache gcc`. */
  readonly leadingArguments: readonly string[];
  /** The first line of `--version`. */
  readonly version: string;
  /** Whether a program with OpenMP compiles and links; without it the library runs on one core. */
  readonly openmp: boolean;
  /** Everything between the command and the file names. */
  readonly flags: readonly string[];
}

/**
 * The first of $CC, cc, gcc and clang that compiles a program. $CC, where set, is the only one tried.
 *
 * @throws MachineError that names what was tried and how to install a compiler here.
 */
export async function findCompiler(): Promise<Compiler> {
  const chosen = process.env.CC?.trim();
  const candidates = chosen ? [chosen] : ['cc', 'gcc', 'clang'];
  const tried: string[] = [];
  const folder = await mkdtemp(join(tmpdir(), 'malc-cc-'));
  try {
    await writeFile(join(folder, 'probe.c'), PROBE);
    for (const candidate of candidates) {
      const [command = '', ...leadingArguments] = candidate.split(/\s+/);
      const outcome = await probe(folder, command, leadingArguments);
      if (typeof outcome !== 'string') return outcome;
      tried.push(`  ${candidate}: ${outcome}`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const wrongChoice = chosen
    ? 'Unset CC to let malc look for cc, gcc and clang, or set it to a compiler that works.\n'
    : '';
  throw new MachineError(
    `malc needs a C compiler and found none that works. Tried:\n${tried.join('\n')}\n${wrongChoice}` +
      `To install one: ${installCommand()}`,
  );
}

/**
 * Compiles `folder`/model.c into the shared library `output`. Resolves to the compiler's warnings, '' for none.
 *
 * @throws Error where the compiler refuses the source, which is a fault of malc: the message says where the source is.
 */
export async function buildLibrary(folder: string, compiler: Compiler, output: string): Promise<string> {
  const source = join(folder, 'model.c');
  const result = await invoke(compiler, [...compiler.flags, `-I${folder}`, source, '-o', output, '-lm']);
  if (result.code === 0) return result.output;
  throw new Error(
    `${compiler.command} (${compiler.version}) could not compile the generated program.\n` +
      `${excerpt(result.output)}\nThe source is kept: ${source}`,
  );
}

/** The command that builds an executable of model.c and `source`, in their folder. */
export function programCommand({ command, leadingArguments, flags }: Compiler, source: string): string[] {
  const own = flags.filter(flag => flag !== '-shared' && flag !== '-fPIC');
  return [command, ...leadingArguments, ...own, 'model.c', source, '-o', 'train', '-lm'];
}

const PROBE = `#include <math.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
int probe(void) { return omp_get_max_threads(); }
#else
int probe(void) { return 1; }
#endif
`;

/** Tries one compiler, with OpenMP and without. Returns why it cannot be used, in a phrase. */
async function probe(folder: string, command: string, leadingArguments: readonly string[]): Promise<Compiler | string> {
  const called = { command, leadingArguments };
  const version = await invoke(called, ['--version']);
  if (version.code === null) return 'not found, or it could not be started';
  if (version.code !== 0) return `\`${command} --version\` failed: ${excerpt(version.output, 1)}`;
  const compile = (flags: readonly string[]) =>
    invoke(called, [...flags, join(folder, 'probe.c'), '-o', join(folder, 'probe.so'), '-lm']);
  const complete = { ...called, version: version.output.split('\n')[0]!.trim() };
  const parallel = flagsFor(true);
  if ((await compile(parallel)).code === 0) return { ...complete, openmp: true, flags: parallel };
  const sequential = flagsFor(false);
  const plain = await compile(sequential);
  if (plain.code === 0) return { ...complete, openmp: false, flags: sequential };
  return `cannot compile a small program: ${excerpt(plain.output, 3)}`;
}

/**
 * Floating-point flags permit what kernels rely on to be vectorized (fused multiply-add, no errno, no traps, no signed
 * zeros) and nothing that changes a sum's order: results stay the same from run to run, and NaN stays NaN.
 */
function flagsFor(openmp: boolean): string[] {
  const x86 = process.arch === 'x64';
  return [
    '-O3',
    // On 64-bit Arm, gcc and clang agree only on -mcpu.
    x86 ? '-march=native' : '-mcpu=native',
    '-std=gnu11',
    '-fPIC',
    '-shared',
    // Without OpenMP its pragmas mean nothing, which is no cause for a warning.
    openmp ? '-fopenmp' : '-Wno-unknown-pragmas',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fno-signed-zeros',
    '-ffp-contract=fast',
    ...(x86 ? ['-mprefer-vector-width=512'] : []),
    '-Wall',
  ];
}

/** The command that installs a compiler on this system, by its package manager. */
function installCommand(): string {
  if (process.platform === 'darwin')
    return 'xcode-select --install   (OpenMP besides: brew install gcc, then CC=gcc-14)';
  const managers = [
    ['apt-get', 'sudo apt-get install -y gcc libc6-dev'],
    ['dnf', 'sudo dnf install -y gcc'],
    ['apk', 'sudo apk add gcc musl-dev'],
    ['pacman', 'sudo pacman -S gcc'],
    ['zypper', 'sudo zypper install gcc'],
  ] as const;
  const folders = ['/usr/bin', '/sbin', '/bin', '/usr/sbin'];
  const found = managers.find(([manager]) => folders.some(folder => existsSync(join(folder, manager))));
  return found ? found[1] : 'gcc or clang, by your system’s package manager';
}

interface Invocation {
  /** Null where the command does not exist or did not end by itself. */
  readonly code: number | null;
  readonly output: string;
}

function invoke(
  compiler: Pick<Compiler, 'command' | 'leadingArguments'>,
  words: readonly string[],
): Promise<Invocation> {
  const options = { maxBuffer: 64 * 1024 * 1024, env: { ...process.env, LC_ALL: 'C' } };
  return new Promise(resolve => {
    execFile(compiler.command, [...compiler.leadingArguments, ...words], options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0;
      resolve({ code, output: `${stdout}${stderr}`.trim() });
    });
  });
}

/** The part of a compiler's output that says what is wrong: from the first error on, not the warnings before it. */
function excerpt(output: string, lines = 20): string {
  const all = output.split('\n');
  const first = Math.max(
    0,
    all.findIndex(line => /\berror\b/.test(line)),
  );
  const rest = all.slice(first);
  return rest.length <= lines
    ? rest.join('\n')
    : `${rest.slice(0, lines).join('\n')}\n... (${rest.length - lines} more lines)`;
}
