// Float64 evaluation of scalar expressions, as closures: the reference of every pointwise operation.
import type { Scalar } from './expression.ts';
import { functions } from './functions.ts';

/** Values of the operands, and the position along each dimension that the expression names. */
export type Evaluator = (operands: ArrayLike<number>, coordinates: Readonly<Record<string, number>>) => number;

/** Turns an expression into a function that is called once for each element. */
export function evaluator(scalar: Scalar): Evaluator {
  switch (scalar.kind) {
    case 'constant': {
      const { value } = scalar;
      return () => value;
    }
    case 'operand': {
      const { index } = scalar;
      return operands => operands[index]!;
    }
    case 'coordinate': {
      const { dimension } = scalar;
      return (_, coordinates) => coordinates[dimension]!;
    }
    case 'apply': {
      const { evaluate } = functions[scalar.name];
      const [a, b, c] = scalar.args.map(evaluator);
      if (!b) return (operands, at) => evaluate(a!(operands, at));
      if (!c) return (operands, at) => evaluate(a!(operands, at), b(operands, at));
      return (operands, at) => evaluate(a!(operands, at), b(operands, at), c(operands, at));
    }
  }
}
