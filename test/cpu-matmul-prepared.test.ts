// Products with prepared weights (templates/cpu/matmul_streamed.h, matmul_int8.h) for each SIMD width: packed 8-bit numbers one by
// one, products against float64 sums of the numbers that the packed forms stand for.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { loadLibrary, type NativeFunction } from '../runtime/ffi.ts';
import { type Layout, type Operand, randomOperand } from './cpu/operands.ts';
import { randomNumbers } from './random-numbers.ts';

const prototypes = {
  packed_size: 'int64_t packed_size(int narrow, int64_t inner, int64_t columns)',
  pack: 'void pack(float *packed, const float *weights, int narrow, int64_t inner, int64_t columns, int64_t part)',
  multiply:
    'void multiply(float *result, const float *left, int64_t row_stride, int64_t column_stride, const float *packed, ' +
    'int narrow, int many, int64_t rows, int64_t inner, int64_t columns, int64_t task)',
};
type Library = Record<keyof typeof prototypes, NativeFunction>;

const folder = mkdtempSync(join(tmpdir(), 'malc-prepared-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const machines = ['native', ...(process.arch === 'x64' ? ['haswell', 'x86-64'] : [])];
const { command, leadingArguments, flags } = await findCompiler();
const libraries = new Map(machines.map(name => [name, build(name)]));

function build(machine: string): Library {
  const output = join(folder, `${machine}.so`);
  const places = ['-iquote', packagePath('templates/cpu'), join(import.meta.dirname, 'cpu', 'kernels-prepared.c')];
  const own = machine === 'native' ? [] : [`-march=${machine}`, '-O1'];
  const strict = ['-Wall', '-Wextra', '-Werror'];
  execFileSync(command, [...leadingArguments, ...flags, ...own, ...strict, ...places, '-o', output, '-lm']);
  return loadLibrary(output, prototypes) as Library;
}

const test = suite('cpu matmul prepared');

type Form = 'bf16' | 'int8';
const group = 64;
/** Words of a group of 64 rows of 32 columns: the scales, and four numbers to a word. */
const groupWords = 32 + 16 * 32;

function pack(library: Library, form: Form, weights: Float32Array, inner: number, columns: number, part = 1 << 20) {
  const packed = new Float32Array(Number(library.packed_size(form === 'int8' ? 1 : 0, inner, columns))).fill(NaN);
  library.pack(packed, weights, form === 'int8' ? 1 : 0, inner, columns, part);
  return packed;
}

/** The number of a weight in packed groups, and its scale. */
function packedNumber(packed: Float32Array, inner: number, column: number, k: number) {
  const at = (Math.floor(column / 32) * Math.ceil(inner / group) + Math.floor(k / group)) * groupWords;
  const word = at + 32 + Math.floor((k % group) / 4) * 32 + (column % 32);
  return { scale: packed[at + (column % 32)]!, number: new Uint8Array(packed.buffer)[4 * word + (k % 4)]! - 128 };
}

/** To the nearest integer, of two equally near the even one. */
function nearest(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

/** The bfloat16 nearest to a float32 that is neither denormal nor infinite. */
function rounded(x: number): number {
  floats[0] = x;
  words[0] = (words[0]! + 0x7fff + ((words[0]! >>> 16) & 1)) & 0xffff0000;
  return floats[0]!;
}

/** Random weights [columns][inner]; groups differ in size. */
function randomWeights(random: () => number, inner: number, columns: number): Float32Array {
  return Float32Array.from(
    { length: inner * columns },
    (_, i) => (2 * random() - 1) * 4 ** (Math.floor(i / group) % 5),
  );
}

/** The left operand as few rows round it for weights of 8 bits: each group of a row by its own scale. */
function roundedInGroups({ data, rowStride, columnStride }: Operand, rows: number, inner: number): Operand {
  const copy = data.slice();
  for (let i = 0; i < rows; i++)
    for (let begin = 0; begin < inner; begin += group) {
      const places = Array.from(
        { length: Math.min(group, inner - begin) },
        (_, k) => i * rowStride + (begin + k) * columnStride,
      );
      const most = Math.max(...places.map(place => Math.abs(data[place]!)));
      const numbers = places.map(place => nearest(Math.fround(data[place]! * Math.fround(127 / most))));
      places.forEach((place, k) => {
        copy[place] = Math.fround(most / 127) * numbers[k]!;
      });
    }
  return { data: copy, rowStride, columnStride };
}

/** What a packed form stands for. */
function meant(form: Form, weights: Float32Array, packed: Float32Array, inner: number): Float64Array {
  return Float64Array.from(weights, (weight, i) => {
    if (form === 'bf16') return rounded(weight);
    const { scale, number } = packedNumber(packed, inner, Math.floor(i / inner), i % inner);
    return scale * number;
  });
}

interface Product {
  readonly left: Operand;
  readonly packed: Float32Array;
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
}

function multiply(library: Library, form: Form, many: boolean, product: Product, task = 1 << 20): Float32Array {
  const { left, packed, rows, inner, columns } = product;
  const result = new Float32Array(rows * columns).fill(NaN);
  const narrow = form === 'int8' ? 1 : 0;
  library.multiply(
    ...[result, left.data, left.rowStride, left.columnStride, packed, narrow, many ? 1 : 0, rows, inner, columns, task],
  );
  return result;
}

/** The largest error relative to the sum of the magnitudes that were added. */
function largestError(result: Float32Array, weights: Float64Array, { left, rows, inner, columns }: Product): number {
  let largest = 0;
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      let [sum, size] = [0, 0];
      for (let k = 0; k < inner; k++) {
        const term = left.data[i * left.rowStride + k * left.columnStride]! * weights[j * inner + k]!;
        sum += term;
        size += Math.abs(term);
      }
      const error = Math.abs(result[i * columns + j]! - sum) / size;
      if (!(error <= largest)) largest = error;
    }
  return largest;
}

// Inner dimensions on both sides of a step, a group, and the part that few rows take at once; ragged panels.
const shapes = [
  [1, 1, 1, 'rows'],
  [1, 64, 32, 'rows'],
  [2, 31, 33, 'rows'],
  [3, 100, 70, 'columns'],
  [4, 512, 64, 'rows'],
  [5, 513, 40, 'neither'],
  [8, 1100, 96, 'rows'],
] as const satisfies readonly (readonly [number, number, number, Layout])[];

for (const [name, library] of libraries) {
  test(`8-bit numbers: ${name}`, () => {
    const random = randomNumbers(41);
    for (const [, inner, columns] of shapes) {
      const weights = randomWeights(random, inner, columns);
      const packed = pack(library, 'int8', weights, inner, columns);
      for (let column = 0; column < Math.ceil(columns / 32) * 32; column++)
        for (let begin = 0; begin < Math.ceil(inner / group) * group; begin += group) {
          const end = column < columns ? Math.min(begin + group, inner) : begin;
          const most = weights
            .subarray(column * inner + begin, column * inner + end)
            .reduce((a, b) => Math.max(a, Math.abs(b)), 0);
          for (let k = begin; k < begin + group; k++) {
            const { scale, number } = packedNumber(packed, inner, column, k);
            assert.is(scale, Math.fround(most / 127));
            const scaled = k < end ? Math.fround(weights[column * inner + k]! * Math.fround(127 / most)) : 0;
            assert.is(number + 0, nearest(scaled) + 0, `${inner} x ${columns}: column ${column}, row ${k}`);
          }
        }
    }
  });

  for (const form of ['bf16', 'int8'] as const)
    test(`products: ${form}, ${name}`, () => {
      const random = randomNumbers(42);
      for (const [fewRows, inner, columns, layout] of shapes) {
        const weights = randomWeights(random, inner, columns);
        const packed = pack(library, form, weights, inner, columns);
        assert.equal(
          new Uint32Array(pack(library, form, weights, inner, columns, group).buffer),
          new Uint32Array(packed.buffer),
        );
        const expected = meant(form, weights, packed, inner);
        // bfloat16 products of many rows round the left operand, and have a test of their own.
        for (const many of form === 'int8' ? [false, true] : [false]) {
          const rows = many ? fewRows * 13 : fewRows;
          const product = { left: randomOperand(random, rows, inner, layout), packed, rows, inner, columns };
          const result = multiply(library, form, many, product);
          // A chain of so many additions; of 8-bit numbers each weight, or each group's scale, is rounded besides.
          const bound = (inner + 4) * 2 ** -24;
          const left = form === 'int8' && !many ? roundedInGroups(product.left, rows, inner) : product.left;
          const error = largestError(result, expected, { ...product, left });
          assert.ok(error <= bound, `${rows} x ${inner} x ${columns}${many ? ', many' : ''}: ${error} above ${bound}`);
          assert.equal(multiply(library, form, many, product, 32), result, 'in tasks of 32 columns');
        }
      }
    });

  test(`weights that are not finite reach the result: ${name}`, () => {
    const random = randomNumbers(43);
    const [rows, inner, columns] = [4, 130, 40];
    const left = randomOperand(random, rows, inner, 'rows');
    const weights = randomWeights(random, inner, columns);
    const clean = (['bf16', 'int8'] as const).map(form => {
      const packed = pack(library, form, weights, inner, columns);
      return multiply(library, form, false, { left, packed, rows, inner, columns });
    });
    weights[7 * inner + 100] = NaN;
    weights[33 * inner + 3] = Infinity;
    (['bf16', 'int8'] as const).forEach((form, n) => {
      const packed = pack(library, form, weights, inner, columns);
      multiply(library, form, false, { left, packed, rows, inner, columns }).forEach((value, i) => {
        const column = i % columns;
        if (column === 7 || column === 33) assert.not.ok(Number.isFinite(value), `${form}, column ${column}`);
        else assert.is(value, clean[n]![i]);
      });
    });
  });
}

test.run();
