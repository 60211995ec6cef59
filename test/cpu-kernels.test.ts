// The C building blocks of generated programs: scalar functions against libm in double, products against plain float64
// loops, compiled as generated programs are and called through koffi.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { binary, buildVariants, kernels, unary } from './cpu/build-kernels.ts';
import { type Layout, type Operand, randomOperand } from './cpu/operands.ts';
import { randomNumbers } from './random-numbers.ts';

fc.configureGlobal({ includeErrorInReport: true });

const built = await buildVariants(kernels());
const { library: native, report } = built.get('native')!;

/** Every build's library, by name, for tests that hold for each. */
const libraries = [...built].map(([name, { library }]) => [name, library] as const);

const mathTest = suite('cpu math');

/** Dense ranges and the largest relative error allowed on them; denormal and infinite results are not counted. */
const ranges: readonly [name: (typeof unary)[number], low: number, high: number, bound: number][] = [
  ['exp', -90, 90, 1e-7],
  ['exp', -1, 1, 1e-7],
  ['exp2', -125, 127, 1.9e-7],
  ['exp2', -1, 1, 1.9e-7],
  ['log', 1e-44, 1e-37, 1.2e-7],
  ['log', 1e-3, 3, 1.2e-7],
  ['log', 1, 1e9, 1.2e-7],
  ['log1p', 1e-30, 1e-3, 1.5e-7],
  ['log1p', -0.5, 3, 1.8e-7],
  ['tanh', -1, 1, 2e-7],
  ['tanh', -20, 20, 2e-7],
  ['sigmoid', -86, 30, 2e-7],
  ['sigmoid', -1, 1, 2e-7],
  ['erf', -1.5, 1.5, 1.2e-7],
  ['erf', -6, 6, 1.2e-7],
  ['sin', -7, 7, 1.3e-7],
  ['sin', -1e5, 1e5, 1.3e-7],
  ['cos', -7, 7, 1.3e-7],
  ['cos', -1e6, 1e6, 1.3e-7],
  ['rsqrt', 1e-6, 10, 1.2e-7],
  ['sqrt', 0, 100, 6e-8],
  ['abs', -3, 3, 0],
  ['floor', 1, 1000, 0],
];

for (const [name, library] of libraries)
  mathTest(`errors against double: ${name}`, () => {
    // Without fused multiply-add each step of a polynomial rounds twice.
    const slack = name === 'x86-64' ? 1.6 : 1;
    for (const [called, low, high, bound] of ranges) {
      const worst = library[`worst_${called}`]!(low, high, 100_003) as number;
      assert.ok(worst <= bound * slack, `${called} on [${low}, ${high}]: ${worst}`);
    }
  });

mathTest('special numbers', () => {
  const of = (name: string, ...numbers: number[]) => {
    const results = new Float32Array(numbers.length);
    native[`apply_${name}`]!(results, Float32Array.from(numbers), numbers.length);
    return [...results];
  };
  assert.equal(of('exp', Infinity, 1e30, 89, -88, -1e30, -Infinity, 0, NaN), [
    Infinity,
    Infinity,
    Infinity,
    0,
    0,
    0,
    1,
    NaN,
  ]);
  assert.equal(of('exp2', 127, 10, 0, -1, -125, -126, -1e30, -Infinity, NaN), [
    2 ** 127,
    1024,
    1,
    0.5,
    2 ** -125,
    0,
    0,
    0,
    NaN,
  ]);
  assert.equal(of('log', Infinity, 0, -1, 1, NaN), [Infinity, -Infinity, NaN, 0, NaN]);
  assert.equal(of('log1p', Infinity, -1, -2, 0, 1e-30, NaN), [Infinity, -Infinity, NaN, 0, Math.fround(1e-30), NaN]);
  assert.equal(of('tanh', Infinity, -Infinity, 1e30, 0, NaN), [1, -1, 1, 0, NaN]);
  assert.equal(of('sigmoid', Infinity, -Infinity, 0, NaN), [1, 0, 0.5, NaN]);
  assert.equal(of('erf', Infinity, -Infinity, 1e30, 0, NaN), [1, -1, 1, 0, NaN]);
  assert.equal(of('sin', 0, 1e30, Infinity, NaN), [0, NaN, NaN, NaN]);
  assert.equal(of('cos', 0, 1e30, Infinity, NaN), [1, NaN, NaN, NaN]);
  assert.equal(of('floor', -0.5, 2.5, Infinity), [-1, 2, Infinity]);
});

mathTest('pow follows C', () => {
  const numbers = [0, 1, -1, 2, -2, 0.5, -0.5, 3, 1e-40, 1e30, Infinity, NaN];
  const random = randomNumbers(1);
  const pairs: [number, number][] = numbers.flatMap(a => numbers.map((b): [number, number] => [a, b]));
  for (let i = 0; i < 20_000; i++) pairs.push([Math.exp(20 * random() - 10), 16 * random() - 8]);
  const bases = Float32Array.from(pairs, pair => pair[0]);
  const exponents = Float32Array.from(pairs, pair => pair[1]);
  const results = new Float32Array(pairs.length);
  native.apply_pow!(results, bases, exponents, pairs.length);
  results.forEach((result, i) => {
    const [base, exponent] = [bases[i]!, exponents[i]!];
    // JavaScript differs from C in two places: 1 to the power of NaN, and -1 or 1 to that of infinity.
    const one = base === 1 || (base === -1 && exponent === Infinity);
    const expected = one ? 1 : base ** exponent;
    const close = Math.abs(result - expected) <= 6.1e-8 * Math.abs(expected) + 1e-45;
    const same = Object.is(Math.fround(expected) + 0, result + 0);
    assert.ok(close || same, `${base} ^ ${exponent} = ${expected}, not ${result}`);
  });
});

mathTest('min and max pass NaN on', () => {
  const [a, b] = [Float32Array.of(NaN, 1, 1, 2), Float32Array.of(1, NaN, 2, 1)];
  const results = new Float32Array(4);
  native.apply_min!(results, a, b, 4);
  assert.equal([...results], [NaN, NaN, 1, 1]);
  native.apply_max!(results, a, b, 4);
  assert.equal([...results], [NaN, NaN, 2, 2]);
});

mathTest('gcc vectorizes a loop over each function', () => {
  if (!report.includes('optimized:')) return console.log('not gcc: vectorization is not checked');
  const lines = readFileSync(join(import.meta.dirname, 'cpu/kernels.c'), 'utf8').split('\n');
  for (const name of [...unary, ...binary]) {
    const line = lines.findIndex(text => text.startsWith(`UNARY(${name},`) || text === `BINARY(${name})`) + 1;
    assert.match(report, new RegExp(`kernels\\.c:${line}:.*loop vectorized`), `${name}, line ${line}`);
  }
});

mathTest.run();

const matmulTest = suite('cpu matmul');

/** The largest error of `result` relative to the sum of the magnitudes that were added. */
function productError(
  result: Float32Array,
  left: Operand,
  right: Operand,
  rows: number,
  inner: number,
  columns: number,
) {
  let worst = 0;
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      let magnitude = 0;
      for (let k = 0; k < inner; k++) {
        const a = left.data[i * left.rowStride + k * left.columnStride]!;
        const product = a * right.data[k * right.rowStride + j * right.columnStride]!;
        sum += product;
        magnitude += Math.abs(product);
      }
      const error = Math.abs(result[i * columns + j]! - sum) / magnitude;
      if (!(error <= worst)) worst = error;
    }
  return worst;
}

const layout = fc.constantFrom<Layout>('rows', 'columns', 'neither');
const extent = fc.integer({ min: 1, max: 70 });
const inner = fc.oneof({ weight: 6, arbitrary: extent }, { weight: 1, arbitrary: fc.integer({ min: 380, max: 1000 }) });
const seed = fc.nat(1e6);

for (const [name, library] of libraries) {
  matmulTest(`packed product: ${name}`, () => {
    fc.assert(
      fc.property(
        seed,
        extent,
        inner,
        extent,
        layout,
        layout,
        (seed, rows, inner, columns, leftLayout, rightLayout) => {
          const random = randomNumbers(seed);
          const left = randomOperand(random, rows, inner, leftLayout);
          const right = randomOperand(random, inner, columns, rightLayout);
          const operands = [
            ...[left.data, left.rowStride, left.columnStride, right.data, right.rowStride, right.columnStride],
            ...[rows, inner, columns],
          ];
          const product = (threads: number, taskRows: number, taskColumns: number, depth: number) => {
            const result = new Float32Array(rows * columns).fill(NaN);
            library.multiply!(result, ...operands, threads, taskRows, taskColumns, depth);
            return result;
          };
          const once = product(1, 96, 96, 384);
          assert.ok(productError(once, left, right, rows, inner, columns) < 1e-6);
          // No schedule changes a bit of the result, nor do panels that were packed before.
          assert.equal(product(2, 24, 32, 256), once);
          assert.equal(product(1, 48, 64, 16), once);
          const panels = new Float32Array(rows * columns).fill(NaN);
          library.multiply_panels!(panels, ...operands);
          assert.equal(panels, once);
        },
      ),
      { numRuns: 60, seed: 7 },
    );
  });

  matmulTest(`product of few rows: ${name}`, () => {
    const few = fc.integer({ min: 1, max: 9 });
    fc.assert(
      fc.property(seed, few, inner, extent, layout, layout, (seed, rows, inner, columns, leftLayout, rightLayout) => {
        const random = randomNumbers(seed);
        const left = randomOperand(random, rows, inner, leftLayout);
        const right = randomOperand(random, inner, columns, rightLayout);
        const result = new Float32Array(rows * columns).fill(NaN);
        library.multiply_few!(
          result,
          ...[left.data, left.rowStride, left.columnStride, right.data, right.rowStride, right.columnStride],
          ...[rows, inner, columns],
        );
        assert.ok(productError(result, left, right, rows, inner, columns) < 1e-6);
      }),
      { numRuns: 100, seed: 8 },
    );
  });
}

matmulTest('several blocks of rows and of the inner dimension', () => {
  const random = randomNumbers(3);
  const [rows, inner, columns] = [203, 800, 97];
  const left = randomOperand(random, rows, inner, 'columns');
  const right = randomOperand(random, inner, columns, 'rows');
  const result = new Float32Array(rows * columns);
  native.multiply!(
    result,
    ...[left.data, left.rowStride, left.columnStride, right.data, right.rowStride, right.columnStride],
    ...[rows, inner, columns, 2, 72, 64, 256],
  );
  assert.ok(productError(result, left, right, rows, inner, columns) < 1e-6);
});

matmulTest('tasks keep within their schedule, and every thread gets one', () => {
  const size = fc.integer({ min: 1, max: 5000 });
  const task = fc.record({ step: fc.integer({ min: 1, max: 6 }), steps: fc.integer({ min: 1, max: 20 }) });
  fc.assert(
    fc.property(size, size, task, fc.integer({ min: 1, max: 40 }), (rows, columns, { step, steps }, tall) => {
      const most = { rows: 24 * tall, columns: Math.min(columns, 32 * step * steps) };
      for (const threads of [1, 2]) {
        const found = new BigInt64Array(2);
        native.divide!(found, rows, columns, 32 * step, most.rows, most.columns, threads);
        const [high, wide] = [Number(found[0]), Number(found[1])];
        assert.ok(high >= 1 && high <= most.rows, `${high} rows`);
        assert.ok(Math.min(wide, columns) <= most.columns && wide >= 1, `${wide} columns`);
        assert.ok(wide >= columns || wide % (32 * step) === 0, `${wide} columns are whole steps`);
        const tasks = Math.ceil(rows / high) * Math.ceil(columns / wide);
        if (rows >= 48) assert.ok(tasks >= threads, `${tasks} tasks`);
      }
    }),
    { numRuns: 200, seed: 9 },
  );
});

matmulTest.run();
