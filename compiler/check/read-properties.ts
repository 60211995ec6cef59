// Reads properties by their table: names and aliases, types, ranges, defaults, each property once. Every fault is reported
// at its place, and the reading goes on with the default, so that one run shows them all.

import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { Property, PropertyValue, Span } from '../syntax/syntax.ts';
import type { Norm } from './model.ts';
import {
  type DefinitionKind,
  type PropertyRule,
  type PropertyTable,
  type PropertyType,
  type Read,
  type Setting,
  type Settings,
  tables,
} from './properties.ts';
import { activationWords, normWords } from './standard-library.ts';

/** What reading needs to know of the file and tells about it. */
export interface Reader {
  /** The definition of the file's own formula of a kind and name, if it has one. */
  fileFormula(kind: 'activation' | 'norm', name: string): Span | null;
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
  const settings = readProperties(counting.reader, tables[kind] as PropertyTable, owner, written?.properties ?? []);
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

/** Reads properties by a table; `owner` is what messages call their definition. */
export function readProperties<Table extends PropertyTable>(
  reader: Reader,
  table: Table,
  owner: string,
  properties: readonly Property[],
): Settings<Table> {
  const names = Object.entries(table).flatMap(([name, rule]) =>
    [name, ...(rule.aliases ?? [])].map(word => [word, name] as const),
  );
  const canonical = new Map(names);
  const written = new Map<string, Property>();
  for (const property of properties) {
    const name = canonical.get(property.name);
    const first = name && written.get(name);
    if (name === undefined)
      reader.report(
        errors.unknownProperty(property.nameSpan, owner, property.name, [...canonical.keys()], Object.keys(table)),
      );
    else if (first) reader.report(errors.propertyTwice(property.name, property.nameSpan, first.nameSpan, first.name));
    else written.set(name, property);
  }
  const settings = Object.entries(table).map(([name, rule]) => [
    name,
    readSetting(reader, rule, written.get(name) ?? null),
  ]);
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
  if (type.kind === 'group') return readProperties(reader, type.table, '', []);
  if (type.kind === 'definition') return { name: null, definition: readDefinition(reader, type.of, null, null) };
  if (rule.default === undefined) return null;
  const word = String(rule.default);
  if (type.kind === 'activation') return activationWords().get(word);
  if (type.kind === 'choice') return chosen(reader, type.choices, word, []);
  if (type.kind === 'norm') return normOf(chosen(reader, normWords(), word, []));
  return rule.default;
}

/** The value of a property that is written, or undefined where it is at fault, which has then been reported. */
function readValue(reader: Reader, type: PropertyType, { name, nameSpan, value }: Property): unknown {
  const fault = (diagnostic: Diagnostic) => reader.report(diagnostic);
  const wrong = (expected: string) => fault(errors.wrongType(value.span, name, expected, describe(value)));
  switch (type.kind) {
    case 'integer':
      if (value.kind !== 'number') return wrong('a whole number');
      if (!value.integer && Number.isInteger(value.value))
        return fault(errors.notInDigits(value.span, name, value.value));
      if (!value.integer) return wrong('a whole number');
      if (value.value < type.minimum) return outOfRange(reader, name, `at least ${type.minimum}`, value);
      if (value.value > type.maximum) return outOfRange(reader, name, `at most ${type.maximum}`, value);
      return value.value;
    case 'number':
      if (value.kind !== 'number') return wrong('a number');
      if (!Number.isFinite(value.value)) return fault(errors.numberTooLarge(value.span));
      return type.range.accepts(value.value) ? value.value : outOfRange(reader, name, type.range.text, value);
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
      return readProperties(reader, type.table, name, value.properties);
    case 'definition':
      if (value.kind === 'group') return { name: null, definition: readDefinition(reader, type.of, null, value) };
      if (value.kind !== 'word') return wrong('the name of a definition, or properties in braces');
      if (value.properties) return fault(errors.referenceWithProperties(value.span, type.of, value.word));
      return { name: value.word, span: value.span };
    case 'list':
      return value.kind === 'list' ? value.words : wrong('a list such as [one, other]');
    case 'activation':
      return value.kind === 'word' ? readActivation(reader, name, value) : wrong('a word such as gelu');
    case 'norm': {
      if (value.kind !== 'word') return wrong('a word such as rmsnorm');
      if (refusedAsOwn(reader, 'norm', value, Object.keys(normWords()))) return undefined;
      const choice = readChoice(reader, name, normWords(), value);
      return choice && normOf(choice);
    }
    case 'unsupported':
      return fault(errors.unsupported(nameSpan, name));
  }
}

type WordValue = Extract<PropertyValue, { kind: 'word' }>;

function outOfRange(reader: Reader, name: string, range: string, value: { value: number; span: Span }): undefined {
  reader.report(errors.outOfRange(value.span, name, range, String(value.value)));
}

function plainWord(reader: Reader, value: WordValue): string | undefined {
  if (value.properties === null) return value.word;
  reader.report(errors.wordTakesNoProperties(value.span, value.word));
}

function readActivation(reader: Reader, name: string, value: WordValue): string | undefined {
  const words = activationWords();
  if (refusedAsOwn(reader, 'activation', value, [...words.keys()])) return undefined;
  if (words.has(value.word)) return plainWord(reader, value) && words.get(value.word);
  reader.report(errors.unknownWord(value.span, name, value.word, [...words.keys()]));
}

/** Reports a use of a formula that the file itself defines. */
function refusedAsOwn(
  reader: Reader,
  kind: 'activation' | 'norm',
  value: WordValue,
  known: readonly string[],
): boolean {
  const defined = reader.fileFormula(kind, value.word);
  if (defined) reader.report(errors.fileFormula(value.span, kind, value.word, defined, known));
  return defined !== null;
}

type Choices = Readonly<Record<string, PropertyTable | null>>;

interface Chosen {
  readonly word: string;
  readonly settings: Settings<PropertyTable>;
}

function readChoice(reader: Reader, name: string, choices: Choices, value: WordValue): Chosen | undefined {
  const { word, properties, span } = value;
  const supported = Object.keys(choices).filter(choice => choices[choice] !== null);
  if (!Object.hasOwn(choices, word)) reader.report(errors.unknownWord(span, name, word, supported));
  else if (choices[word] === null) reader.report(errors.unsupportedWord(span, name, word, supported));
  else return chosen(reader, choices, word, properties ?? []);
}

function chosen(reader: Reader, choices: Choices, word: string, properties: readonly Property[]): Chosen {
  return { word, settings: readProperties(reader, choices[word]!, word, properties) };
}

function normOf(choice: Chosen): Norm | null {
  if (choice.word === 'none') return null;
  const constants = Object.entries(choice.settings).map(([name, setting]) => [name, setting.value as number]);
  return { name: choice.word, constants: Object.fromEntries(constants) };
}

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
    case 'group':
      return 'properties in braces';
    case 'list':
      return 'a list';
  }
}
