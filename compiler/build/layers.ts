// What blocks, embedding and head are made of: linear layers, norms and activations.
import type { Norm } from '../check/model.ts';
import type { Builder } from '../graph/builder.ts';
import { type Dimension, hasDimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { multiplyMatrices } from '../ops/contract.ts';
import { mapWide } from '../ops/map.ts';
import { add, operand } from '../scalar/expression.ts';
import type { FormulaDefinition } from '../syntax/syntax.ts';
import { buildFormula, learnedNames } from './formula.ts';
import type { Parameters } from './parameters.ts';

export type Library = ReadonlyMap<string, FormulaDefinition>;

/** What every layer needs: where to build, what is trained and how it starts, the formulas that MAL defines. */
export interface Site {
  readonly builder: Builder;
  readonly parameters: Parameters;
  readonly library: Library;
  /** Standard deviation of initial weights, and of those that feed the residual stream. */
  readonly deviation: { readonly inner: number; readonly residual: number };
}

export interface LinearOptions {
  readonly bias: boolean;
  /** True for a projection into the residual stream. */
  readonly residual?: boolean;
}

/** x Wᵀ + b. The dimensions of x that are not in `outer` and lead it are kept. */
export function linear(
  site: Site,
  name: string,
  x: Node,
  inner: readonly Dimension[],
  outer: readonly Dimension[],
  { bias, residual = false }: LinearOptions,
): Node {
  const deviation = residual ? site.deviation.residual : site.deviation.inner;
  const weight = site.parameters.matrix(`${name}.weight`, outer, inner, deviation);
  const kept = x.dimensions.filter(dim => !hasDimension(inner, dim.name));
  const product = multiplyMatrices(site.builder, x, weight, [...kept, ...outer]);
  if (!bias) return product;
  return mapWide(site.builder, add(operand(0), operand(1)), [
    product,
    site.parameters.vector(`${name}.bias`, outer, 0),
  ]);
}

/** A norm of the language over some dimensions; x itself where there is none. */
export function normalise(site: Site, name: string, x: Node, norm: Norm | null, over: readonly Dimension[]): Node {
  if (norm === null) return x;
  const formula = formulaOf(site.library, norm.name);
  // Declared in the formula's order, so that files list weight before bias.
  const starts = new Map(formula.constants.filter(c => c.learned).map(c => [c.name, c.value]));
  // weight and bias have a value for each element; any other trained parameter is one number.
  const learned = (parameter: string) => {
    const isVector = parameter === 'weight' || parameter === 'bias';
    const start = starts.get(parameter) ?? (parameter === 'bias' ? 0 : 1);
    return site.parameters.vector(`${name}.${parameter}`, isVector ? over : [], start);
  };
  for (const parameter of learnedNames(formula)) learned(parameter);
  return buildFormula(formula, [x], {
    builder: site.builder,
    library: site.library,
    over,
    constants: norm.constants,
    learned,
  });
}

/** An activation of the language, element by element. */
export function activate(site: Site, name: string, x: Node): Node {
  return buildFormula(formulaOf(site.library, name), [x], {
    builder: site.builder,
    library: site.library,
    over: [],
    constants: {},
    learned: parameter => {
      throw new Error(`the activation ${name} reads ${parameter}, which is not defined`);
    },
  });
}

export function formulaOf(library: Library, name: string): FormulaDefinition {
  const formula = library.get(name);
  if (!formula) throw new Error(`the formula ${name} is not defined`);
  return formula;
}
