// Builds kernels-bf16.c, the driver of test/cpu-matmul-bf16.test.ts, once for each way to multiply that the machine has.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packagePath } from '../../compiler/package-files.ts';
import { panelColumns } from '../../compiler/targets/cpu/block-sizes.ts';
import { type Compiler, findCompiler } from '../../compiler/targets/cpu/toolchain.ts';
import { loadLibrary, type NativeFunction } from '../../runtime/ffi.ts';

const prototypes: Readonly<Record<string, string>> = {
  path: 'int path(void)',
  packed_size: 'int64_t packed_size(int64_t inner, int64_t columns)',
  emulated: 'int64_t emulated(void)',
  pack:
    'void pack(uint32_t *words, const void *right, int64_t row_stride, int64_t column_stride, int narrow, ' +
    'int64_t inner, int64_t columns, int threads)',
  pack_left:
    'void pack_left(uint32_t *words, const void *left, int64_t row_stride, int64_t column_stride, int narrow, ' +
    'int64_t rows, int64_t inner)',
  narrow: 'void narrow(uint16_t *to, const float *from, int64_t count)',
  widen: 'void widen(float *to, const uint16_t *from, int64_t count)',
  multiply:
    'int multiply(float *result, const void *left, int64_t left_bytes, int64_t left_rows, int64_t left_columns, ' +
    'int left_narrow, const void *right, int64_t right_bytes, int64_t right_rows, int64_t right_columns, ' +
    'int right_narrow, int64_t rows, int64_t inner, int64_t columns, int64_t task_rows, int64_t task_columns, ' +
    'int threads, int accumulate)',
};

export type Library = Record<string, NativeFunction>;

/** MALC_BF16_PATH of templates/cpu/matmul_bf16.h. */
export const paths = { widened: 0, pairs: 1, tiles: 2 } as const;

const invoke = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'malc-bf16-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Compiles the driver without a warning into `output`. */
async function compile(compiler: Compiler, output: string, flags: readonly string[]): Promise<void> {
  const places = ['-iquote', packagePath('templates/cpu'), '-iquote', import.meta.dirname];
  const constants = [`-DPANEL_COLUMNS=${panelColumns}`];
  const source = join(import.meta.dirname, 'kernels-bf16.c');
  const strict = ['-Wall', '-Wextra', '-Werror'];
  const words = [...compiler.leadingArguments, ...compiler.flags, ...flags, ...strict, ...constants, ...places, source];
  await invoke(compiler.command, [...words, '-o', output, '-lm']);
}

const forced = (path: keyof typeof paths) => `-DMALC_BF16_PATH=${paths[path]}`;
const emulator = '-DMALC_AMX_EMULATOR="amx-emulator.h"';

/** Whether the compiler says that this machine has AVX512-BF16. */
async function hasPairs({ command, leadingArguments, flags }: Compiler): Promise<boolean> {
  const words = [...leadingArguments, ...flags, '-dM', '-E', '-x', 'c', '/dev/null'];
  return /__AVX512BF16__/.test((await invoke(command, words)).stdout);
}

/** Each way that can run here, by name; AMX is emulated, and once refused. */
export async function buildPaths(): Promise<Map<string, Library>> {
  const compiler = await findCompiler();
  if (!compiler.openmp) throw new Error(`${compiler.command} has no OpenMP: these tests need it`);
  const builds: [string, readonly string[]][] = [
    ['native', []],
    ['widened', [forced('widened'), '-O1']],
    ['tiles', [forced('tiles'), emulator, '-O2']],
    ['refused', [forced('tiles'), emulator, '-DAMX_REFUSED', '-O1']],
  ];
  if (process.arch === 'x64') {
    builds.push(['haswell', ['-march=haswell', '-O1']]);
    builds.push(['x86-64', ['-march=x86-64', '-O1']]);
  }
  if (await hasPairs(compiler)) builds.push(['pairs', [forced('pairs'), '-O1']]);
  else console.log('This machine has no AVX512-BF16: that way to multiply is not run');
  const built = builds.map(async ([name, flags]) => {
    const output = join(folder, `${name}.so`);
    await compile(compiler, output, flags);
    return [name, loadLibrary(output, prototypes)] as const;
  });
  return new Map(await Promise.all(built));
}

/** The assembly for a machine that need not be this one; null where the compiler does not know it. */
export async function assemblyFor(machine: string): Promise<string | null> {
  const compiler = await findCompiler();
  const { command, leadingArguments } = compiler;
  const known = [...leadingArguments, `-march=${machine}`, '-E', '-x', 'c', '/dev/null'];
  if (!(await invoke(command, known).catch(() => null))) return null;
  const output = join(folder, `${machine}.s`);
  // Nothing is linked, for which clang finds some of the flags needless.
  await compile(compiler, output, [`-march=${machine}`, '-O1', '-S', '-Wno-unused-command-line-argument']);
  return readFileSync(output, 'utf8');
}
