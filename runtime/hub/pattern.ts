// Patterns of plain data, read in both directions: filled with values they give data, held against data they give values.
//
//   "$name"                            the value of that name
//   { "times": [a, b] }                a calculation with the patterns a and b; so are plus, over, sqrt, inverse_sqrt, ceiling
//   { "case": "$name", "of": {..} }    the pattern that stands in `of` under the value of that name
//   { "any": a }                       gives what a gives; every datum fits
//   anything else                      itself
import { isDeepStrictEqual } from 'node:util';

export type Pattern = null | boolean | number | string | readonly Pattern[] | { readonly [key: string]: Pattern };

export type Values = Readonly<Record<string, unknown>>;

/** The pattern with every name replaced by its value. */
export function fill(pattern: Pattern, values: Values): unknown {
  const name = nameOf(pattern);
  if (name !== null) {
    if (!Object.hasOwn(values, name)) throw new Error(`the pattern reads $${name}, which has no value`);
    return values[name];
  }
  if (Array.isArray(pattern)) return pattern.map(item => fill(item, values));
  if (!isObject(pattern)) return pattern;
  const calculation = calculationOf(pattern);
  if (calculation) return calculation.calculate(...calculation.operands.map(each => fill(each, values) as number));
  const cases = casesOf(pattern);
  if (cases) return fill(cases.of[fill(cases.name, values) as string]!, values);
  if ('any' in pattern) return fill(pattern.any!, values);
  return Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, fill(value, values)]));
}

/** Where data differ from a pattern. */
export interface Difference {
  /** The keys from the root, such as `block.ffn.bias`. */
  readonly path: string;
  readonly actual: unknown;
  readonly expected: unknown;
}

/** The values with which the pattern gives `data`, or where it never can. A key that is absent is the same as null. */
export function match(pattern: Pattern, data: unknown): { values: Values } | { difference: Difference } {
  const values: Record<string, unknown> = {};
  const walks = [bind, solve, compare].map(visit => () => walk(pattern, data, '', values, visit));
  for (const step of walks) {
    const difference = step();
    if (difference) return { difference };
  }
  return { values };
}

type Visit = (
  pattern: Pattern,
  data: unknown,
  values: Record<string, unknown>,
) => { readonly expected: unknown } | null;

/** Visits every part of a pattern that is no plain object, with the datum in its place. */
function walk(
  pattern: Pattern,
  data: unknown,
  path: string,
  values: Record<string, unknown>,
  visit: Visit,
): Difference | null {
  if (isObject(pattern) && 'any' in pattern) return null;
  const cases = casesOf(pattern);
  if (cases) {
    const name = nameOf(cases.name)!;
    values[name] ??= Object.keys(cases.of).find(key => walk(cases.of[key]!, data, path, { ...values }, visit) === null);
    const chosen = cases.of[(values[name] as string | undefined) ?? Object.keys(cases.of)[0]!]!;
    return walk(chosen, data, path, values, visit);
  }
  if (!isObject(pattern) || calculationOf(pattern)) {
    const fault = visit(pattern, data, values);
    return fault && { path, actual: data, expected: fault.expected };
  }
  if (typeof data !== 'object' || data === null) return { path, actual: data, expected: pattern };
  const entries = data as Values;
  for (const key of new Set([...Object.keys(pattern), ...Object.keys(entries)])) {
    const place = path ? `${path}.${key}` : key;
    const difference = walk(pattern[key] ?? null, entries[key], place, values, visit);
    if (difference) return difference;
  }
  return null;
}

/** Names take the datum in their place; plain data must be what is there. */
const bind: Visit = (pattern, data, values) => {
  if (calculationOf(pattern)) return null;
  const name = nameOf(pattern);
  if (name === null) return isDeepStrictEqual(pattern, data ?? null) ? null : { expected: pattern };
  if (!Object.hasOwn(values, name)) values[name] = data;
  return isDeepStrictEqual(values[name], data) ? null : { expected: values[name] };
};

/** A calculation with one name that has no value yet gives it one. */
const solve: Visit = (pattern, data, values) => {
  const calculation = calculationOf(pattern);
  if (!calculation || typeof data !== 'number') return null;
  const names = calculation.operands.map(nameOf);
  const at = names.findIndex(name => name !== null && !Object.hasOwn(values, name));
  if (at < 0) return null;
  const other = calculation.operands[1 - at] ?? 0;
  if (!(typeof other === 'number' || Object.hasOwn(values, nameOf(other) ?? ''))) return null;
  const solution = calculation.solve[at]?.(data, fill(other, values) as number);
  // A root that was rounded on its way is a round number again.
  if (solution !== undefined) values[names[at]!] = Number(solution.toPrecision(12));
  return null;
};

/** Calculations must come to the datum in their place, but for rounding. */
const compare: Visit = (pattern, data, values) => {
  const calculation = calculationOf(pattern);
  if (!calculation) return null;
  const unknown = calculation.operands.some(each => nameOf(each) !== null && !Object.hasOwn(values, nameOf(each)!));
  if (unknown) return { expected: pattern };
  const expected = fill(pattern, values) as number;
  const same = typeof data === 'number' && Math.abs(data - expected) <= 1e-12 * Math.abs(expected);
  return same ? null : { expected };
};

export const isObject = (pattern: Pattern): pattern is { readonly [key: string]: Pattern } =>
  typeof pattern === 'object' && pattern !== null && !Array.isArray(pattern);

const nameOf = (pattern: Pattern): string | null =>
  typeof pattern === 'string' && pattern.startsWith('$') ? pattern.slice(1) : null;

interface Arithmetic {
  readonly calculate: (...operands: number[]) => number;
  /** For each operand, what it must be for a result, given the other one. None where that is not one number. */
  readonly solve: readonly ((result: number, other: number) => number)[];
}

const arithmetic: Readonly<Record<string, Arithmetic>> = {
  times: { calculate: (a, b) => a! * b!, solve: [(r, b) => r / b, (r, a) => r / a] },
  over: { calculate: (a, b) => a! / b!, solve: [(r, b) => r * b, (r, a) => a / r] },
  plus: { calculate: (a, b) => a! + b!, solve: [(r, b) => r - b, (r, a) => r - a] },
  sqrt: { calculate: a => Math.sqrt(a!), solve: [r => r * r] },
  inverse_sqrt: { calculate: a => 1 / Math.sqrt(a!), solve: [r => 1 / (r * r)] },
  ceiling: { calculate: a => Math.ceil(a!), solve: [] },
};

/** `{ "times": [a, b] }` and its like. */
function calculationOf(pattern: Pattern): (Arithmetic & { readonly operands: readonly Pattern[] }) | null {
  if (!isObject(pattern)) return null;
  const [name, ...others] = Object.keys(pattern);
  if (name === undefined || others.length > 0 || !Object.hasOwn(arithmetic, name)) return null;
  const operands = pattern[name];
  return Array.isArray(operands) ? { ...arithmetic[name]!, operands } : null;
}

function casesOf(pattern: Pattern): { readonly name: Pattern; readonly of: Readonly<Record<string, Pattern>> } | null {
  if (!isObject(pattern) || pattern.case === undefined || !isObject(pattern.of ?? null)) return null;
  return { name: pattern.case, of: pattern.of as Readonly<Record<string, Pattern>> };
}
