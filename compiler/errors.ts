// Every message of the compiler about a user's source, one constructor each; those about formulas are in
// formula-errors.ts, those about dimensions that do not fit each other in dimension-errors.ts.
import type { Diagnostic } from './diagnostic.ts';
import { didYouMean, either, error, listed, meantConstant, quoted, warning } from './message.ts';
import { formulaKinds, type Span } from './syntax/syntax.ts';

// Shape of the text.

const operators = ['+', '-', '*', '/', '^', '&&', '||', '?', 'a comparison'];
const groupKinds = ['attention', 'ssm', 'ffn', 'block', 'model'];
const kinds = [...groupKinds, ...formulaKinds, 'let', 'import'];

/** The grammar's failure. `found` is null at the end; `expected` are its descriptions; `head` begins the definition. */
export function unexpected(span: Span, found: string | null, expected: readonly string[], head: string): Diagnostic {
  const wanted = new Set(expected);
  const atStart = wanted.delete('a formula such as activation or norm');
  for (const other of ['a definition such as attention, ffn, block or model', ...(atStart ? ['let', 'import'] : [])])
    wanted.delete(other);
  if (atStart && found === head) {
    const help = didYouMean(head, kinds, `definitions begin with ${either(kinds)}`);
    return error(span, `expected a definition, found ${quoted(head)}`, help);
  }
  // After a number in braces arithmetic might go on, which is seldom what was forgotten.
  if (wanted.has('}')) for (const operator of operators) wanted.delete(operator);
  if (operators.filter(operator => wanted.delete(operator)).length > 3) wanted.add('an operator');
  if (wanted.delete('end of input')) wanted.add('the next definition');
  for (const word of ['extends', 'tier', 'a space', 'a comment']) wanted.delete(word);
  const words = [...wanted].map(word => (/^\w/.test(word) && word !== 'learned' ? word : quoted(word))).sort();
  const message = `expected ${either(words)}, found ${found === null ? 'the end of the definition' : quoted(found)}`;
  return error(span, message, mendSyntax(found, wanted));
}

function mendSyntax(found: string | null, wanted: ReadonlySet<string>): string | null {
  if ((found === ',' || found === ';') && wanted.has('}'))
    return 'properties stand side by side, with nothing between them';
  if (found === '=' && wanted.has(':')) return 'a property and its value are joined by `:`';
  if (found === '/') return 'a comment begins with `#`';
  if (found === '%') return 'a remainder is `x - n * floor(x / n)`';
  if (found === '*' && wanted.has('!')) return 'a power is `x^2`';
  if (found === '.') return 'a number has digits on both sides of its point: `0.5`';
  if (found === 'if') return 'a choice is `condition ? a : b`';
  if (found === 'and' || found === 'or') return `write ${found === 'and' ? '`&&`' : '`||`'}`;
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

export const definitionTooLong = (span: Span, count: number, limit: number) =>
  error(
    span,
    `one definition has ${count} words and marks, more than ${limit}`,
    'split it into definitions of its parts',
  );

export const formulaTooLong = (span: Span, count: number, limit: number) =>
  error(
    span,
    `one definition has ${count} operators, more than ${limit}`,
    'split it: formulas with `function name(x) = ...`',
  );

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
    didYouMean(
      name,
      kind === 'ffn' ? [...known, 'none'] : known,
      known.length > 0 ? `${kind} definitions here: ${listed(known)}` : null,
    ),
    other
      ? [{ message: `${quoted(name)} is the name of another kind of definition, ${other.kind}`, span: other.span }]
      : [],
  );

interface Kinded {
  readonly kind: string;
  readonly span: Span;
}

export const standardName = (
  span: Span,
  kind: string,
  name: string,
  standard: { readonly kind: string; readonly name: string; readonly nameSpan: Span },
) =>
  error(span, `${kind} ${quoted(name)}: the name is taken by the standard library`, 'give yours another name', [
    { message: `${quoted(name)} is its ${standard.kind} ${quoted(standard.name)}`, span: standard.nameSpan },
  ]);

export const extendsCycle = (span: Span, path: readonly string[]) =>
  error(span, `a definition cannot extend itself: ${path.map(quoted).join(' extends ')}`);

/** Of definitions that are explained by others, which are explained by others. */
export const chainTooLong = (span: Span, what: string, limit: number) =>
  error(span, `this ${quoted(what)} rests on more than ${limit} others, one upon the other`);

export const unusedDefinition = (span: Span, kind: string, name: string) =>
  warning(span, `${kind} ${quoted(name)} is used by no model`);

export const noModel = (file: string) =>
  error(null, `${file} defines no model`, 'add one: `model my-model { }` is enough, all else has defaults');

export const severalModels = (names: readonly string[], span: Span) =>
  error(span, `the file defines ${names.length} models`, `name the one you mean: ${either(names.map(quoted))}`);

export const unknownModel = (file: string, name: string, known: readonly string[]) =>
  error(null, `${file} has no model named ${quoted(name)}`, didYouMean(name, known, `it has ${listed(known)}`));

// Files.

export const importNotFound = (span: Span, path: string) =>
  error(span, `there is no file ${quoted(path)}`, 'the path is relative to the folder of the file that imports it');

export const importUnreadable = (span: Span, path: string, reason: string) =>
  error(span, `${quoted(path)} cannot be read: ${reason}`);

export const importNotRelative = (span: Span, path: string) =>
  error(span, `${quoted(path)} is an absolute path`, 'write it relative to the folder of the file that imports it');

export const importCycle = (span: Span, path: readonly string[]) =>
  error(span, `files cannot import each other: ${path.map(quoted).join(' imports ')}`);

export const importsTooDeep = (span: Span, limit: number) =>
  error(span, `files import each other more than ${limit} deep`);

// Properties.

/** `known` are all names that would do, `shown` those to show where none is near. */
export const unknownProperty = (
  span: Span,
  owner: string,
  name: string,
  known: readonly string[],
  shown: readonly string[],
) =>
  error(
    span,
    `${owner} has no property ${quoted(name)}`,
    didYouMean(name, known, shown.length > 0 ? `it has ${listed(shown)}` : 'it takes no properties'),
  );

export const propertyTwice = (name: string, again: Span, first: Span, firstName: string) =>
  error(again, `${quoted(name)} is given twice`, 'keep one of them', [
    { message: name === firstName ? 'first given here' : `first given here, as ${quoted(firstName)}`, span: first },
  ]);

export const missingProperty = (span: Span | null, owner: string, name: string) =>
  error(span, `${quoted(owner)} needs ${quoted(name)}`);

/** `constants` are the file's names of numbers, of which the word that was found may be a misspelled one. */
export const wrongType = (
  span: Span,
  property: string,
  expected: string,
  found: string,
  constants: { readonly word: string; readonly constants: readonly string[] } | null = null,
) =>
  error(
    span,
    `${quoted(property)} takes ${expected}, not ${found}`,
    constants && meantConstant(constants.word, constants.constants),
  );

/** For a literal such as 1e6, and for a number that was worked out with one. */
export const notWhole = (span: Span, property: string, value: number, literal: boolean) =>
  literal && Number.isInteger(value)
    ? error(span, `${quoted(property)} takes a whole number in digits alone`, `write ${value}`)
    : error(
        span,
        `${quoted(property)} takes a whole number, not ${value}`,
        literal ? null : 'work it out with whole numbers alone: `3 * d / 2`, not `1.5 * d`',
      );

export const unknownWord = (span: Span, property: string, word: string, known: readonly string[]) =>
  error(
    span,
    `${quoted(property)} cannot be ${quoted(word)}`,
    didYouMean(word, known, known.length > 0 ? `it can be ${either(known.map(quoted))}` : 'remove it'),
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

/** Two properties of which a definition has one. */
export const exclusive = (span: Span, name: string, other: { readonly name: string; readonly span: Span }) =>
  error(span, `${quoted(name)} and ${quoted(other.name)} exclude each other`, 'keep one of them', [
    { message: `${quoted(other.name)} is given here`, span: other.span },
  ]);

/** A property that acts on something that is not there. */
export const actsOnNothing = (span: Span, what: string, why: string, mend: string) =>
  error(span, `${quoted(what)} has nothing to act on: ${why}`, mend);

const noEffect = (span: Span, what: string, why: string) => warning(span, `${quoted(what)} has no effect: ${why}`);

export const normPositionWithoutNorm = (span: Span) => noEffect(span, 'norm_position', '`norm` is `none`');

export const blockBesideList = (span: Span, list: string) =>
  noEffect(span, 'block', `${quoted(list)} says which blocks the layers are`);

export const layersDisagree = (span: Span, count: number, given: { readonly value: number; readonly span: Span }) =>
  error(
    span,
    `${quoted('layers')} lists ${count} layers, and num_layers is ${given.value}`,
    'leave num_layers out, or list as many',
    [{ message: `num_layers is ${given.value} here`, span: given.span }],
  );

export const patternNotReached = (span: Span, block: string, layers: number, length: number) =>
  noEffect(span, block, `num_layers is ${layers}, less than the pattern's ${length} blocks`);

export const tooManyLayers = (span: Span | null, limit: number) =>
  error(span, `the models of this file have more than ${limit} layers together`, 'move some of them to another file');

export const badCount = (span: Span, found: number) =>
  error(span, `a repetition takes a whole number of at least 1, not ${found}`);

export const listTooLong = (span: Span, property: string, limit: number) =>
  error(span, `${quoted(property)} has more than ${limit} entries`);
