// The standard library: the activations, norms and losses that mal/std/*.mal define, and the names by which files ask for
// them. The compiler itself knows none of their formulas.
import { formatDiagnostic } from '../diagnostic.ts';
import { readPackageFile } from '../package-files.ts';
import { parse } from '../syntax/parse.ts';
import type { FormulaDefinition } from '../syntax/syntax.ts';
import { checkFormulas } from './formula.ts';
import type { PropertyTable } from './properties.ts';

const files = ['mal/std/activations.mal', 'mal/std/norms.mal', 'mal/std/losses.mal'];

let library: ReadonlyMap<string, FormulaDefinition> | null = null;

/** Every formula of the standard library by name, parsed at the first call. */
export function standardLibrary(): ReadonlyMap<string, FormulaDefinition> {
  library ??= readLibrary();
  return library;
}

function readLibrary(): ReadonlyMap<string, FormulaDefinition> {
  const sources = new Map(files.map(file => [file, readPackageFile(file)]));
  const parsed = [...sources].map(([file, text]) => parse(text, file));
  const formulas = parsed.flatMap(({ syntax }) => syntax.definitions).filter(isFormula);
  const diagnostics = [...parsed.flatMap(file => file.diagnostics), ...checkFormulas(formulas, new Map())];
  if (diagnostics.length > 0) throw new Error(formatDiagnostic(diagnostics[0]!, sources, { color: false }));
  return new Map(formulas.map(formula => [formula.name, formula]));
}

const isFormula = (definition: { readonly kind: string }): definition is FormulaDefinition => 'body' in definition;

/** Names in the field for standard activations. Whether a gate multiplies the result is `gate`'s to say. */
const activationAliases: Readonly<Record<string, string>> = {
  swiglu: 'silu',
  geglu: 'gelu',
  reglu: 'relu',
  glu: 'sigmoid',
  gelu_new: 'gelu_tanh',
};

/** Each word that `activation:` takes, with the name of the formula that it means. */
export function activationWords(): ReadonlyMap<string, string> {
  const names = namesOf('activation').map(name => [name, name] as const);
  return new Map([...Object.entries(activationAliases), ...names]);
}

/** Each word that `norm:` takes, with the properties that it takes: the formula's constants that are not trained. */
export function normWords(): Readonly<Record<string, PropertyTable>> {
  const tables = namesOf('norm').map(name => [name, constantsOf(standardLibrary().get(name)!)]);
  return { ...Object.fromEntries(tables), none: {} };
}

const namesOf = (kind: FormulaDefinition['kind']) =>
  [...standardLibrary().values()].filter(formula => formula.kind === kind).map(formula => formula.name);

function constantsOf(norm: FormulaDefinition): PropertyTable {
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
