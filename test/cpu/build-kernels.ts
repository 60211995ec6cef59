// Builds kernels.c, the driver of test/cpu-kernels.test.ts, with each compiler and vector width at hand.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pairCoordinates } from '../../compiler/ops/attention.ts';
import { packagePath } from '../../compiler/package-files.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  multiply,
  operand,
  type Scalar,
  subtract,
} from '../../compiler/scalar/expression.ts';
import { pairFunctions } from '../../compiler/targets/cpu/attention.ts';
import {
  attentionScratch,
  keyBlock,
  matmulScratch,
  panelColumns,
  queryBlock,
} from '../../compiler/targets/cpu/block-sizes.ts';
import { findCompiler } from '../../compiler/targets/cpu/toolchain.ts';
import { renderTemplate } from '../../compiler/template.ts';
import { loadLibrary, type NativeFunction } from '../../runtime/ffi.ts';
import type { AttentionShape, PairRule } from './attention-reference.ts';

// 3 tanh((s - 0.02 (head + 1) (query - key)) / 3) over the keys before the query and, in head 1, the first 40. Query 0 of
// the other heads sees nothing.
const [query, key, head] = pairCoordinates.map(coordinate) as [Scalar, Scalar, Scalar];
const leaned = subtract(operand(0), multiply(multiply(constant(0.02), add(head, constant(1))), subtract(query, key)));
const capped = multiply(constant(3), apply('tanh', multiply(constant(1 / 3), leaned)));
const masked = apply(
  'or',
  apply('less', key, query),
  apply('and', apply('equal', head, constant(1)), apply('less', key, constant(40))),
);
const cappedRule: PairRule = {
  score: (s, q, k, h) => 3 * Math.tanh((s - 0.02 * (h + 1) * (q - k)) / 3),
  slope: (s, q, k, h) => 1 - Math.tanh((s - 0.02 * (h + 1) * (q - k)) / 3) ** 2,
  sees: (q, k, h) => k < q || (h === 1 && k < 40),
};

/** The shapes of attention that the driver holds: forward_N and backward_N are of shape N. */
export const shapes: readonly AttentionShape[] = [
  { heads: 4, kvHeads: 2, dim: 16, causal: true, window: 0, pair: null },
  { heads: 3, kvHeads: 1, dim: 40, causal: true, window: 70, pair: null },
  { heads: 2, kvHeads: 2, dim: 7, causal: false, window: 0, pair: null },
  { heads: 6, kvHeads: 1, dim: 33, causal: true, window: 5, pair: null },
  { heads: 2, kvHeads: 1, dim: 3, causal: false, window: 20, pair: null },
  { heads: 1, kvHeads: 1, dim: 256, causal: true, window: 0, pair: null },
  { heads: 4, kvHeads: 2, dim: 12, causal: false, window: 0, pair: cappedRule },
  { heads: 3, kvHeads: 3, dim: 8, causal: false, window: 30, pair: cappedRule },
];

/** The scale of a shape's scores, as float32 has it. */
export const scaleOf = (shape: AttentionShape) => Math.fround(1 / Math.sqrt(shape.dim));

/** The rendered templates of every shape, each behind a function that takes the number of threads first. */
function attentionSource(): string {
  return shapes
    .map((shape, index) => {
      const fields = {
        heads: shape.heads,
        kv_heads: shape.kvHeads,
        head_dim: shape.dim,
        scale: `${scaleOf(shape).toPrecision(9)}f`,
        window: shape.window,
        causal: shape.causal,
        ...pairFunctions({
          scale: scaleOf(shape),
          causal: shape.causal,
          window: shape.window,
          score: shape.pair && capped,
          mask: shape.pair && masked,
        }),
        comment: `Shape ${index} of the test.`,
        query_block: queryBlock,
        key_block: keyBlock,
      };
      return `${renderTemplate('cpu/attention_forward.c.hbs', { ...fields, name: `attention_${index}` })}
${renderTemplate('cpu/attention_backward.c.hbs', { ...fields, name: `attention_${index}_gradient` })}
void forward_${index}(int threads, int64_t batch, int64_t time, int64_t context, int64_t start, int64_t context_stride,
    const float *query, const float *key, const float *value, float *output, float *log_sum_exp, float *scratch) {
  omp_set_num_threads(threads);
  attention_${index}(batch, time, context, start, context_stride, query, key, value, output, log_sum_exp, scratch,
      ${attentionScratch(shape.dim)});
}
void backward_${index}(int threads, int64_t batch, int64_t time, const float *query, const float *key, const float *value,
    const float *log_sum_exp, const float *output_gradient, const float *delta, float *query_gradient,
    float *key_gradient, float *value_gradient, float *scratch) {
  omp_set_num_threads(threads);
  attention_${index}_gradient(batch, time, query, key, value, log_sum_exp, output_gradient, delta, query_gradient,
      key_gradient, value_gradient, scratch, ${attentionScratch(shape.dim)});
}
`;
    })
    .join('\n');
}

export const unary = ['exp', 'log', 'tanh', 'sigmoid', 'erf', 'sin', 'cos', 'rsqrt', 'sqrt', 'abs', 'floor'] as const;
export const binary = ['pow', 'min', 'max'] as const;
const operands =
  'const float *left, int64_t left_rows, int64_t left_columns, const float *right, int64_t right_rows, ' +
  'int64_t right_columns, int64_t rows, int64_t inner, int64_t columns';

const prototypes: Readonly<Record<string, string>> = Object.fromEntries([
  ...unary.map(name => [
    `apply_${name}`,
    `void apply_${name}(_Out_ float *results, const float *numbers, int64_t count)`,
  ]),
  ...unary.map(name => [`worst_${name}`, `double worst_${name}(double low, double high, int64_t count)`]),
  ...binary.map(name => [
    `apply_${name}`,
    `void apply_${name}(float *results, const float *a, const float *b, int64_t n)`,
  ]),
  ['multiply', `void multiply(float *result, ${operands}, int threads)`],
  ['multiply_few', `void multiply_few(float *result, ${operands})`],
  ...shapes.flatMap((_, index) => [
    [
      `forward_${index}`,
      `void forward_${index}(int threads, int64_t batch, int64_t time, int64_t context, int64_t start, ` +
        'int64_t context_stride, const float *query, const float *key, const float *value, float *output, ' +
        'float *log_sum_exp, float *scratch)',
    ],
    [
      `backward_${index}`,
      `void backward_${index}(int threads, int64_t batch, int64_t time, const float *query, const float *key, ` +
        'const float *value, const float *log_sum_exp, const float *output_gradient, const float *delta, ' +
        'float *query_gradient, float *key_gradient, float *value_gradient, float *scratch)',
    ],
  ]),
]);

export type Library = Record<string, NativeFunction>;

export interface Build {
  readonly library: Library;
  /** What the compiler printed. */
  readonly report: string;
}

const invoke = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'malc-kernels-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
writeFileSync(join(folder, 'attention.c'), attentionSource());

/** Compiles the driver without a warning. Resolves to the library and to what the compiler reported. */
async function build(name: string, command: string, flags: readonly string[]): Promise<Build> {
  const output = join(folder, `${name}.so`);
  const constants = [
    `-DMATMUL_SCRATCH=${matmulScratch}`,
    `-DPANEL_COLUMNS=${panelColumns}`,
    `-DQUERY_BLOCK=${queryBlock}`,
    `-DKEY_BLOCK=${keyBlock}`,
  ];
  // Quoted includes only: `#include <math.h>` must still find the system's.
  const places = ['-iquote', packagePath('templates/cpu'), '-iquote', folder];
  const source = join(import.meta.dirname, 'kernels.c');
  const words = [...flags, '-Wall', '-Wextra', '-Werror', ...constants, ...places, source, '-o', output, '-lm'];
  const { stderr } = await invoke(command, words, { maxBuffer: 2 ** 26 });
  return { library: loadLibrary(output, prototypes), report: stderr };
}

/** The compilers at hand: the one that malc uses, with every vector width of its machine, and clang where it is installed. */
export async function buildVariants(): Promise<Map<string, Build>> {
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
    builds.map(async ([name, command, flags]) => [name, await build(name, command, flags)] as const),
  );
  return new Map(built);
}
