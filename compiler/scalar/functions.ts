// The scalar functions that expressions are made of: what each computes and how each is differentiated.
// How a target spells them is the target's own table.
import { add, apply, constant, divide, multiply, negate, type Scalar, select, subtract } from './expression.ts';

export type FunctionName =
  | 'add'
  | 'subtract'
  | 'multiply'
  | 'divide'
  | 'power'
  | 'negate'
  | 'exp'
  | 'log'
  | 'log1p'
  | 'sqrt'
  | 'rsqrt'
  | 'tanh'
  | 'sigmoid'
  | 'erf'
  | 'sin'
  | 'cos'
  | 'abs'
  | 'floor'
  | 'min'
  | 'max'
  | 'less'
  | 'lessEqual'
  | 'equal'
  | 'and'
  | 'or'
  | 'not'
  | 'select'
  | 'detach';

export interface ScalarFunction {
  readonly arity: number;
  evaluate(...args: number[]): number;
  /** d self / d args[n], for each n; `self` is the application itself, so that exp can say `self`. */
  derivative(args: readonly Scalar[], self: Scalar): readonly Scalar[];
}

const zero = constant(0);
const one = constant(1);
const truth = (value: boolean) => (value ? 1 : 0);
/** Functions that are flat almost everywhere. */
const flat = (arity: number, evaluate: (...args: number[]) => number): ScalarFunction => ({
  arity,
  evaluate,
  derivative: () => Array.from({ length: arity }, () => zero),
});
const unary = (evaluate: (x: number) => number, derivative: (x: Scalar, self: Scalar) => Scalar): ScalarFunction => ({
  arity: 1,
  evaluate,
  derivative: ([x], self) => [derivative(x!, self)],
});

export const functions: Readonly<Record<FunctionName, ScalarFunction>> = {
  add: { arity: 2, evaluate: (a, b) => a! + b!, derivative: () => [one, one] },
  subtract: { arity: 2, evaluate: (a, b) => a! - b!, derivative: () => [one, negate(one)] },
  multiply: { arity: 2, evaluate: (a, b) => a! * b!, derivative: ([a, b]) => [b!, a!] },
  divide: {
    arity: 2,
    evaluate: (a, b) => a! / b!,
    derivative: ([, b], self) => [divide(one, b!), negate(divide(self, b!))],
  },
  power: {
    arity: 2,
    evaluate: (a, b) => a! ** b!,
    derivative: ([a, b], self) => [
      multiply(b!, apply('power', a!, subtract(b!, one))),
      // x^n with a constant n is the common case, and log x would be NaN for x < 0.
      b!.kind === 'constant' ? zero : multiply(self, apply('log', a!)),
    ],
  },
  negate: unary(
    x => -x,
    () => constant(-1),
  ),
  exp: unary(Math.exp, (_, self) => self),
  log: unary(Math.log, x => divide(one, x)),
  // log(1 + x), exact where 1 + x would round x away.
  log1p: unary(Math.log1p, x => divide(one, add(one, x))),
  sqrt: unary(Math.sqrt, (_, self) => divide(constant(0.5), self)),
  rsqrt: unary(
    x => 1 / Math.sqrt(x),
    (_, self) => multiply(constant(-0.5), multiply(self, multiply(self, self))),
  ),
  tanh: unary(Math.tanh, (_, self) => subtract(one, multiply(self, self))),
  sigmoid: unary(
    x => 1 / (1 + Math.exp(-x)),
    (_, self) => multiply(self, subtract(one, self)),
  ),
  // d erf(x) / dx = 2 / sqrt(pi) exp(-x^2)
  erf: unary(errorFunction, x => multiply(constant(2 / Math.sqrt(Math.PI)), apply('exp', negate(multiply(x, x))))),
  sin: unary(Math.sin, x => apply('cos', x)),
  cos: unary(Math.cos, x => negate(apply('sin', x))),
  // -1 at 0, as max(x, 0) is flat there and |x| = 2 max(x, 0) - x: softplus, which has both, then gets its true slope.
  abs: unary(Math.abs, x => select(apply('lessEqual', x, zero), constant(-1), one)),
  floor: flat(1, x => Math.floor(x!)),
  // At a tie the gradient goes to the second argument: relu(x) = max(x, 0) is flat at 0, as elsewhere in the field.
  min: {
    arity: 2,
    evaluate: (a, b) => Math.min(a!, b!),
    derivative: ([a, b]) => [select(apply('less', a!, b!), one, zero), select(apply('less', a!, b!), zero, one)],
  },
  max: {
    arity: 2,
    evaluate: (a, b) => Math.max(a!, b!),
    derivative: ([a, b]) => [select(apply('less', b!, a!), one, zero), select(apply('less', b!, a!), zero, one)],
  },
  less: flat(2, (a, b) => truth(a! < b!)),
  lessEqual: flat(2, (a, b) => truth(a! <= b!)),
  equal: flat(2, (a, b) => truth(a! === b!)),
  and: flat(2, (a, b) => truth(a !== 0 && b !== 0)),
  or: flat(2, (a, b) => truth(a !== 0 || b !== 0)),
  not: flat(1, a => truth(a === 0)),
  select: {
    arity: 3,
    evaluate: (condition, a, b) => (condition !== 0 ? a! : b!),
    derivative: ([condition]) => [zero, select(condition!, one, zero), select(condition!, zero, one)],
  },
  /** The identity, with no gradient: for a maximum that is subtracted only to keep exp in range. */
  detach: flat(1, x => x!),
};

/**
 * erf in double precision: the Maclaurin series below 3, the continued fraction of erfc above
 * (Abramowitz and Stegun 7.1.6 and 7.1.14). Relative error below 1e-14; it serves the reference only.
 */
function errorFunction(x: number): number {
  const magnitude = Math.abs(x);
  if (magnitude > 6) return Math.sign(x);
  if (magnitude < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (magnitude + fraction);
  return Math.sign(x) * (1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / (magnitude + fraction));
}
