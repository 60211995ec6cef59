// Scalar expressions: what a pointwise operation computes for one element. Plain immutable data, built by
// constructors that fold constants, so that derivatives come out short.
import { type FunctionName, functions } from './functions.ts';

export type Scalar =
  | { readonly kind: 'constant'; readonly value: number }
  /** The element of the n-th operand. */
  | { readonly kind: 'operand'; readonly index: number }
  /** The element's position along a named dimension. */
  | { readonly kind: 'coordinate'; readonly dimension: string }
  | { readonly kind: 'apply'; readonly name: FunctionName; readonly args: readonly Scalar[] };

// A declaration, so that functions.ts, which this file needs first, may already call it.
export function constant(value: number): Scalar {
  return { kind: 'constant', value };
}
export const operand = (index: number): Scalar => ({ kind: 'operand', index });
export const coordinate = (dimension: string): Scalar => ({ kind: 'coordinate', dimension });

/** Applies a function, folding constants and the neutral elements of arithmetic. */
export function apply(name: FunctionName, ...args: Scalar[]): Scalar {
  if (args.every(arg => arg.kind === 'constant') && name !== 'detach')
    return constant(functions[name].evaluate(...args.map(arg => (arg as { value: number }).value)));
  const [a, b, c] = args as [Scalar, Scalar, Scalar];
  switch (name) {
    case 'add':
      if (isConstant(a, 0)) return b;
      if (isConstant(b, 0)) return a;
      if (isNegation(b)) return apply('subtract', a, b.args[0]!);
      break;
    case 'subtract':
      if (isConstant(b, 0)) return a;
      if (isConstant(a, 0)) return apply('negate', b);
      if (isNegation(b)) return apply('add', a, b.args[0]!);
      break;
    case 'multiply':
      if (isConstant(a, 0) || isConstant(b, 0)) return constant(0);
      if (isConstant(a, 1)) return b;
      if (isConstant(b, 1)) return a;
      if (isConstant(a, -1)) return apply('negate', b);
      if (isConstant(b, -1)) return apply('negate', a);
      if (isNegation(a)) return apply('negate', apply('multiply', a.args[0]!, b));
      if (isNegation(b)) return apply('negate', apply('multiply', a, b.args[0]!));
      break;
    case 'divide':
      if (isConstant(a, 0)) return constant(0);
      if (isConstant(b, 1)) return a;
      // A product with the exact reciprocal is cheaper; only powers of two have one, the rest is within rounding.
      if (b.kind === 'constant') return apply('multiply', a, constant(1 / b.value));
      break;
    case 'negate':
      if (isNegation(a)) return a.args[0]!;
      break;
    case 'power':
      if (isConstant(b, 1)) return a;
      if (isConstant(b, 2)) return apply('multiply', a, a);
      if (isConstant(b, 3)) return apply('multiply', apply('multiply', a, a), a);
      if (isConstant(b, 0.5)) return apply('sqrt', a);
      if (isConstant(b, -1)) return apply('divide', constant(1), a);
      break;
    case 'select':
      if (a.kind === 'constant') return a.value !== 0 ? b : c;
      if (same(b, c)) return b;
      break;
  }
  return { kind: 'apply', name, args };
}

export const add = (a: Scalar, b: Scalar): Scalar => apply('add', a, b);
export const subtract = (a: Scalar, b: Scalar): Scalar => apply('subtract', a, b);
export const multiply = (a: Scalar, b: Scalar): Scalar => apply('multiply', a, b);
export const divide = (a: Scalar, b: Scalar): Scalar => apply('divide', a, b);
export const negate = (a: Scalar): Scalar => apply('negate', a);
export const select = (condition: Scalar, whenTrue: Scalar, whenFalse: Scalar): Scalar =>
  apply('select', condition, whenTrue, whenFalse);

const isConstant = (scalar: Scalar, value: number) => scalar.kind === 'constant' && scalar.value === value;
const isNegation = (scalar: Scalar): scalar is Extract<Scalar, { kind: 'apply' }> =>
  scalar.kind === 'apply' && scalar.name === 'negate';

/** Structural equality, by the printed form. */
export const same = (a: Scalar, b: Scalar): boolean => a === b || show(a) === show(b);

const shown = new WeakMap<Scalar, string>();

/** The printed form, `add($0, @time)`: for dumps, and as the key of structural equality. Remembered, as trees share. */
export function show(scalar: Scalar): string {
  const known = shown.get(scalar);
  if (known !== undefined) return known;
  const text = showOnce(scalar);
  shown.set(scalar, text);
  return text;
}

function showOnce(scalar: Scalar): string {
  switch (scalar.kind) {
    case 'constant':
      return String(scalar.value);
    case 'operand':
      return `$${scalar.index}`;
    case 'coordinate':
      return `@${scalar.dimension}`;
    case 'apply':
      return `${scalar.name}(${scalar.args.map(show).join(', ')})`;
  }
}

/** Replaces operands, for composing one expression into another or renumbering. */
export function substitute(scalar: Scalar, replace: (index: number) => Scalar): Scalar {
  if (scalar.kind === 'operand') return replace(scalar.index);
  if (scalar.kind !== 'apply') return scalar;
  return apply(scalar.name, ...scalar.args.map(arg => substitute(arg, replace)));
}

/** The operands that an expression reads. */
export function operandsOf(scalar: Scalar, into = new Set<number>()): Set<number> {
  if (scalar.kind === 'operand') into.add(scalar.index);
  if (scalar.kind === 'apply') for (const arg of scalar.args) operandsOf(arg, into);
  return into;
}

/** The dimensions whose coordinate an expression reads. */
export function coordinatesOf(scalar: Scalar, into = new Set<string>()): Set<string> {
  if (scalar.kind === 'coordinate') into.add(scalar.dimension);
  if (scalar.kind === 'apply') for (const arg of scalar.args) coordinatesOf(arg, into);
  return into;
}
