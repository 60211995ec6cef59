// Every message of the compiler about a user's source, one constructor each.
import type { Diagnostic } from './diagnostic.ts';
import { nearest } from './diagnostic.ts';
import type { Span } from './syntax/syntax.ts';

type Notes = Diagnostic['notes'];

function error(span: Span | null, message: string, help: string | null = null, notes: Notes = []): Diagnostic {
  return { severity: 'error', message, span, notes, help };
}

function warning(span: Span | null, message: string, help: string | null = null, notes: Notes = []): Diagnostic {
  return { severity: 'warning', message, span, notes, help };
}

/** `a`, `a or b`, `a, b or c`. */
const either = (words: readonly string[]) =>
  words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
/** A word of the source, cut where it is longer than a line should be. */
const quoted = (word: string) => `\`${word.length > 60 ? `${word.slice(0, 57)}...` : word}\``;
const didYouMean = (word: string, candidates: readonly string[], otherwise: string | null = null) => {
  const near = nearest(word, candidates);
  return near === null ? otherwise : `did you mean ${quoted(near)}?`;
};

// Shape of the text.

const operators = ['+', '-', '*', '/', '^', '&&', '||', '?', 'a comparison'];
const kinds = ['attention', 'ffn', 'block', 'model', 'activation', 'norm', 'function', 'loss'];
const laterKinds = ['import', 'let', 'score', 'mask'];

/** The grammar's failure. `found` is null at the end; `expected` are its descriptions; `head` begins the definition. */
export function unexpected(span: Span, found: string | null, expected: readonly string[], head: string): Diagnostic {
  const wanted = new Set(expected);
  const atStart = wanted.delete('a formula such as activation or norm');
  wanted.delete('a definition such as attention, ffn, block or model');
  if (atStart && found === head) {
    if (laterKinds.includes(head)) return unsupported(span, head);
    const help = didYouMean(head, kinds, `definitions begin with ${either(kinds)}`);
    return error(span, `expected a definition, found ${quoted(head)}`, help);
  }
  if (found === 'extends') return unsupported(span, 'extends');
  if (operators.filter(operator => wanted.delete(operator)).length > 3) wanted.add('an operator');
  if (wanted.delete('end of input')) wanted.add('the next definition');
  for (const word of ['tier', 'a space', 'a comment']) wanted.delete(word);
  const listed = [...wanted].map(word => (/^\w/.test(word) && word !== 'learned' ? word : quoted(word))).sort();
  const message = `expected ${either(listed)}, found ${found === null ? 'the end of the definition' : quoted(found)}`;
  return error(span, message, mendSyntax(found, wanted));
}

function mendSyntax(found: string | null, wanted: ReadonlySet<string>): string | null {
  if ((found === ',' || found === ';') && wanted.has('}'))
    return 'properties stand side by side, with nothing between them';
  if (found === '=' && wanted.has(':')) return 'a property and its value are joined by `:`';
  if (found === '//' || found === '/') return wanted.has('}') ? 'a comment begins with `#`' : null;
  if (found === '{' && wanted.has('a name')) return 'every definition has a name: `model my-model { ... }`';
  return null;
}

export const unclosedString = (span: Span) => error(span, 'this text is never closed', 'end it with `"`');

export const unclosedBracket = (span: Span, open: string, close: string) =>
  error(span, `this ${quoted(open)} is never closed`, `close it with ${quoted(close)}`);

export const strayBracket = (span: Span, close: string) =>
  error(span, `this ${quoted(close)} closes nothing`, 'write the bracket that it should close, or remove it');

export const wrongBracket = (span: Span, close: string, opener: Span, expected: string) =>
  error(span, `expected ${quoted(expected)}, found ${quoted(close)}`, null, [
    { message: 'the bracket that is open here', span: opener },
  ]);

export const nestedTooDeep = (span: Span, limit: number) => error(span, `brackets are nested more than ${limit} deep`);

export const formulaTooLong = (span: Span, count: number, limit: number) =>
  error(span, `one formula has ${count} operators, more than ${limit}`, 'split it with `function name(x) = ...`');

export const unsupported = (span: Span, what: string, mend: string | null = null) =>
  error(span, `${quoted(what)} is not supported in this version`, mend);

// Names.

export const definedTwice = (kind: string, name: string, again: Span, first: Span) =>
  error(again, `${kind} ${quoted(name)} is defined twice`, 'give one of them another name', [
    { message: 'first defined here', span: first },
  ]);

export const unknownDefinition = (
  span: Span,
  kind: string,
  name: string,
  known: readonly string[],
  other: Kinded | null,
) =>
  error(
    span,
    `there is no ${kind} named ${quoted(name)}`,
    didYouMean(name, known, known.length > 0 ? `${kind} definitions here: ${known.map(quoted).join(', ')}` : null),
    other
      ? [{ message: `${quoted(name)} is the name of another kind of definition, ${other.kind}`, span: other.span }]
      : [],
  );

interface Kinded {
  readonly kind: string;
  readonly span: Span;
}

export const unusedDefinition = (span: Span, kind: string, name: string) =>
  warning(span, `${kind} ${quoted(name)} is used by no model`);

export const noModel = (file: string) =>
  error(null, `${file} defines no model`, 'add one: `model my-model { }` is enough, all else has defaults');

export const severalModels = (names: readonly string[], span: Span) =>
  error(span, `the file defines ${names.length} models`, `name the one you mean: ${either(names.map(quoted))}`);

export const unknownModel = (file: string, name: string, known: readonly string[]) =>
  error(
    null,
    `${file} has no model named ${quoted(name)}`,
    didYouMean(name, known, `it has ${known.map(quoted).join(', ')}`),
  );

// Properties.

/** `known` are all names that would do, `listed` those to show where none is near. */
export const unknownProperty = (
  span: Span,
  owner: string,
  name: string,
  known: readonly string[],
  listed: readonly string[],
) =>
  error(
    span,
    `${owner} has no property ${quoted(name)}`,
    didYouMean(name, known, listed.length > 0 ? `it has ${listed.map(quoted).join(', ')}` : 'it takes no properties'),
  );

export const propertyTwice = (name: string, again: Span, first: Span, firstName: string) =>
  error(again, `${quoted(name)} is given twice`, 'keep one of them', [
    { message: name === firstName ? 'first given here' : `first given here, as ${quoted(firstName)}`, span: first },
  ]);

export const wrongType = (span: Span, property: string, expected: string, found: string) =>
  error(span, `${quoted(property)} takes ${expected}, not ${found}`);

export const notInDigits = (span: Span, property: string, value: number) =>
  error(span, `${quoted(property)} takes a whole number in digits alone`, `write ${value}`);

export const unknownWord = (span: Span, property: string, word: string, known: readonly string[]) =>
  error(
    span,
    `${quoted(property)} cannot be ${quoted(word)}`,
    didYouMean(word, known, `it can be ${either(known.map(quoted))}`),
  );

export const wordTakesNoProperties = (span: Span, word: string) => error(span, `${quoted(word)} takes no properties`);

export const referenceWithProperties = (span: Span, kind: string, name: string) =>
  error(
    span,
    `${kind} ${quoted(name)} is a definition of its own and takes no further properties here`,
    `write \`${kind} { ... }\` for one without a name`,
  );

export const outOfRange = (span: Span, property: string, range: string, found: string) =>
  error(span, `${quoted(property)} must be ${range}, not ${found}`);

export const unsupportedValue = (span: Span, property: string, value: string, mend: string) =>
  error(span, `\`${property}: ${value}\` is not supported in this version`, mend);

export const unsupportedWord = (span: Span, property: string, word: string, known: readonly string[]) =>
  unsupportedValue(span, property, word, `it can be ${either(known.map(quoted))}`);

export const fileFormula = (span: Span, kind: string, name: string, defined: Span, known: readonly string[]) =>
  error(
    span,
    `${kind} ${quoted(name)} is defined in this file, and a file's own ${kind}s are not supported in this version`,
    `use a standard one: ${either(known.map(quoted))}`,
    [{ message: 'defined here', span: defined }],
  );

const noEffect = (span: Span, what: string, why: string) => warning(span, `${quoted(what)} has no effect: ${why}`);

export const normPositionWithoutNorm = (span: Span) => noEffect(span, 'norm_position', '`norm` is `none`');

export const blockBesidePattern = (span: Span) => noEffect(span, 'block', '`pattern` says which blocks the layers are');

export const patternNotReached = (span: Span, block: string, layers: number, length: number) =>
  noEffect(span, block, `num_layers is ${layers}, less than the pattern's ${length} blocks`);

// Dimensions. `where` says which block of which model, and its layers.

export const headsDoNotDivide = (
  span: Span | null,
  where: string,
  hidden: { value: number; span: Span | null },
  heads: number,
  nearby: readonly number[],
) =>
  error(
    span,
    `in ${where}, num_heads ${heads} does not divide hidden_size ${hidden.value}`,
    `${either(nearby.map(String))} heads would divide it; or give \`head_dim\``,
    [{ message: `hidden_size is ${hidden.value}${hidden.span ? ' here' : ' by default'}`, span: hidden.span }],
  );

export const keyHeadsDoNotDivide = (
  span: Span | null,
  where: string,
  heads: { value: number; span: Span | null },
  keyHeads: number,
  nearby: readonly number[],
) =>
  error(
    span,
    `in ${where}, num_kv_heads ${keyHeads} does not divide num_heads ${heads.value}`,
    `each key-value head serves the same number of heads: ${either(nearby.map(String))} would divide ${heads.value}`,
    [{ message: `num_heads is ${heads.value}${heads.span ? ' here' : ' by default'}`, span: heads.span }],
  );

export const oddHeadDimension = (span: Span | null, where: string, headDim: number, derived: string | null) =>
  error(
    span,
    `in ${where}, head_dim ${headDim} is odd${derived ? ` (${derived})` : ''}, and rope turns pairs of elements`,
    `give an even \`head_dim\`, such as ${headDim + 1}, or another \`position_encoding\``,
  );

export const tooFewPositions = (span: Span, where: string, positions: number, length: Span | null, maximum: number) =>
  error(
    span,
    `in ${where}, max_positions ${positions} is less than max_seq_len ${maximum}`,
    'positions beyond the table would have no vector: raise max_positions or lower max_seq_len',
    [{ message: `max_seq_len is ${maximum}${length ? ' here' : ' by default'}`, span: length }],
  );

interface LearnedPositions {
  readonly where: string;
  readonly positions: number;
  readonly span: Span | null;
}

export const positionsDisagree = (first: LearnedPositions, second: LearnedPositions) =>
  error(
    second.span,
    `${second.where} has ${second.positions} learned positions, and ${first.where} has ${first.positions}`,
    'the table of learned positions is one for the whole model: give both the same max_positions',
    [{ message: `${first.positions} here`, span: first.span }],
  );

export const overflow = (span: Span | null, where: string, what: string, value: number, limit: number) =>
  error(span, `in ${where}, ${what} is ${value}, more than ${limit}`);

// Formulas.

export const wrongParameters = (span: Span, kind: string, expected: number, found: number) =>
  error(
    span,
    `${kind === 'activation' ? 'an' : 'a'} ${kind} takes ${expected} parameter${expected === 1 ? '' : 's'}, not ${found}`,
  );

export const nameTwice = (span: Span, name: string) => error(span, `the name ${quoted(name)} is given twice`);

export const nameTaken = (span: Span, name: string, meaning: string) =>
  error(span, `${quoted(name)} is ${meaning}`, 'choose another name');

export const constantsOutsideNorm = (span: Span, kind: string) =>
  error(
    span,
    `only a norm has constants in braces, not ${kind === 'activation' ? 'an' : 'a'} ${kind}`,
    'write the number in the formula',
  );

export const unknownName = (span: Span, name: string, known: readonly string[], hint: string | null) =>
  error(
    span,
    `the formula knows no ${quoted(name)}`,
    hint ?? didYouMean(name, known, `it knows ${known.map(quoted).join(', ')}`),
  );

export const unknownFunction = (span: Span, name: string, known: readonly string[]) =>
  error(span, `there is no function ${quoted(name)}`, didYouMean(name, known));

export const wrongArity = (span: Span, name: string, expected: readonly number[], found: number) =>
  error(
    span,
    `${quoted(name)} takes ${either(expected.map(String))} argument${expected.at(-1) === 1 ? '' : 's'}, not ${found}`,
  );

export const reductionInActivation = (span: Span, callee: string) =>
  error(
    span,
    `an activation works on single elements, and ${quoted(callee)} reduces over a dimension`,
    'a norm may reduce',
  );

export const numberExpected = (span: Span, operator: string) =>
  error(span, `${quoted(operator)} takes a number, and this is a condition`, 'write `condition ? 1 : 0` for its value');

export const conditionExpected = (span: Span, operator: string) =>
  error(span, `${quoted(operator)} takes a condition, and this is a number`, 'compare it: `x > 0`');

export const bodyIsCondition = (span: Span, kind: string) =>
  error(
    span,
    `the value of ${kind === 'activation' ? 'an' : 'a'} ${kind} is a number, and this is a condition`,
    'write `condition ? 1 : 0`',
  );

export const recursion = (span: Span, path: readonly string[]) =>
  error(span, `functions cannot call themselves: ${path.map(quoted).join(' calls ')}`);

export const numberTooLarge = (span: Span) => error(span, 'this number is too large');
