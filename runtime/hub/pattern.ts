// Patterns of plain data, read in both directions: filled with values they give data, held against data they give values.
//
//   "$name"                   the value of that name
//   { "times": [a, b] }       a product, { "over": [a, b] } a quotient
//   anything else             itself
import { isDeepStrictEqual } from 'node:util';

export type Pattern = null | boolean | number | string | readonly Pattern[] | { readonly [key: string]: Pattern };

export type Values = Readonly<Record<string, unknown>>;

/** The pattern with every name replaced by its value. */
export function fill(pattern: Pattern, values: Values): unknown {
  if (typeof pattern === 'string' && pattern.startsWith('$')) {
    const name = pattern.slice(1);
    if (!Object.hasOwn(values, name)) throw new Error(`the pattern reads ${pattern}, which has no value`);
    return values[name];
  }
  if (Array.isArray(pattern)) return pattern.map(item => fill(item, values));
  if (!isObject(pattern)) return pattern;
  const calculation = calculationOf(pattern);
  if (calculation) {
    const [a, b] = calculation.operands.map(operand => fill(operand, values) as number) as [number, number];
    return calculation.name === 'times' ? a * b : a / b;
  }
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
  // Calculations are held against the data when every name has its value.
  const difference = bind(pattern, data, '', values) ?? compare(pattern, data, '', values);
  return difference ? { difference } : { values };
}

function bind(pattern: Pattern, data: unknown, path: string, values: Record<string, unknown>): Difference | null {
  if (typeof pattern === 'string' && pattern.startsWith('$')) {
    const name = pattern.slice(1);
    if (!Object.hasOwn(values, name)) values[name] = data;
    const expected = values[name];
    return isDeepStrictEqual(expected, data) ? null : { path, actual: data, expected };
  }
  if (calculationOf(pattern)) return null;
  if (!isObject(pattern)) {
    return isDeepStrictEqual(pattern, data ?? null) ? null : { path, actual: data, expected: pattern };
  }
  if (typeof data !== 'object' || data === null) return { path, actual: data, expected: pattern };
  return firstDifference(pattern, data, path, (part, value, place) => bind(part, value, place, values));
}

function compare(pattern: Pattern, data: unknown, path: string, values: Values): Difference | null {
  if (calculationOf(pattern)) {
    const expected = fill(pattern, values);
    return expected === data ? null : { path, actual: data, expected };
  }
  if (!isObject(pattern)) return null;
  return firstDifference(pattern, data as object, path, (part, value, place) => compare(part, value, place, values));
}

function firstDifference(
  pattern: { readonly [key: string]: Pattern },
  data: object,
  path: string,
  check: (part: Pattern, value: unknown, path: string) => Difference | null,
): Difference | null {
  const entries = data as Values;
  for (const key of new Set([...Object.keys(pattern), ...Object.keys(entries)])) {
    const difference = check(pattern[key] ?? null, entries[key], path ? `${path}.${key}` : key);
    if (difference) return difference;
  }
  return null;
}

export const isObject = (pattern: Pattern): pattern is { readonly [key: string]: Pattern } =>
  typeof pattern === 'object' && pattern !== null && !Array.isArray(pattern);

/** `{ "times": [a, b] }` or `{ "over": [a, b] }`. */
function calculationOf(pattern: Pattern): { name: 'times' | 'over'; operands: readonly Pattern[] } | null {
  if (!isObject(pattern)) return null;
  for (const name of ['times', 'over'] as const) {
    const operands = pattern[name];
    if (Array.isArray(operands)) return { name, operands };
  }
  return null;
}
