// The standard library: the activations, norms and losses that mal/std/*.mal define, and the names by which files ask for
// them. The compiler itself knows none of their formulas.
import { type Diagnostic, formatDiagnostic, SourceError } from '../diagnostic.ts';
import { readPackageFile } from '../package-files.ts';
import { outline } from '../syntax/outline.ts';
import { parse, parseFormula } from '../syntax/parse.ts';
import type { FormulaDefinition } from '../syntax/syntax.ts';
import { checkFormula } from './formula.ts';
import { type FormulaEntry, FormulaLibrary } from './formula-library.ts';
import type { Model } from './model.ts';
import type { PropertyTable } from './properties.ts';

export const standardFiles = ['mal/std/activations.mal', 'mal/std/norms.mal', 'mal/std/losses.mal'];

let library: FormulaLibrary | null = null;

/** Every formula of the standard library by name. */
export function standardLibrary(): FormulaLibrary {
  library ??= new FormulaLibrary(new Map(standardFiles.flatMap(entriesOf)));
  return library;
}

function entriesOf(file: string): [string, FormulaEntry][] {
  const text = readPackageFile(file);
  return outline(text, file).map(section => {
    const [kind, name] = section.tokens.map(token => token.text) as [FormulaDefinition['kind'], string];
    let formula: FormulaDefinition | null = null;
    const read = () => {
      formula ??= withoutFault(parseFormula(text, file, section), new Map([[file, text]]));
      return formula;
    };
    return [name, { kind, read }];
  });
}

function withoutFault(parsed: FormulaDefinition | Diagnostic, sources: ReadonlyMap<string, string>): FormulaDefinition {
  if ('body' in parsed) return parsed;
  throw new Error(formatDiagnostic(parsed, sources, { color: false }));
}

/**
 * The standard library and a model's own formulas.
 *
 * @throws SourceError where the model's formulas are no right MAL, as those of a config.json that was changed by hand.
 */
export function formulaLibrary({ name, formulas }: Pick<Model, 'name' | 'formulas'>): FormulaLibrary {
  if (formulas.length === 0) return standardLibrary();
  const file = `formulas of ${name}`;
  const text = formulas.join('\n');
  const { syntax, diagnostics } = parse(text, file);
  const own = syntax.definitions.filter(isFormula).filter(formula => !standardLibrary().has(formula.name));
  const all = standardLibrary().with(own);
  diagnostics.push(...own.flatMap(formula => checkFormula(formula, all)));
  if (diagnostics.length > 0) throw new SourceError(diagnostics, new Map([[file, text]]));
  return all;
}

export const isFormula = (definition: { readonly kind: string }): definition is FormulaDefinition =>
  'body' in definition;

/** Names in the field for standard activations. Whether a gate multiplies the result is `gate`'s to say. */
export const activationAliases: ReadonlyMap<string, string> = new Map([
  ['swiglu', 'silu'],
  ['geglu', 'gelu'],
  ['reglu', 'relu'],
  ['glu', 'sigmoid'],
  ['gelu_new', 'gelu_tanh'],
]);

/** The words that `activation:` takes. */
export const activationWords = (formulas: FormulaLibrary): string[] => [
  ...activationAliases.keys(),
  ...formulas.namesOf('activation'),
];

/** The name of the formula that a word after `activation:` means, or null. */
export function activationOf(formulas: FormulaLibrary, word: string): string | null {
  const name = activationAliases.get(word) ?? word;
  return formulas.namesOf('activation').includes(name) ? name : null;
}

/** The words that `norm:` takes. */
export const normWords = (formulas: FormulaLibrary): string[] => [...formulas.namesOf('norm'), 'none'];

/** The properties that a norm takes: the constants of its formula that are not trained. */
export function normTable(norm: FormulaDefinition): PropertyTable {
  const given = norm.constants.filter(constant => !constant.learned);
  return Object.fromEntries(
    given.map(({ name, value }) => [
      name,
      name === 'eps'
        ? { type: { kind: 'number', range: aboveZero }, aliases: ['norm_eps'], default: value }
        : { type: { kind: 'number', range: anyNumber }, default: value },
    ]),
  );
}

const aboveZero = { text: 'above 0', accepts: (value: number) => value > 0 };
const anyNumber = { text: 'a number', accepts: () => true };
