// What attention does to a score before the softmax, and which pairs it looks at, as scalar expressions: ALiBi, soft-caps
// and the formulas of a file.
import type { Attention } from '../check/model.ts';
import { evaluator } from '../scalar/evaluate.ts';
import {
  add,
  apply,
  constant,
  coordinate,
  divide,
  multiply,
  operand,
  type Scalar,
  select,
  subtract,
} from '../scalar/expression.ts';
import { formulaScalar } from './formula.ts';
import type { Site } from './site.ts';

const query = coordinate('query');
const key = coordinate('key');
const head = coordinate('head');

/**
 * The score as attention's primitive takes it: ALiBi, then the soft-cap, then the file's formula; null for none of them.
 * Operand 1 is the head's learned slope.
 */
export function scoreOf(site: Site, settings: Attention): Scalar | null {
  const { position_encoding: encoding, softcap, score: name, num_heads: heads } = settings;
  let score = operand(0);
  // Linear in the distance (Press et al. 2022, section 3).
  if (encoding.kind === 'alibi') {
    const slope = encoding.slopes === 'learned' ? operand(1) : alibiSlope(heads, head);
    score = subtract(score, multiply(slope, subtract(query, key)));
  }
  if (softcap !== null) score = multiply(constant(softcap), apply('tanh', divide(score, constant(softcap))));
  if (name !== null) score = formulaScalar(site.formula(name), [score, query, key, head], site);
  return score.kind === 'operand' ? null : score;
}

/** The file's mask as a condition of query and key; null for none. */
export function maskOf(site: Site, { mask: name }: Attention): Scalar | null {
  return name === null ? null : formulaScalar(site.formula(name), [query, key], site);
}

/** The slopes that learned ones start from. */
export const alibiSlopes = (heads: number): number[] =>
  Array.from({ length: heads }, (_, n) => evaluator(alibiSlope(heads, constant(n)))([], {}));

/**
 * ALiBi's slope of a head (Press et al. 2022, and the authors' code): 2^(-8 (h + 1) / n) where n, the number of heads, is a
 * power of two. Otherwise the first m heads, m the power of two below n, have the slopes of m heads, and the rest every
 * second slope of 2 m heads: 2^(-8 (2 (h - m) + 1) / (2 m)).
 */
function alibiSlope(heads: number, head: Scalar): Scalar {
  const power = 2 ** Math.floor(Math.log2(heads));
  const ordinal = add(head, constant(1));
  const between = add(multiply(constant(2), subtract(head, constant(power))), constant(1));
  const halved = multiply(constant(0.5), between);
  const step = power === heads ? ordinal : select(apply('less', head, constant(power)), ordinal, halved);
  return apply('exp', multiply(constant((-8 * Math.LN2) / power), step));
}
