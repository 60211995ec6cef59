// What attention asks of a pair of a query and a key, as small C functions: its score, the score's derivatives, whether
// it is seen, and whether dropout keeps it.
import { type AttentionShape, dropoutSite, pairCoordinates, scoreDerivative } from '../ops/attention.ts';
import { coordinatesOf, operandsOf, type Scalar } from '../scalar/expression.ts';
import { floatLiteral, printCondition, printScalar, type Spelling } from './scalar.ts';
import { Writer } from './writer.ts';

/** What a pair's functions may read, in the order of their parameters. */
const parameters = {
  score: 'float score',
  slope: 'float slope',
  query: 'int32_t query',
  key: 'int32_t key',
  head: 'int32_t head',
  noise: 'const int32_t *noise',
  sequence: 'int64_t sequence',
} as const;

type Parameter = keyof typeof parameters;

/** How a place where a pair's functions are called spells what they read: of the queries' and of the keys' loop. */
export type PairPlace = Readonly<Record<Parameter, string>>;

export interface PairFunction {
  /** The function with its comment, in C. */
  readonly text: string;
  readonly reads: readonly Parameter[];
  call(place: PairPlace): string;
}

/** The functions that a shape needs; null for what it does without. */
export interface PairFunctions {
  readonly score: PairFunction | null;
  readonly byProduct: PairFunction | null;
  readonly bySlope: PairFunction | null;
  readonly sees: PairFunction | null;
  readonly kept: PairFunction | null;
}

/**
 * A shape's functions.
 * @param name what the functions' names begin with
 * @param derivatives by what the score's are wanted, for the backward pass
 */
export function pairFunctions(
  name: string,
  shape: AttentionShape,
  derivatives: readonly ('product' | 'slope')[],
): PairFunctions {
  const { score, mask, dropout } = shape;
  const derivative = (by: 'product' | 'slope', what: string) => {
    const scalar = scoreDerivative(shape, by);
    // A factor of 1 is left out.
    const isOne = scalar.kind === 'constant' && scalar.value === 1;
    if (!derivatives.includes(by) || (by === 'product' && isOne)) return null;
    return formulaFunction(`${name}_score_by_${by}`, `The derivative of ${name}_score by the ${what}.`, scalar);
  };
  return {
    score: score && formulaFunction(`${name}_score`, 'What the softmax takes for the scaled score of a pair.', score),
    byProduct: derivative('product', 'scaled score'),
    bySlope: derivative('slope', "head's slope"),
    sees: mask && conditionFunction(`${name}_sees`, 'Whether the query at one position sees the key at another.', mask),
    kept: dropout > 0 ? keptFunction(`${name}_kept`, dropout) : null,
  };
}

const formulaFunction = (name: string, comment: string, scalar: Scalar) =>
  pairFunction('float', name, comment, readBy(scalar), writer => writeResult(writer, scalar, printScalar));

const conditionFunction = (name: string, comment: string, scalar: Scalar) =>
  pairFunction('bool', name, comment, readBy(scalar), writer => writeResult(writer, scalar, printCondition));

const spelling: Spelling = { operand: index => (index === 0 ? 'score' : 'slope'), coordinate: name => name };

function readBy(scalar: Scalar): Parameter[] {
  const read = new Set<string>([...[...operandsOf(scalar)].map(spelling.operand), ...coordinatesOf(scalar)]);
  return (['score', 'slope', ...pairCoordinates] as const).filter(parameter => read.has(parameter));
}

function writeResult(writer: Writer, scalar: Scalar, print: typeof printScalar): void {
  let parts = 0;
  const value = print(scalar, spelling, text => {
    const part = `part_${parts++}`;
    writer.line(`const float ${part} = ${text};`);
    return part;
  });
  writer.line(`return ${value};`);
}

function keptFunction(name: string, dropout: number): PairFunction {
  const comment = 'What dropout multiplies the probability of a pair by.';
  return pairFunction('float', name, comment, ['query', 'key', 'head', 'noise', 'sequence'], writer => {
    writer.line(`const uint32_t site = ${dropoutSite} + (uint32_t)head;`);
    writer.line('const float drawn = malc_uniform(noise, sequence, site, (uint32_t)key, (uint32_t)query);');
    writer.line(`return drawn < ${floatLiteral(dropout)} ? 0.0f : ${floatLiteral(1 / (1 - dropout))};`);
  });
}

function pairFunction(
  result: string,
  name: string,
  comment: string,
  reads: readonly Parameter[],
  body: (writer: Writer) => void,
): PairFunction {
  const writer = new Writer();
  writer.comment([comment]);
  const list = reads.map(parameter => parameters[parameter]).join(', ');
  writer.block(`MALC_INLINE ${result} ${name}(${list === '' ? 'void' : list})`, () => body(writer));
  return {
    text: writer.toString(),
    reads,
    call: place => `${name}(${reads.map(parameter => place[parameter]).join(', ')})`,
  };
}
