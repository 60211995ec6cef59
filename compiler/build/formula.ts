// Turns a formula of MAL (an activation, a norm, a loss) into graph: reductions become reduce nodes, and everything
// between them one map each.
import { namesIn } from '../check/formula.ts';
import type { Builder } from '../graph/builder.ts';
import { constantCount, type Dimension, hasDimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import { mapOver } from '../ops/map.ts';
import { maximum, sum } from '../ops/reduce.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  coordinatesOf,
  divide,
  multiply,
  negate,
  operand,
  operandsOf,
  type Scalar,
  select,
  subtract,
} from '../scalar/expression.ts';
import { type FunctionName, functions } from '../scalar/functions.ts';
import type { FormulaDefinition, SyntaxExpression } from '../syntax/syntax.ts';

export interface FormulaContext {
  readonly builder: Builder;
  /** The dimensions that mean, sum, max and var run over (and `at`, over one); none where a formula has no reduction. */
  readonly over: readonly Dimension[];
  /** Values of the formula's constants, such as eps. */
  readonly constants: Readonly<Record<string, number>>;
  /** The trained parameter of this name: weight, bias, or one declared `learned`. */
  readonly learned: (name: string) => Node;
  /** Other formulas that it may call. */
  readonly library: ReadonlyMap<string, FormulaDefinition>;
}

/**
 * Builds the formula's value.
 * @param args one tensor for each of the formula's parameters
 */
export function buildFormula(formula: FormulaDefinition, args: readonly Node[], context: FormulaContext): Node {
  const translation = new Translation(context);
  const scope = new Map(formula.parameters.map((name, n) => [name, translation.read(args[n]!)]));
  return translation.materialise(translation.inline(formula, scope));
}

/**
 * The value of a formula that reduces nothing and trains nothing, as an expression of its arguments.
 * @param args one expression for each of the formula's parameters
 */
export function formulaScalar(
  formula: FormulaDefinition,
  args: readonly Scalar[],
  { builder, library }: Pick<FormulaContext, 'builder' | 'library'>,
): Scalar {
  const learned = (name: string) => {
    throw new Error(`the ${formula.kind} ${formula.name} reads ${name}, which is not defined`);
  };
  const translation = new Translation({ builder, library, learned, over: [], constants: {} });
  return translation.inline(formula, new Map(formula.parameters.map((name, n) => [name, args[n]!])));
}

/** The names that a formula reads besides its parameters and constants: its trained parameters. */
export function learnedNames(formula: FormulaDefinition): string[] {
  const given = new Set([
    ...formula.parameters,
    ...formula.constants.filter(constant => !constant.learned).map(constant => constant.name),
  ]);
  return [...namesIn(formula.body)].filter(name => !given.has(name));
}

const binary: Record<Extract<SyntaxExpression, { kind: 'binary' }>['operator'], (a: Scalar, b: Scalar) => Scalar> = {
  '+': add,
  '-': subtract,
  '*': multiply,
  '/': divide,
  '^': (a, b) => apply('power', a, b),
  '<': (a, b) => apply('less', a, b),
  '<=': (a, b) => apply('lessEqual', a, b),
  '>': (a, b) => apply('less', b, a),
  '>=': (a, b) => apply('lessEqual', b, a),
  '==': (a, b) => apply('equal', a, b),
  '!=': (a, b) => apply('not', apply('equal', a, b)),
  '&&': (a, b) => apply('and', a, b),
  '||': (a, b) => apply('or', a, b),
};

/** One formula on its way into the graph: scalars over a growing list of tensors. */
class Translation {
  private readonly operands: Node[] = [];
  private readonly context: FormulaContext;

  constructor(context: FormulaContext) {
    this.context = context;
  }

  /** The element of a tensor. */
  read(node: Node): Scalar {
    const known = this.operands.indexOf(node);
    return operand(known >= 0 ? known : this.operands.push(node) - 1);
  }

  inline(formula: FormulaDefinition, scope: ReadonlyMap<string, Scalar>): Scalar {
    const inner = new Map(scope);
    for (const { name, value, learned } of formula.constants)
      if (!learned) inner.set(name, constant(this.context.constants[name] ?? value));
    return this.translate(formula.body, inner);
  }

  /** A tensor of the expression's values, over all dimensions that it depends on. */
  materialise(scalar: Scalar): Node {
    return mapOver(this.context.builder, this.dimensionsOf(scalar), scalar, this.operands);
  }

  /** The widest operand's dimensions and those that others have besides: a row's value times a weight has both. */
  private dimensionsOf(scalar: Scalar): Dimension[] {
    const read = [...operandsOf(scalar)].map(index => this.operands[index]!.dimensions);
    const dims: Dimension[] = [];
    for (const dim of [...read.sort((a, b) => b.length - a.length).flat(), ...this.positionsOf(scalar)])
      if (!hasDimension(dims, dim.name)) dims.push(dim);
    return dims;
  }

  /** The reduced dimensions along which the expression reads a position. */
  private positionsOf(scalar: Scalar): Dimension[] {
    const read = coordinatesOf(scalar);
    return this.context.over.filter(dim => read.has(dim.name));
  }

  private translate(expression: SyntaxExpression, scope: ReadonlyMap<string, Scalar>): Scalar {
    switch (expression.kind) {
      case 'number':
        return constant(expression.value);
      case 'name':
        return scope.get(expression.name) ?? this.read(this.context.learned(expression.name));
      case 'unary': {
        const value = this.translate(expression.operand, scope);
        return expression.operator === '-' ? negate(value) : apply('not', value);
      }
      case 'binary':
        return binary[expression.operator](
          this.translate(expression.left, scope),
          this.translate(expression.right, scope),
        );
      case 'select':
        return select(
          this.translate(expression.condition, scope),
          this.translate(expression.whenTrue, scope),
          this.translate(expression.whenFalse, scope),
        );
      case 'call':
        return this.call(
          expression.callee,
          expression.args.map(arg => this.translate(arg, scope)),
        );
    }
  }

  private call(callee: string, args: readonly Scalar[]): Scalar {
    const [x, y] = args as [Scalar, Scalar];
    const { library } = this.context;
    switch (callee) {
      case 'sum':
        return this.total(x);
      case 'mean':
        return this.mean(x);
      case 'var': {
        const centred = subtract(x, this.mean(x));
        return this.mean(multiply(centred, centred));
      }
      case 'at': {
        const [dim, ...others] = this.reduced();
        if (others.length > 0) throw new Error('at() picks along one dimension');
        const here = apply('equal', coordinate(dim!.name), y);
        return this.total(select(here, x, constant(0)));
      }
      case 'max':
        if (args.length === 1) return this.isReducible(x) ? this.reduce(maximum, x) : x;
    }
    // A formula may bear the name of the function that it is made of: `activation tanh(x) = tanh(x)`.
    if (callee in functions) return apply(callee as FunctionName, ...args);
    const formula = library.get(callee);
    if (!formula) throw new Error(`a formula calls ${callee}, which is not defined`);
    return this.inline(formula, new Map(formula.parameters.map((name, n) => [name, args[n]!])));
  }

  private total(x: Scalar): Scalar {
    return this.isReducible(x) ? this.reduce(sum, x) : multiply(x, constant(constantCount(this.reduced())));
  }

  private reduce(reduction: typeof sum, x: Scalar): Scalar {
    const over = this.reduced().map(dim => dim.name);
    return this.read(reduction(this.context.builder, this.materialise(x), over));
  }

  private mean(x: Scalar): Scalar {
    return multiply(this.total(x), constant(1 / constantCount(this.reduced())));
  }

  /** False for what is the same all along the reduced dimensions, such as another reduction's result. */
  private isReducible(x: Scalar): boolean {
    return this.reduced().every(dim => hasDimension(this.dimensionsOf(x), dim.name));
  }

  private reduced(): readonly Dimension[] {
    if (this.context.over.length === 0) throw new Error('a formula reduces where there is no dimension to reduce over');
    return this.context.over;
  }
}
