// Builds the C drivers of test/cpu-kernels.test.ts and test/cpu-attention.test.ts with each compiler and vector width.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packagePath } from '../../compiler/package-files.ts';
import {
  blockDepth,
  keyBlock,
  matmulScratch,
  panelColumns,
  queryBlock,
} from '../../compiler/targets/cpu/block-sizes.ts';
import { rowStep, stripRows } from '../../compiler/targets/cpu/schedule.ts';
import { findCompiler } from '../../compiler/targets/cpu/toolchain.ts';
import { loadLibrary, type NativeFunction } from '../../runtime/ffi.ts';

export const unary = [
  'exp',
  'exp2',
  'log',
  'log1p',
  'tanh',
  'sigmoid',
  'erf',
  'sin',
  'cos',
  'rsqrt',
  'sqrt',
  'abs',
  'floor',
] as const;
export const binary = ['pow', 'min', 'max'] as const;
const operands =
  'const float *left, int64_t left_rows, int64_t left_columns, const float *right, int64_t right_rows, ' +
  'int64_t right_columns, int64_t rows, int64_t inner, int64_t columns';

export interface Driver {
  /** The file's name, as the compiler reports it. */
  readonly name: string;
  readonly source: string;
  /** What koffi is told of its functions, by name. */
  readonly prototypes: Readonly<Record<string, string>>;
}

const kernelPrototypes: Driver['prototypes'] = Object.fromEntries([
  ...unary.map(name => [
    `apply_${name}`,
    `void apply_${name}(_Out_ float *results, const float *numbers, int64_t count)`,
  ]),
  ...unary.map(name => [`worst_${name}`, `double worst_${name}(double low, double high, int64_t count)`]),
  ...binary.map(name => [
    `apply_${name}`,
    `void apply_${name}(float *results, const float *a, const float *b, int64_t n)`,
  ]),
  [
    'multiply',
    `void multiply(float *result, ${operands}, int threads, int64_t task_rows, int64_t task_columns, int64_t depth)`,
  ],
  ['multiply_panels', `void multiply_panels(float *result, ${operands})`],
  [
    'divide',
    'void divide(_Out_ int64_t *task, int64_t rows, int64_t columns, int64_t step, int64_t most_rows, ' +
      'int64_t most_columns, int threads)',
  ],
  ['multiply_few', `void multiply_few(float *result, ${operands})`],
]);

/** Opens math.h and matmul.h. */
export const kernels = (): Driver => ({
  name: 'kernels.c',
  source: readFileSync(join(import.meta.dirname, 'kernels.c'), 'utf8'),
  prototypes: kernelPrototypes,
});

export type Library = Record<string, NativeFunction>;

export interface Build {
  readonly library: Library;
  /** What the compiler printed. */
  readonly report: string;
}

const invoke = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'malc-kernels-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Compiles without a warning. Resolves to the library and to what the compiler reported. */
async function build(variant: string, driver: Driver, command: string, flags: readonly string[]): Promise<Build> {
  const output = join(folder, `${variant}.so`);
  const constants = [
    `-DBLOCK_DEPTH=${blockDepth}`,
    `-DMATMUL_SCRATCH=${matmulScratch}`,
    `-DPANEL_COLUMNS=${panelColumns}`,
    `-DQUERY_BLOCK=${queryBlock}`,
    `-DKEY_BLOCK=${keyBlock}`,
    `-DSTRIP_ROWS=${stripRows}`,
    `-DROW_STEP=${rowStep}`,
  ];
  // Quoted includes only: `#include <math.h>` must still find the system's.
  const places = ['-iquote', packagePath('templates/cpu')];
  const file = join(folder, driver.name);
  const words = [...flags, '-Wall', '-Wextra', '-Werror', ...constants, ...places, file, '-o', output, '-lm'];
  const { stderr } = await invoke(command, words, { maxBuffer: 2 ** 26 });
  return { library: loadLibrary(output, driver.prototypes), report: stderr };
}

/** Ways to multiply bfloat16 numbers that can run here, by the flags that choose them: MALC_BF16_PATH of matmul_bf16.h. */
const bf16Paths: readonly (readonly [string, readonly string[]])[] = [
  ['native', []],
  ['widened', ['-DMALC_BF16_PATH=0', '-O1']],
  ['tiles', ['-DMALC_BF16_PATH=2', '-DMALC_AMX_EMULATOR="amx-emulator.h"', '-O2', '-iquote', import.meta.dirname]],
  [
    'refused tiles',
    [
      ...['-DMALC_BF16_PATH=2', '-DMALC_AMX_EMULATOR="amx-emulator.h"', '-DAMX_REFUSED'],
      '-O1',
      '-iquote',
      import.meta.dirname,
    ],
  ],
];

/**
 * The library with each way to multiply bfloat16 numbers; AMX is emulated, and once refused.
 * @param driverOf what is built with each
 */
export async function buildBf16Paths(driverOf: (path: string) => Driver): Promise<Map<string, Build>> {
  const { command, flags } = await findCompiler();
  const defined = (await invoke(command, [...flags, '-dM', '-E', '-x', 'c', '/dev/null'])).stdout;
  const paths = [...bf16Paths];
  if (/__AVX512BF16__/.test(defined)) paths.push(['pairs', ['-DMALC_BF16_PATH=1', '-O1']]);
  else console.log('This machine has no AVX512-BF16: that way to multiply is not run');
  const builds = paths.map(async ([name, own]) => {
    const { name: file, ...rest } = driverOf(name);
    // A file of its own: another build may be reading the same driver's.
    const driver = { ...rest, name: `${name.replace(' ', '-')}-${file}` };
    writeFileSync(join(folder, driver.name), driver.source);
    return [name, await build(`bf16 ${name}`, driver, command, [...flags, ...own])] as const;
  });
  return new Map(await Promise.all(builds));
}

/**
 * The library as each compiler at hand builds it: the one that malc uses, with every vector width of its machine, and
 * clang where it is installed.
 */
export async function buildVariants(driver: Driver): Promise<Map<string, Build>> {
  writeFileSync(join(folder, driver.name), driver.source);
  const compiler = await findCompiler();
  if (!compiler.openmp) throw new Error(`${compiler.command} has no OpenMP: these tests need it`);
  const gcc = !compiler.version.includes('clang');
  const quickly = (machine: string) => [...compiler.flags, '-O1', `-march=${machine}`];
  const builds: [string, string, readonly string[]][] = [
    ['native', compiler.command, gcc ? [...compiler.flags, '-fopt-info-vec'] : compiler.flags],
  ];
  if (process.arch === 'x64') {
    builds.push(['haswell', compiler.command, quickly('haswell')]);
    builds.push(['x86-64', compiler.command, quickly('x86-64')]);
  }
  const clang = process.env.CLANG ?? 'clang';
  const found = await invoke(clang, ['--version']).catch(() => null);
  if (gcc && found) builds.push(['clang', clang, [...compiler.flags, '-O1']]);
  else if (gcc) console.log('clang is not installed: compiled with gcc only');
  const built = await Promise.all(
    builds.map(async ([name, command, flags]) => [name, await build(name, driver, command, flags)] as const),
  );
  return new Map(built);
}
