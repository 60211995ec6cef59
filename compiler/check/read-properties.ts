// Reads properties by their table: names and aliases, types, ranges, defaults, each property once. Every fault is reported
// at its place, and the reading goes on with the default, so that one run shows them all.

import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import { numberTooLarge, unknownFormula } from '../formula-errors.ts';
import { meantConstant } from '../message.ts';
import type { ListItem, Property, PropertyValue, Span, SyntaxExpression } from '../syntax/syntax.ts';
import type { Constants, Numeric } from './constants.ts';
import type { FormulaLibrary } from './formula-library.ts';
import type { Norm } from './model.ts';
import {
  canonicalNames,
  type DefinitionKind,
  largestDepth,
  ownersOf,
  type PropertyRule,
  type PropertyTable,
  type PropertyType,
  type Read,
  type Setting,
  type Settings,
  tables,
} from './properties.ts';
import { activationOf, activationWords, normTable, normWords } from './standard-library.ts';

/** What reading needs to know of the file and tells about it. */
export interface Reader {
  readonly constants: Constants;
  readonly formulas: FormulaLibrary;
  report(diagnostic: Diagnostic): void;
}

/**
 * Reads the properties of a definition.
 *
 * @param written null for one that is not written: all defaults. Its span is where messages point that concern all of it.
 */
export function readDefinition<Kind extends DefinitionKind>(
  reader: Reader,
  kind: Kind,
  name: string | null,
  written: { readonly properties: readonly Property[]; readonly span: Span } | null,
): Read<Kind> {
  const counting = countErrors(reader);
  const owner = name === null ? kind : `${kind} \`${name}\``;
  const settings = readProperties(counting.reader, tables[kind] as PropertyTable, owner, written ?? nothing);
  const sound = counting.errors() === 0;
  return { kind, name, span: written?.span ?? null, settings: settings as Read<Kind>['settings'], sound };
}

function countErrors(reader: Reader): { reader: Reader; errors: () => number } {
  let errors = 0;
  const report = (diagnostic: Diagnostic) => {
    if (diagnostic.severity === 'error') errors++;
    reader.report(diagnostic);
  };
  return { reader: { ...reader, report }, errors: () => errors };
}

/** Properties as they stand in braces; the span is where messages point that concern all of them. */
interface Written {
  readonly properties: readonly Property[];
  readonly span: Span | null;
}

const nothing: Written = { properties: [], span: null };

/** Reads properties by a table; `owner` is what messages call their definition. */
function readProperties<Table extends PropertyTable>(
  reader: Reader,
  table: Table,
  owner: string,
  { properties, span }: Written,
): Settings<Table> {
  const canonical = canonicalNames(table);
  const isDefinition = Object.values<PropertyTable>(tables).includes(table);
  const written = new Map<string, Property>();
  for (const property of properties) {
    const name = canonical.get(property.name);
    const first = name && written.get(name);
    if (name === undefined)
      reader.report(
        errors.unknownProperty(
          property.nameSpan,
          owner,
          property.name,
          [...canonical.keys()],
          Object.keys(table),
          isDefinition ? ownersOf(property.name) : [],
        ),
      );
    else if (first) reader.report(errors.propertyTwice(property.name, property.nameSpan, first.nameSpan, first.name));
    else written.set(name, property);
  }
  const settings = Object.entries(table).map(([name, rule]) => {
    if (rule.required && !written.has(name)) reader.report(errors.missingProperty(span, owner, name));
    return [name, readSetting(reader, rule, written.get(name) ?? null)];
  });
  return Object.fromEntries(settings) as Settings<Table>;
}

function readSetting(reader: Reader, rule: PropertyRule, property: Property | null): Setting<unknown> {
  const value = property === null ? undefined : readValue(reader, rule.type, property);
  if (property === null || value === undefined) return { value: defaultValue(reader, rule), property };
  if (rule.only && value !== rule.only.value)
    reader.report(errors.unsupportedValue(property.span, property.name, String(value), rule.only.mend));
  return { value, property };
}

function defaultValue(reader: Reader, rule: PropertyRule): unknown {
  const { type } = rule;
  if (rule.optional) return null;
  if (type.kind === 'group') return readProperties(reader, type.table, '', nothing);
  if (type.kind === 'definition') return { name: null, definition: readDefinition(reader, type.of, null, null) };
  if (rule.default === undefined) return null;
  if (type.kind === 'norm' && rule.default === true) return type.switch;
  const word = String(rule.default);
  if (type.kind === 'activation') return activationOf(reader.formulas, word);
  if (type.kind === 'choice') return { word, settings: readProperties(reader, type.choices[word]!, word, nothing) };
  if (type.kind === 'norm') return namedNorm(reader, word, nothing);
  return rule.default;
}

/** The value of a property that is written, or undefined where it is at fault, which has then been reported. */
function readValue(reader: Reader, type: PropertyType, { name, nameSpan, value }: Property): unknown {
  const fault = (diagnostic: Diagnostic) => reader.report(diagnostic);
  const wrong = (expected: string) =>
    fault(errors.wrongType(value.span, name, expected, describe(value), mendType(type, value)));
  switch (type.kind) {
    case 'integer': {
      const number = numberOf(reader, name, 'a whole number', value);
      if (!number) return undefined;
      if (!Number.isFinite(number.value)) return fault(numberTooLarge(value.span));
      if (!number.integer) return fault(errors.notWhole(value.span, name, number.value, value.kind === 'number'));
      if (number.value < type.minimum) return fault(outOfRange(name, `at least ${type.minimum}`, number, value));
      if (number.value > type.maximum) return fault(outOfRange(name, `at most ${type.maximum}`, number, value));
      return number.value;
    }
    case 'number': {
      const number = numberOf(reader, name, 'a number', value);
      if (!number) return undefined;
      if (!Number.isFinite(number.value)) return fault(numberTooLarge(value.span));
      return type.range.accepts(number.value) ? number.value : fault(outOfRange(name, type.range.text, number, value));
    }
    case 'boolean':
      return value.kind === 'boolean' ? value.value : wrong('true or false');
    case 'string':
      return value.kind === 'string' ? value.value : wrong('a text in quotes');
    case 'word':
      if (value.kind !== 'word') return wrong('a word');
      if (!type.words.includes(value.word)) return fault(errors.unknownWord(value.span, name, value.word, type.words));
      return plainWord(reader, value);
    case 'choice':
      return value.kind === 'word' ? readChoice(reader, name, type.choices, value) : wrong('a word');
    case 'group':
      if (value.kind !== 'group') return wrong('properties in braces');
      return readProperties(reader, type.table, name, value);
    case 'definition':
      if (value.kind === 'group') return { name: null, definition: readDefinition(reader, type.of, null, value) };
      if (value.kind !== 'word')
        return wrong(
          `the name of a definition, ${type.none ? '' : 'or '}properties in braces${type.none ? ' or none' : ''}`,
        );
      if (value.properties) return fault(errors.referenceWithProperties(value.span, type.of, value.word));
      return { name: value.word, span: value.span };
    case 'list':
      return value.kind === 'list' ? readList(reader, name, value) : wrong('a list such as [one, other]');
    case 'activation':
      return value.kind === 'word' ? readActivation(reader, name, value) : wrong('a word such as gelu');
    case 'norm':
      if (type.switch && value.kind === 'boolean') return value.value ? type.switch : null;
      return value.kind === 'word' ? readNorm(reader, name, value) : wrong('a word such as rmsnorm');
    case 'formula':
      return value.kind === 'word' ? readFormula(reader, name, type.of, value) : wrong(`the name of a ${type.of}`);
    case 'unsupported':
      return fault(errors.unsupported(nameSpan, name, type.mend));
  }
}

type WordValue = Extract<PropertyValue, { kind: 'word' }>;

/** What a value comes to; undefined where it is no number, which has been reported. */
function numberOf(reader: Reader, name: string, expected: string, value: PropertyValue): Numeric | undefined {
  if (value.kind === 'number') return value;
  if (value.kind === 'arithmetic') return reader.constants.evaluate(value.expression) ?? undefined;
  if (value.kind === 'word' && value.properties === null) {
    const { word, span } = value;
    const constants = reader.constants.names();
    if (reader.constants.has(word)) return reader.constants.evaluate({ kind: 'name', name: word, span }) ?? undefined;
    reader.report(errors.wrongType(span, name, expected, describe(value), meantConstant(word, constants)));
  } else {
    const mend = value.kind === 'string' && /^\d/.test(value.value) ? withoutQuotes(value.value) : null;
    reader.report(errors.wrongType(value.span, name, expected, describe(value), mend));
  }
}

/** How to write a value of another kind that shows what was meant. */
function mendType(type: PropertyType, value: PropertyValue): string | null {
  if (type.kind === 'boolean') {
    const said = value.kind === 'string' ? value.value : describe(value).replaceAll('`', '');
    const meant = switchWords.find(words => words.includes(said.toLowerCase()));
    return meant ? `write \`${meant[0]}\`` : null;
  }
  return value.kind === 'string' && namedTypes.has(type.kind) && /^[A-Za-z_]/.test(value.value)
    ? withoutQuotes(value.value)
    : null;
}

/** The types whose values are words. */
const namedTypes: ReadonlySet<PropertyType['kind']> = new Set([
  'word',
  'choice',
  'definition',
  'activation',
  'norm',
  'formula',
]);

/** Other languages' words for true and false. */
const switchWords = [
  ['true', 'yes', 'on', '1'],
  ['false', 'no', 'off', 'none', '0'],
];

const withoutQuotes = (text: string) =>
  /^(\d+(\.\d+)?|[A-Za-z_][\w-]*)$/.test(text) ? `write it without quotes: \`${text}\`` : null;

const outOfRange = (name: string, range: string, number: Numeric, value: PropertyValue) =>
  errors.outOfRange(value.span, name, range, String(number.value));

interface NamedPlace {
  readonly word: string;
  readonly span: Span;
}

/** A list with its repetitions written out; undefined where one is at fault, which has been reported. */
function readList(reader: Reader, name: string, list: Extract<PropertyValue, { kind: 'list' }>) {
  const expand = (item: ListItem): NamedPlace[] | undefined => {
    if (item.kind === 'word') return [item];
    if (item.kind === 'repeat') {
      const count = countOf(reader, item.count);
      const words = expand(item.item);
      if (!count || !words) return undefined;
      return limited(count * words.length, () => Array.from({ length: count }, () => words).flat());
    }
    const parts = item.items.map(expand);
    const length = parts.reduce((total, part) => total + (part?.length ?? 0), 0);
    return parts.includes(undefined) ? undefined : limited(length, () => parts.flatMap(part => part!));
  };
  const limited = (length: number, make: () => NamedPlace[]) => {
    if (length <= largestDepth) return make();
    reader.report(errors.listTooLong(list.span, name, largestDepth));
  };
  return expand(list);
}

/** How often a part of a list is repeated. */
function countOf(reader: Reader, expression: SyntaxExpression): number | undefined {
  const count = reader.constants.evaluate(expression);
  if (!count) return undefined;
  if (count.integer && count.value >= 1) return count.value;
  reader.report(errors.badCount(expression.span, count.value));
}

function plainWord(reader: Reader, value: WordValue): string | undefined {
  if (value.properties === null) return value.word;
  reader.report(errors.wordTakesNoProperties(value.span, value.word));
}

function readActivation(reader: Reader, name: string, value: WordValue): string | undefined {
  const formula = activationOf(reader.formulas, value.word);
  if (formula !== null) return plainWord(reader, value) && formula;
  reader.report(errors.unknownWord(value.span, name, value.word, activationWords(reader.formulas)));
}

function readFormula(reader: Reader, name: string, kind: 'score' | 'mask', value: WordValue): string | undefined {
  const known = reader.formulas.namesOf(kind);
  if (known.includes(value.word)) return plainWord(reader, value);
  if (known.length > 0) reader.report(errors.unknownWord(value.span, name, value.word, known));
  else reader.report(unknownFormula(value.span, kind, value.word));
}

function readNorm(reader: Reader, name: string, value: WordValue): Norm | null | undefined {
  const words = normWords(reader.formulas);
  if (words.includes(value.word)) return namedNorm(reader, value.word, written(value));
  reader.report(errors.unknownWord(value.span, name, value.word, words));
}

function namedNorm(reader: Reader, word: string, constants: Written): Norm | null {
  const table = word === 'none' ? {} : normTable(reader.formulas.get(word)!);
  const settings = readProperties(reader, table, word, constants);
  if (word === 'none') return null;
  const values = Object.entries(settings).map(([name, setting]) => [name, setting.value as number]);
  return { name: word, constants: Object.fromEntries(values) };
}

type Choices = Readonly<Record<string, PropertyTable>>;

function readChoice(reader: Reader, name: string, choices: Choices, value: WordValue) {
  const { word, span } = value;
  const table = Object.hasOwn(choices, word) ? choices[word] : undefined;
  if (table === undefined) reader.report(errors.unknownWord(span, name, word, Object.keys(choices)));
  else return { word, settings: readProperties(reader, table, word, written(value)) };
}

const written = ({ properties, span }: WordValue): Written => ({ properties: properties ?? [], span });

/** A written value as a message calls it. */
function describe(value: PropertyValue): string {
  switch (value.kind) {
    case 'number':
      return String(value.value);
    case 'boolean':
      return String(value.value);
    case 'string':
      return 'a text';
    case 'word':
      return `\`${value.word}\``;
    case 'arithmetic':
      return 'a number that is worked out';
    case 'group':
      return 'properties in braces';
    case 'list':
      return 'a list';
  }
}
