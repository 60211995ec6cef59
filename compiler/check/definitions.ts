// The definitions of a file by kind and name: each read once, found by those that use it, and noted as used.
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { Definition, FormulaDefinition, GroupDefinition, SyntaxFile } from '../syntax/syntax.ts';
import { checkFormulas } from './formula.ts';
import { type DefinitionKind, type Read, tables, type Use } from './properties.ts';
import { type Reader, readDefinition } from './read-properties.ts';
import { standardLibrary } from './standard-library.ts';

export class Definitions {
  readonly #read = new Map<string, Read<DefinitionKind>>();
  readonly #used = new Set<string>();
  readonly #report: (diagnostic: Diagnostic) => void;

  /** Reads a file's definitions; the faults of each by itself are reported here, those of their use when they are used. */
  constructor(syntax: SyntaxFile, report: (diagnostic: Diagnostic) => void) {
    this.#report = report;
    const first = new Map<string, Definition>();
    for (const definition of syntax.definitions) {
      const earlier = first.get(key(definition.kind, definition.name));
      if (earlier) report(errors.definedTwice(definition.kind, definition.name, definition.nameSpan, earlier.nameSpan));
      else first.set(key(definition.kind, definition.name), definition);
    }
    const distinct = [...first.values()];
    for (const diagnostic of checkFormulas(distinct.filter(isFormula), standardLibrary())) report(diagnostic);
    const reader: Reader = { report, fileFormula: (kind, name) => first.get(key(kind, name))?.nameSpan ?? null };
    for (const definition of distinct) {
      if (isFormula(definition)) continue;
      const { kind, name, nameSpan, properties } = definition;
      if (isDefinitionKind(kind))
        this.#read.set(key(kind, name), readDefinition(reader, kind, name, { properties, span: nameSpan }));
      else report(errors.unsupported({ ...definition.span, end: definition.span.start + kind.length }, kind));
    }
    this.#checkReferences();
  }

  /** Reports what the blocks name that does not exist, whether a model uses them or not. */
  #checkReferences(): void {
    for (const { settings } of this.all('block')) {
      this.#lookUp('attention', settings.attention.value);
      this.#lookUp('ffn', settings.ffn.value);
    }
  }

  /** The definitions of a kind, in the order of the text. */
  all<Kind extends DefinitionKind>(kind: Kind): Read<Kind>[] {
    return [...this.#read.values()].filter(
      definition => definition.kind === kind,
    ) as Read<DefinitionKind>[] as Read<Kind>[];
  }

  /** The definition that is used, noted as such. One that does not exist is reported where it is named: null. */
  find<Kind extends DefinitionKind>(kind: Kind, use: Use<Kind>): Read<Kind> | null {
    if (use.name !== null) this.#used.add(key(kind, use.name));
    return this.#lookUp(kind, use);
  }

  #lookUp<Kind extends DefinitionKind>(kind: Kind, use: Use<Kind>): Read<Kind> | null {
    if (use.name === null) return use.definition;
    const found = this.#read.get(key(kind, use.name));
    if (found) return found as Read<DefinitionKind> as Read<Kind>;
    const names = this.all(kind).map(definition => definition.name!);
    const other = [...this.#read.values()].find(definition => definition.name === use.name);
    const elsewhere = other?.span ? { kind: other.kind, span: other.span } : null;
    this.#report(errors.unknownDefinition(use.span, kind, use.name, names, elsewhere));
    return null;
  }

  isUsed(kind: string, name: string): boolean {
    return this.#used.has(key(kind, name));
  }
}

const key = (kind: string, name: string) => `${kind} ${name}`;

export const isFormula = (definition: Definition): definition is FormulaDefinition => 'body' in definition;

const isDefinitionKind = (kind: GroupDefinition['kind']): kind is DefinitionKind => kind in tables;
