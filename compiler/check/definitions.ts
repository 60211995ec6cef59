// The definitions of a file and of those that it imports, by kind and name: each read once, found by those that use it, and
// noted as used.
import type { Diagnostic } from '../diagnostic.ts';
import * as errors from '../errors.ts';
import type { Definition, FormulaDefinition, GroupDefinition, Property, SyntaxFile } from '../syntax/syntax.ts';
import { Constants } from './constants.ts';
import { extended } from './extend.ts';
import { checkFormula } from './formula.ts';
import type { FormulaLibrary } from './formula-library.ts';
import { type DefinitionKind, type Read, tables, type Use, withoutMemory } from './properties.ts';
import { type Reader, readDefinition } from './read-properties.ts';
import { activationAliases, isFormula, standardLibrary } from './standard-library.ts';

/** One `extends` another, which extends another: the reading recurses over them. */
const longestChain = 100;

/** A definition as it was read, with the properties that it has of itself and of what it extends. */
interface Entry {
  readonly read: Read<DefinitionKind>;
  readonly properties: readonly Property[];
  readonly base: string | null;
}

export class Definitions {
  /** The standard formulas and the file's own. */
  readonly formulas: FormulaLibrary;
  readonly #constants: Constants;
  readonly #groups: ReadonlyMap<string, GroupDefinition>;
  readonly #entries = new Map<string, Entry | null>();
  readonly #used = new Set<string>();
  readonly #faultyFormulas = new Set<string>();
  readonly #ownFormulas = new Set<FormulaDefinition>();
  readonly #report: (diagnostic: Diagnostic) => void;
  readonly #reader: Reader;

  /**
   * Reads the definitions of files; the faults of each by itself are reported here, those of their use when they are used.
   */
  constructor(files: readonly SyntaxFile[], report: (diagnostic: Diagnostic) => void) {
    this.#report = report;
    const distinct = distinctDefinitions(files, report);
    this.#constants = new Constants(
      distinct.filter(definition => definition.kind === 'let'),
      report,
    );
    this.formulas = this.#readFormulas(distinct.filter(isFormula));
    this.#reader = { report, constants: this.#constants, formulas: this.formulas };
    const groups = distinct.filter(definition => 'properties' in definition);
    this.#groups = new Map(groups.map(definition => [key(definition.kind, definition.name), definition]));
    for (const definition of groups) {
      const { kind, span } = definition;
      if (isDefinitionKind(kind)) this.#readGroup(definition, kind, []);
      else report(errors.unsupported({ ...span, end: span.start + kind.length }, kind, withoutMemory));
    }
    this.#checkReferences();
  }

  #readFormulas(written: readonly FormulaDefinition[]): FormulaLibrary {
    const standard = standardLibrary();
    const own: FormulaDefinition[] = [];
    for (const formula of written) {
      const { kind, name, nameSpan } = formula;
      const taken = standard.get(activationAliases.get(name) ?? name);
      if (taken) this.#report(errors.standardName(nameSpan, kind, name, taken));
      else own.push(this.#constants.substituted(formula));
    }
    const formulas = standard.with(own);
    for (const formula of own) {
      this.#ownFormulas.add(formula);
      const faults = checkFormula(formula, formulas);
      if (faults.length > 0) this.#faultyFormulas.add(formula.name);
      for (const fault of faults) this.#report(fault);
    }
    return formulas;
  }

  /** Reads a definition after what it extends. `open` are the keys of those that extend it. */
  #readGroup(definition: GroupDefinition, kind: DefinitionKind, open: readonly string[]): Entry | null {
    const { name, nameSpan, base } = definition;
    const own = key(kind, name);
    const known = this.#entries.get(own);
    if (known !== undefined) return known;
    const inherited = base && this.#readBase(kind, base, [...open, own]);
    // What is wrong with the base has been reported there.
    const sound = base === null || inherited?.read.sound === true;
    const properties =
      inherited && sound ? extended(kind, inherited.properties, definition.properties) : definition.properties;
    const read = readDefinition(this.#reader, kind, name, { properties, span: nameSpan });
    const entry = { read: { ...read, sound: read.sound && sound }, properties, base: base && key(kind, base.name) };
    this.#entries.set(own, entry);
    return entry;
  }

  #readBase(kind: DefinitionKind, base: NonNullable<GroupDefinition['base']>, open: readonly string[]): Entry | null {
    const wanted = key(kind, base.name);
    const found = this.#groups.get(wanted);
    const cycle = open.indexOf(wanted);
    if (cycle >= 0) {
      const names = [...open.slice(cycle), wanted].map(link => link.slice(kind.length + 1));
      this.#report(errors.extendsCycle(base.span, names));
    } else if (open.length >= longestChain) this.#report(errors.chainTooLong(base.span, 'extends', longestChain));
    else if (found) return this.#readGroup(found, kind, open);
    else this.#reportUnknown(kind, base);
    return null;
  }

  /** Reports what the blocks name that does not exist, whether a model uses them or not. */
  #checkReferences(): void {
    for (const { settings } of this.all('block')) {
      const { attention, ssm, ffn } = settings;
      this.#lookUp('attention', attention.value);
      if (ssm.value) this.#lookUp('ssm', ssm.value);
      if (!this.isNone('ffn', ffn.value)) this.#lookUp('ffn', ffn.value);
    }
  }

  /** The definitions of a kind, those that a definition extends before it. */
  all<Kind extends DefinitionKind>(kind: Kind): Read<Kind>[] {
    const reads = [...this.#entries.values()].flatMap(entry => (entry ? [entry.read] : []));
    return reads.filter(read => read.kind === kind) as Read<DefinitionKind>[] as Read<Kind>[];
  }

  /** The definition that is used, noted as such. One that does not exist is reported where it is named: null. */
  find<Kind extends DefinitionKind>(kind: Kind, use: Use<Kind>): Read<Kind> | null {
    if (use.name !== null) this.useDefinition(kind, use.name);
    return this.#lookUp(kind, use);
  }

  /** Whether a use is the word `none`. A definition of that name comes first. */
  isNone(kind: DefinitionKind, { name }: Use<DefinitionKind>): boolean {
    return name === 'none' && !this.#entries.has(key(kind, name));
  }

  /** Notes a definition as used, and with it those that it extends. */
  useDefinition(kind: DefinitionKind, name: string): void {
    let used: string | null = key(kind, name);
    while (used !== null && !this.#used.has(used)) {
      this.#used.add(used);
      used = this.#entries.get(used)?.base ?? null;
    }
  }

  #lookUp<Kind extends DefinitionKind>(kind: Kind, use: Use<Kind>): Read<Kind> | null {
    if (use.name === null) return use.definition;
    const found = this.#entries.get(key(kind, use.name));
    if (found) return found.read as Read<DefinitionKind> as Read<Kind>;
    this.#reportUnknown(kind, use);
    return null;
  }

  #reportUnknown(kind: DefinitionKind, { name, span }: NonNullable<GroupDefinition['base']>): void {
    const groups = [...this.#groups.values()];
    const names = groups.filter(group => group.kind === kind).map(group => group.name);
    const other = groups.find(group => group.name === name && isDefinitionKind(group.kind));
    const elsewhere = other ? { kind: other.kind, span: other.nameSpan } : null;
    this.#report(errors.unknownDefinition(span, kind, name, names, elsewhere));
  }

  /**
   * The file's own formulas among those of these names and the functions that they call, in the order of the text, noted as
   * used; null where one is at fault.
   */
  useFormulas(names: Iterable<string>): FormulaDefinition[] | null {
    const reached = this.formulas.reachedFrom(names);
    const own = [...this.#ownFormulas].filter(formula => reached.has(formula));
    for (const formula of own) this.#used.add(key(formula.kind, formula.name));
    return own.some(formula => this.#faultyFormulas.has(formula.name)) ? null : own;
  }

  isUsed({ kind, name }: Definition): boolean {
    return kind === 'let' ? this.#constants.isUsed(name) : this.#used.has(key(kind, name));
  }
}

/** The first definition of each name; others are reported. Formulas of all kinds share their names, for they call each other. */
function distinctDefinitions(files: readonly SyntaxFile[], report: (diagnostic: Diagnostic) => void): Definition[] {
  const first = new Map<string, Definition>();
  for (const definition of files.flatMap(file => file.definitions)) {
    const { kind, name, nameSpan } = definition;
    const place = key(isFormula(definition) ? 'formula' : kind, name);
    const earlier = first.get(place);
    if (earlier) report(errors.definedTwice(kind, name, nameSpan, earlier.nameSpan));
    else first.set(place, definition);
  }
  return [...first.values()];
}

const key = (kind: string, name: string) => `${kind} ${name}`;

const isDefinitionKind = (kind: GroupDefinition['kind']): kind is DefinitionKind => kind in tables;
