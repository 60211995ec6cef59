// Every message about formulas and arithmetic, one constructor each.
import { didYouMean, either, error, listed, meantConstant, quoted } from './message.ts';
import type { Span } from './syntax/syntax.ts';

// Numbers that are worked out.

export const unknownConstant = (span: Span, name: string, known: readonly string[]) =>
  error(
    span,
    `there is no number named ${quoted(name)}`,
    meantConstant(name, known) ?? (known.length > 0 ? `there are ${listed(known)}` : '`let name = 3` makes one'),
  );

export const divisionByZero = (span: Span) => error(span, 'this divides by zero');

export const remainder = (span: Span, left: number, right: number) =>
  error(
    span,
    `${left} / ${right} leaves a remainder of ${left % right}`,
    'a division of whole numbers must be exact; write one of them with a point, as 2.0, for a fraction',
  );

export const constantCycle = (span: Span, path: readonly string[]) =>
  error(span, `a number cannot be made of itself: ${path.map(quoted).join(' needs ')}`);

/** In a formula that comes without the file that it was written in. */
export const arithmeticAlone = (span: Span) =>
  error(span, 'expected a number, found arithmetic', 'write the number that it comes to');

export const numberTooLarge = (span: Span) => error(span, 'this number is too large');

// Formulas.

export const unknownFormula = (span: Span, kind: string, name: string) =>
  error(
    span,
    `there is no ${kind} named ${quoted(name)}`,
    `define one: \`${kind} ${name}(${parameters[kind]}) = ...\``,
  );

export const wrongParameters = (span: Span, kind: string, expected: number, found: number) =>
  error(
    span,
    `${article(kind)} takes ${expected} parameter${expected === 1 ? '' : 's'}, not ${found}`,
    parameters[kind] ? `write \`${kind} name(${parameters[kind]}) = ...\`` : null,
  );

const article = (kind: string) => `${/^[aeiou]/.test(kind) ? 'an' : 'a'} ${kind}`;

const parameters: Readonly<Record<string, string>> = {
  activation: 'x',
  norm: 'x',
  score: 'score, query, key, head',
  mask: 'query, key',
};

export const nameTwice = (span: Span, name: string) => error(span, `the name ${quoted(name)} is given twice`);

export const nameTaken = (span: Span, name: string, meaning: string) =>
  error(span, `${quoted(name)} is ${meaning}`, 'choose another name');

export const nameNotRead = (span: Span, kind: string, name: string) =>
  error(span, `the ${kind} does not read ${quoted(name)}`, 'use it in the formula, or remove it');

export const constantsOutsideNorm = (span: Span, kind: string) =>
  error(span, `only a norm has constants in braces, not ${article(kind)}`, 'write the number in the formula');

export const unknownName = (span: Span, name: string, known: readonly string[], hint: string | null) =>
  error(span, `the formula knows no ${quoted(name)}`, hint ?? didYouMean(name, known, `it knows ${listed(known)}`));

export const unknownFunction = (span: Span, name: string, known: readonly string[]) =>
  error(span, `there is no function ${quoted(name)}`, didYouMean(name, known, `there are ${listed(known)}`));

export const wrongArity = (span: Span, name: string, expected: readonly number[], found: number) =>
  error(
    span,
    `${quoted(name)} takes ${either(expected.map(String))} argument${expected.at(-1) === 1 ? '' : 's'}, not ${found}`,
  );

export const reductionOutsideNorm = (span: Span, kind: string, callee: string) =>
  error(
    span,
    `${article(kind)} works on single elements, and ${quoted(callee)} reduces over a dimension`,
    'a norm may reduce',
  );

export const numberExpected = (span: Span, operator: string) =>
  error(span, `${quoted(operator)} takes a number, and this is a condition`, 'write `condition ? 1 : 0` for its value');

export const conditionExpected = (span: Span, operator: string) =>
  error(span, `${quoted(operator)} takes a condition, and this is a number`, 'compare it: `x > 0`');

export const bodyIsCondition = (span: Span, kind: string) =>
  error(span, `the value of ${article(kind)} is a number, and this is a condition`, 'write `condition ? 1 : 0`');

export const bodyIsNumber = (span: Span, kind: string) =>
  error(span, `the value of ${article(kind)} is a condition, and this is a number`, 'compare it: `key <= query`');

export const recursion = (span: Span, path: readonly string[]) =>
  error(span, `functions cannot call themselves: ${path.map(quoted).join(' calls ')}`);
