// Scalar expressions as a person writes them: for comments in generated source and for `malc explain`.
import type { Scalar } from './expression.ts';
import type { FunctionName } from './functions.ts';

const infix: Partial<Record<FunctionName, readonly [symbol: string, strength: number]>> = {
  or: ['||', 1],
  and: ['&&', 2],
  equal: ['==', 3],
  less: ['<', 3],
  lessEqual: ['<=', 3],
  add: ['+', 4],
  subtract: ['-', 4],
  multiply: ['*', 5],
  divide: ['/', 5],
};

/** The formula, with operands under the given names and coordinates under their dimension's. */
export const formula = (scalar: Scalar, names: readonly string[]): string => write(scalar, names)[0];

function write(scalar: Scalar, names: readonly string[]): [text: string, strength: number] {
  switch (scalar.kind) {
    case 'constant':
      return [String(Number(scalar.value.toPrecision(6))), scalar.value < 0 ? 4 : 9];
    case 'operand':
      return [names[scalar.index]!, 9];
    case 'coordinate':
      return [`at(${scalar.dimension})`, 9];
  }
  const inside = (arg: Scalar, least: number) => {
    const [text, strength] = write(arg, names);
    return strength < least ? `(${text})` : text;
  };
  const [a, b, c] = scalar.args as [Scalar, Scalar, Scalar];
  const operator = infix[scalar.name];
  if (operator) {
    const [symbol, strength] = operator;
    return [`${inside(a, strength)} ${symbol} ${inside(b, strength + 1)}`, strength];
  }
  if (scalar.name === 'negate') return [`-${inside(a, 6)}`, 5];
  if (scalar.name === 'detach') return write(a, names);
  if (scalar.name === 'select') return [`${inside(a, 1)} ? ${inside(b, 1)} : ${inside(c, 1)}`, 0];
  return [`${scalar.name}(${scalar.args.map(arg => write(arg, names)[0]).join(', ')})`, 9];
}
