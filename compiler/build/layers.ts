// What blocks, embedding and head are made of: linear layers, norms and activations.
import type { Norm } from '../check/model.ts';
import { type Dimension, hasDimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { multiplyMatrices } from '../ops/contract.ts';
import { plus } from '../ops/map.ts';
import { buildFormula, learnedNames } from './formula.ts';
import { zeros } from './parameters.ts';
import type { Site } from './site.ts';

export interface LinearOptions {
  readonly bias: boolean;
  /** True for a projection into the residual stream. */
  readonly residual?: boolean;
  /** True for float32 operands whatever the program's products multiply. */
  readonly exact?: boolean;
  /** False where each row is somebody's own: a router's expert, a head's token. */
  readonly isMap?: boolean;
}

/** x Wᵀ + b. The dimensions of x that are not in `outer` and lead it are kept. */
export function linear(
  site: Site,
  name: string,
  x: Node,
  inner: readonly Dimension[],
  outer: readonly Dimension[],
  { bias, residual = false, exact = false, isMap = true }: LinearOptions,
): Node {
  const deviation = residual ? site.deviation.residual : site.deviation.inner;
  const weight = site.parameters.matrix(`${name}.weight`, outer, inner, deviation, isMap);
  const kept = x.dimensions.filter(dim => !hasDimension(inner, dim.name));
  const product = multiplyMatrices(site.builder, x, weight, [...kept, ...outer], exact);
  if (!bias) return product;
  return plus(site.builder, product, site.parameters.vector(`${name}.bias`, outer, zeros));
}

/** A norm of the language over some dimensions; x itself where there is none. */
export function normalise(site: Site, name: string, x: Node, norm: Norm | null, over: readonly Dimension[]): Node {
  if (norm === null) return x;
  const formula = site.formula(norm.name);
  // Declared in the formula's order, so that files list weight before bias.
  const starts = new Map(formula.constants.filter(c => c.learned).map(c => [c.name, c.value]));
  // weight and bias have a value for each element; any other trained parameter is one number.
  const learned = (parameter: string) => {
    const isVector = parameter === 'weight' || parameter === 'bias';
    const value = starts.get(parameter) ?? (parameter === 'bias' ? 0 : 1);
    return site.parameters.vector(`${name}.${parameter}`, isVector ? over : [], { kind: 'cycle', values: [value] });
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

/** A formula of the language over some dimensions, or none, that trains nothing. */
export function applyFormula(site: Site, name: string, args: readonly Node[], over: readonly Dimension[] = []): Node {
  return buildFormula(site.formula(name), args, {
    builder: site.builder,
    library: site.library,
    over,
    constants: {},
    learned: parameter => {
      throw new Error(`the formula ${name} reads ${parameter}, which is not defined`);
    },
  });
}
