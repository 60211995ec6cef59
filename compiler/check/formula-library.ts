// Formulas by name. Each is parsed when it is first asked for: a model uses a few of the standard library's.
import type { FormulaDefinition } from '../syntax/syntax.ts';
import { callsIn } from './formula.ts';

export interface FormulaEntry {
  readonly kind: FormulaDefinition['kind'];
  /** The formula, parsed at the first call. */
  readonly read: () => FormulaDefinition;
}

export class FormulaLibrary implements ReadonlyMap<string, FormulaDefinition> {
  readonly #entries: ReadonlyMap<string, FormulaEntry>;

  constructor(entries: ReadonlyMap<string, FormulaEntry>) {
    this.#entries = entries;
  }

  /** This library and a file's own formulas, whose names must not be among its own. */
  with(formulas: readonly FormulaDefinition[]): FormulaLibrary {
    const own = formulas.map(formula => [formula.name, { kind: formula.kind, read: () => formula }] as const);
    return new FormulaLibrary(new Map([...this.#entries, ...own]));
  }

  get(name: string): FormulaDefinition | undefined {
    return this.#entries.get(name)?.read();
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** The names of the formulas of one kind. */
  namesOf(kind: FormulaDefinition['kind']): string[] {
    return [...this.#entries].flatMap(([name, entry]) => (entry.kind === kind ? [name] : []));
  }

  /** The formulas of these names and the functions that they call, directly or through others. */
  reachedFrom(names: Iterable<string>): Set<FormulaDefinition> {
    const reached = new Set<FormulaDefinition>();
    const waiting = [...names];
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      const formula = this.get(name);
      if (!formula || reached.has(formula)) continue;
      reached.add(formula);
      for (const { callee } of callsIn(formula.body))
        if (this.#entries.get(callee)?.kind === 'function') waiting.push(callee);
    }
    return reached;
  }

  get size(): number {
    return this.#entries.size;
  }

  keys() {
    return this.#entries.keys();
  }

  entries() {
    return this.#all().entries();
  }

  values() {
    return this.#all().values();
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  forEach(visit: (formula: FormulaDefinition, name: string, library: FormulaLibrary) => void): void {
    for (const [name, formula] of this.entries()) visit(formula, name, this);
  }

  #all(): ReadonlyMap<string, FormulaDefinition> {
    return new Map([...this.keys()].map(name => [name, this.get(name)!]));
  }
}
