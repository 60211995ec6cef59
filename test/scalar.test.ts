// Scalar expressions: the C that is printed means what the evaluator computes, and derivatives are those of differences.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { printScalar } from '../compiler/emission/scalar.ts';
import { differentiate } from '../compiler/scalar/differentiate.ts';
import { evaluator } from '../compiler/scalar/evaluate.ts';
import { apply, constant, coordinate, operand, type Scalar, show, substitute } from '../compiler/scalar/expression.ts';
import type { FunctionName } from '../compiler/scalar/functions.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('scalar');
const folder = mkdtempSync(join(tmpdir(), 'malc-scalar-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const smooth: FunctionName[] = ['tanh', 'sigmoid', 'sin', 'cos', 'erf', 'negate', 'exp'];
const arithmetic: FunctionName[] = ['add', 'subtract', 'multiply', 'divide'];
const comparisons: FunctionName[] = ['less', 'lessEqual', 'equal'];

/** Expressions of operands 0 to 2 and one coordinate. Smooth ones have no jump and no kink. */
function expressions(onlySmooth: boolean): fc.Arbitrary<Scalar> {
  const { number } = fc.letrec<{ number: Scalar; condition: Scalar }>(tie => {
    const leaf = fc.oneof(
      fc.integer({ min: 0, max: 2 }).map(operand),
      fc.constantFrom(0, 1, -1, 0.5, -3, 2, 7.25).map(constant),
      fc.constant(coordinate('hidden')),
    );
    const one = fc.tuple(fc.constantFrom(...smooth), tie('number')).map(([name, a]) => apply(name, a));
    const two = fc
      .tuple(fc.constantFrom(...arithmetic), tie('number'), tie('number'))
      .map(([name, a, b]) => apply(name, a, b));
    // The same operand twice, so that something is shared.
    const twice = fc.tuple(tie('number'), tie('number')).map(([a, b]) => apply('multiply', a, apply('add', a, b)));
    const kinked = fc.oneof(
      fc
        .tuple(fc.constantFrom<FunctionName>('min', 'max'), tie('number'), tie('number'))
        .map(([n, a, b]) => apply(n, a, b)),
      fc.tuple(fc.constantFrom<FunctionName>('abs', 'floor'), tie('number')).map(([name, a]) => apply(name, a)),
      fc.tuple(tie('condition'), tie('number'), tie('number')).map(([c, a, b]) => apply('select', c, a, b)),
      tie('condition'),
    );
    return {
      number: fc.oneof(
        { maxDepth: 4, depthIdentifier: 'scalar' },
        leaf,
        one,
        two,
        twice,
        ...(onlySmooth ? [] : [kinked]),
      ),
      condition: fc.oneof(
        { maxDepth: 3, depthIdentifier: 'scalar' },
        fc
          .tuple(fc.constantFrom(...comparisons), tie('number'), tie('number'))
          .map(([name, a, b]) => apply(name, a, b)),
        fc
          .tuple(fc.constantFrom<FunctionName>('and', 'or'), tie('condition'), tie('condition'))
          .map(([name, a, b]) => apply(name, a, b)),
        tie('condition').map(a => apply('not', a)),
      ),
    };
  });
  return number;
}

const values = [0.75, -1.5, 2.25];
const position = 3;

test('printed C means what the evaluator computes', async () => {
  const scalars = fc.sample(expressions(false), { seed: 8, numRuns: 300 });
  const spelling = { operand: (index: number) => `x[${index}]`, coordinate: () => 'position' };
  const functions = scalars.map((scalar, n) => {
    const lines: string[] = [];
    const result = printScalar(
      scalar,
      spelling,
      text => `s${lines.push(`  const double s${lines.length} = ${text};`) - 1}`,
    );
    return `static double f${n}(const double *x, int position) {\n${lines.join('\n')}\n  (void)x, (void)position;\n  return ${result};\n}`;
  });
  // In double, so that rounding does not hide an error of meaning: only names and suffixes of float are exchanged.
  const names = ['exp', 'log', 'log1p', 'sqrt', 'tanh', 'erf', 'sin', 'cos', 'floor'].map(
    name => `#define malc_${name} ${name}`,
  );
  const source = [
    '#include <math.h>\n#include <stdio.h>',
    ...names,
    '#define malc_abs fabs\n#define malc_min fmin\n#define malc_max fmax',
    'static inline double malc_sigmoid(double x) { return 1 / (1 + exp(-x)); }',
    functions
      .join('\n')
      .replaceAll('(float)', '(double)')
      .replace(/\b(\d[\d.]*(?:e[+-]?\d+)?)f\b/g, '$1'),
    `int main(void) {\n  const double x[] = { ${values.join(', ')} };`,
    ...scalars.map((_, n) => `  printf("%.17g\\n", f${n}(x, ${position}));`),
    '  return 0;\n}\n',
  ].join('\n');
  const { command, leadingArguments } = await findCompiler();
  const [file, program] = [join(folder, 'scalars.c'), join(folder, 'scalars')];
  writeFileSync(file, source);
  const warnings = ['-Wall', '-Wextra', '-Wno-unused-function', '-Wno-div-by-zero', '-Werror'];
  execFileSync(command, [...leadingArguments, '-O0', ...warnings, file, '-o', program, '-lm']);
  const printed = execFileSync(program, { encoding: 'utf8' }).trim().split('\n');
  for (const [n, scalar] of scalars.entries()) {
    const expected = evaluator(scalar)(values, { hidden: position });
    const got = Number(printed[n]!.replace(/^-?nan.*$/, 'NaN').replace('inf', 'Infinity'));
    // Constants are printed as floats.
    const close =
      Object.is(got, expected) || got === expected || Math.abs(got - expected) <= 1e-5 * (1 + Math.abs(expected));
    assert.ok(close || (Number.isNaN(got) && Number.isNaN(expected)), `${show(scalar)}: ${got}, expected ${expected}`);
  }
});

test('derivatives against central differences', () => {
  const at = { hidden: position };
  fc.assert(
    fc.property(expressions(true), fc.integer({ min: 0, max: 2 }), (scalar, index) => {
      fc.pre(!/Infinity|NaN/.test(show(scalar)));
      const value = (by: number) =>
        evaluator(scalar)(
          values.map((x, n) => (n === index ? x + by : x)),
          at,
        );
      const slope = evaluator(differentiate(scalar, index))(values, at);
      const [coarse, fine] = [1e-4, 5e-5].map(step => (value(step) - value(-step)) / (2 * step));
      const numeric = (4 * fine! - coarse!) / 3;
      // Where differences disagree with each other, they say nothing: overflow, or a slope too steep for the step.
      fc.pre(
        Number.isFinite(numeric) &&
          Math.abs(coarse! - fine!) < 1e-4 * (1 + Math.abs(fine!)) &&
          Math.abs(value(0)) < 1e3,
      );
      assert.ok(
        Math.abs(slope - numeric) < 1e-5 * (1 + Math.abs(numeric)),
        `${show(scalar)}: ${slope}, not ${numeric}`,
      );
    }),
    { numRuns: 1000, seed: 2 },
  );
});

test('folding changes no value', () => {
  fc.assert(
    fc.property(expressions(false), scalar => {
      const folded = substitute(scalar, index => constant(values[index]!));
      const [a, b] = [folded, scalar].map(which => evaluator(which)(values, { hidden: position })) as [number, number];
      fc.pre(Number.isFinite(a) && Number.isFinite(b));
      assert.ok(Math.abs(a - b) <= 1e-9 * (1 + Math.abs(b)), `${show(scalar)}: ${a}, not ${b}`);
    }),
    { numRuns: 500, seed: 5 },
  );
});

test.run();
