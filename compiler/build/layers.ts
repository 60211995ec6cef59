// What blocks, embedding and head are made of: linear layers, norms, activations and rotary positions.
import type { Norm } from '../check/model.ts';
import type { Builder } from '../graph/builder.ts';
import { type Dimension, hasDimension, time } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { multiplyMatrices } from '../ops/contract.ts';
import { mapOver, mapWide } from '../ops/map.ts';
import { partners } from '../ops/pair.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  divide,
  multiply,
  negate,
  operand,
  type Scalar,
  select,
} from '../scalar/expression.ts';
import type { FormulaDefinition } from '../syntax/syntax.ts';
import { buildFormula, learnedNames } from './formula.ts';
import { initialDeviation, type Parameters } from './parameters.ts';

export type Library = ReadonlyMap<string, FormulaDefinition>;

/** What every layer needs: where to build, what is trained, the formulas that MAL defines. */
export interface Site {
  readonly builder: Builder;
  readonly parameters: Parameters;
  readonly library: Library;
}

export interface LinearOptions {
  readonly bias: boolean;
  readonly deviation?: number;
}

/** x Wᵀ + b. The dimensions of x that are not in `outer` and lead it are kept. */
export function linear(
  site: Site,
  name: string,
  x: Node,
  inner: readonly Dimension[],
  outer: readonly Dimension[],
  { bias, deviation = initialDeviation }: LinearOptions,
): Node {
  const weight = site.parameters.matrix(`${name}.weight`, outer, inner, deviation);
  const kept = x.dimensions.filter(dim => !hasDimension(inner, dim.name));
  const product = multiplyMatrices(site.builder, x, weight, [...kept, ...outer]);
  if (!bias) return product;
  return mapWide(site.builder, add(operand(0), operand(1)), [
    product,
    site.parameters.vector(`${name}.bias`, outer, 0),
  ]);
}

/** A norm of the language over one dimension; x itself where there is none. */
export function normalise(site: Site, name: string, x: Node, norm: Norm | null, over: Dimension): Node {
  if (norm === null) return x;
  const formula = formulaOf(site.library, norm.name);
  // Declared in the formula's order, so that files list weight before bias.
  const starts = new Map(formula.constants.filter(c => c.learned).map(c => [c.name, c.value]));
  const learned = (parameter: string) =>
    site.parameters.vector(`${name}.${parameter}`, [over], starts.get(parameter) ?? (parameter === 'bias' ? 0 : 1));
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
    over: null,
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

export interface RotaryTables {
  /** cos and signed sin of each position's angles: [time, head_dim]. */
  readonly cos: Node;
  readonly sin: Node;
}

/**
 * Tables of rotary position embedding (RoFormer, Su et al. 2021), in the half-split order of Hugging Face checkpoints:
 * element i turns with element i + head_dim / 2 by the angle position * theta^(-2 i / head_dim).
 * @param start position of the first token of the call, an integer scalar
 */
export function rotaryTables(
  builder: Builder,
  start: Node,
  headDim: Dimension,
  theta: number,
  scaling: number | null,
): RotaryTables {
  const size = headDim.size!;
  const half = constant(size / 2);
  const element = coordinate(headDim.name);
  const inFirstHalf = apply('less', element, half);
  const pairIndex = select(inFirstHalf, element, apply('subtract', element, half));
  const frequency = apply('exp', multiply(pairIndex, constant((-2 * Math.log(theta)) / size)));
  const position = divide(add(operand(0), coordinate(time.name)), constant(scaling ?? 1));
  const table = (label: string, expression: Scalar, of: Node) =>
    builder.within(label, '', () => mapOver(builder, [time, headDim], expression, [of]));
  const angle = table('rotary_angle', multiply(position, frequency), start);
  const sine = apply('sin', operand(0));
  return {
    cos: table('rotary_cos', apply('cos', operand(0)), angle),
    // The first half subtracts its partner, the second adds it.
    sin: table('rotary_sin', select(inFirstHalf, negate(sine), sine), angle),
  };
}

/** Turns each pair of x's head elements by its position's angle. */
export function rotate(builder: Builder, x: Node, headDim: Dimension, { cos, sin }: RotaryTables): Node {
  const partner = partners(builder, x, headDim.name, headDim.size!);
  const turned = add(multiply(operand(0), operand(1)), multiply(operand(2), operand(3)));
  return mapWide(builder, turned, [x, cos, partner, sin]);
}
