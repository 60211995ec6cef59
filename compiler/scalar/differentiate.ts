// Symbolic differentiation of scalar expressions: the chain rule over the table of functions.
import { add, constant, multiply, type Scalar } from './expression.ts';
import { functions } from './functions.ts';

/** d scalar / d operand(index). */
export function differentiate(scalar: Scalar, index: number): Scalar {
  switch (scalar.kind) {
    case 'constant':
    case 'coordinate':
      return constant(0);
    case 'operand':
      return constant(scalar.index === index ? 1 : 0);
    case 'apply': {
      const partial = functions[scalar.name].derivative(scalar.args, scalar);
      return scalar.args.reduce<Scalar>(
        (sum, arg, n) => add(sum, multiply(partial[n]!, differentiate(arg, index))),
        constant(0),
      );
    }
  }
}
