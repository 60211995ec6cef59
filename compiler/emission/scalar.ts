// Prints scalar expressions as C: minimal parentheses, float literals, and a local constant for what is used twice.
import { type Scalar, show } from '../scalar/expression.ts';
import type { FunctionName } from '../scalar/functions.ts';

/** How the surroundings spell what an expression reads. */
export interface Spelling {
  operand(index: number): string;
  coordinate(dimension: string): string;
  /** Whether integers are compared as such: without conversions, of which some processors do few at a time. */
  readonly comparesIntegers?: boolean;
}

type Precedence = number;
const atom: Precedence = 10;
const unary: Precedence = 9;
const product: Precedence = 8;
const sum: Precedence = 7;
const comparison: Precedence = 6;
const equality: Precedence = 5;
const conjunction: Precedence = 4;
const disjunction: Precedence = 3;
const conditional: Precedence = 2;

/** Functions of templates/cpu/math.h. */
const called: Partial<Record<FunctionName, string>> = {
  exp: 'malc_exp',
  log: 'malc_log',
  log1p: 'malc_log1p',
  sqrt: 'malc_sqrt',
  rsqrt: 'malc_rsqrt',
  tanh: 'malc_tanh',
  sigmoid: 'malc_sigmoid',
  erf: 'malc_erf',
  sin: 'malc_sin',
  cos: 'malc_cos',
  abs: 'malc_abs',
  floor: 'malc_floor',
  min: 'malc_min',
  max: 'malc_max',
  power: 'malc_pow',
};

const infix: Partial<Record<FunctionName, readonly [symbol: string, precedence: Precedence]>> = {
  add: ['+', sum],
  subtract: ['-', sum],
  multiply: ['*', product],
  divide: ['/', product],
  less: ['<', comparison],
  lessEqual: ['<=', comparison],
  equal: ['==', equality],
  and: ['&&', conjunction],
  or: ['||', disjunction],
};

const truths = new Set<FunctionName>(['less', 'lessEqual', 'equal', 'and', 'or', 'not']);
const isTruth = (scalar: Scalar) => scalar.kind === 'apply' && truths.has(scalar.name);

/** The shortest decimal that is this float. */
export function floatLiteral(value: number): string {
  const rounded = Math.fround(value);
  if (Number.isNaN(rounded)) return 'NAN';
  if (!Number.isFinite(rounded)) return rounded > 0 ? 'INFINITY' : '-INFINITY';
  let text = '';
  for (let digits = 1; digits <= 9; digits++) {
    text = String(Number(rounded.toPrecision(digits)));
    if (Math.fround(Number(text)) === rounded) break;
  }
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}

/** Called with each subexpression that occurs more than once; returns the name of a constant that holds it. */
type Declare = (text: string, scalar: Scalar) => string;

/** Prints `scalar` as a float. */
export const printScalar = (scalar: Scalar, spelling: Spelling, declare: Declare): string =>
  printer(scalar, spelling, declare).number(scalar)[0];

/** Prints `scalar` as what an `if` takes. */
export const printCondition = (scalar: Scalar, spelling: Spelling, declare: Declare): string =>
  printer(scalar, spelling, declare).condition(scalar)[0];

interface Printer {
  number(value: Scalar): [string, Precedence];
  condition(value: Scalar): [string, Precedence];
}

function printer(scalar: Scalar, spelling: Spelling, declare: Declare): Printer {
  const uses = countUses(scalar);
  const names = new Map<string, string>();

  const number = (value: Scalar): [string, Precedence] => {
    if (isTruth(value)) return [`${wrap(condition(value), conditional + 1)} ? 1.0f : 0.0f`, conditional];
    switch (value.kind) {
      case 'constant':
        return [floatLiteral(value.value), value.value < 0 ? unary : atom];
      case 'operand':
        return [spelling.operand(value.index), atom];
      case 'coordinate':
        return [`(float)${spelling.coordinate(value.dimension)}`, unary];
    }
    const key = show(value);
    const known = names.get(key);
    if (known) return [known, atom];
    const printed = application(value);
    if ((uses.get(key) ?? 0) < 2) return printed;
    const name = declare(printed[0], value);
    names.set(key, name);
    return [name, atom];
  };

  const application = ({ name, args }: Extract<Scalar, { kind: 'apply' }>): [string, Precedence] => {
    const [a, b, c] = args as [Scalar, Scalar, Scalar];
    if (name === 'detach') return number(a);
    if (name === 'negate') return [`-${wrap(number(a), unary + 1)}`, unary];
    if (name === 'select')
      return [
        `${wrap(condition(a), conditional + 1)} ? ${wrap(number(b), conditional + 1)} : ${wrap(number(c), conditional + 1)}`,
        conditional,
      ];
    const operator = infix[name];
    if (operator) {
      const [symbol, precedence] = operator;
      return [`${wrap(number(a), precedence)} ${symbol} ${wrap(number(b), precedence + 1)}`, precedence];
    }
    return [`${called[name]}(${args.map(arg => number(arg)[0]).join(', ')})`, atom];
  };

  const condition = (value: Scalar): [string, Precedence] => {
    if (value.kind !== 'apply' || !isTruth(value)) return [`${wrap(number(value), equality)} != 0.0f`, equality];
    const [a, b] = value.args as [Scalar, Scalar];
    if (value.name === 'not') return [`!${wrap(condition(a), unary)}`, unary];
    const [symbol, precedence] = infix[value.name]!;
    const integers = spelling.comparesIntegers && value.name === 'equal' ? [a, b].map(integerText) : [null];
    if (integers.every(text => text !== null)) return [integers.join(' == '), precedence];
    const joins = value.name === 'and' || value.name === 'or';
    const side = joins ? condition : number;
    // Compilers warn of && inside || without parentheses.
    const least = joins ? equality : precedence + 1;
    return [`${wrap(side(a), least)} ${symbol} ${wrap(side(b), least)}`, precedence];
  };

  /** An integer that is read as a float, without that; null for anything else. */
  const integerText = (value: Scalar): string | null => {
    if (value.kind !== 'coordinate' && value.kind !== 'operand') return null;
    return /^\(float\)([\w[\]]+)$/.exec(number(value)[0])?.[1] ?? null;
  };

  return { number, condition };
}

const wrap = ([text, precedence]: [string, Precedence], least: Precedence) => (precedence < least ? `(${text})` : text);

function countUses(scalar: Scalar): Map<string, number> {
  const uses = new Map<string, number>();
  const visit = (value: Scalar) => {
    if (value.kind !== 'apply') return;
    const key = show(value);
    const before = uses.get(key) ?? 0;
    uses.set(key, before + 1);
    // The insides of a repeated expression are counted once: they are printed once.
    if (before === 0) value.args.forEach(visit);
  };
  visit(scalar);
  return uses;
}
