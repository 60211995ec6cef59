// Attention in plain float64 loops, forward and backward: what the compiled kernels are held against.
import { uniform } from '../../compiler/scalar/philox.ts';

export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a query and of a key. */
  readonly dim: number;
  /** Elements of a value that are used, and that there are. */
  readonly valueDim: number;
  readonly valueWidth: number;
  readonly causal: boolean;
  /** Keys that a query sees, itself included; 0 for all. */
  readonly window: number;
  /** What a pair's scaled score becomes, and whether the pair is looked at; null for what is usual. */
  readonly pair: PairRule | null;
  /** Whether each head has a logit without a value. */
  readonly sinks: boolean;
  /** Share of the weights that training drops. */
  readonly dropout: number;
  /** Whether a query sees no key of another document than its own. */
  readonly documents: boolean;
}

export interface PairRule {
  /** Whether the score reads the head's slope. */
  readonly learned: boolean;
  score(score: number, slope: number, query: number, key: number, head: number): number;
  byProduct(score: number, slope: number, query: number, key: number, head: number): number;
  bySlope(score: number, slope: number, query: number, key: number, head: number): number;
  sees(query: number, key: number, head: number): boolean;
}

/** Queries at positions start .. start + time of sequences of `context` keys, `stride` positions apart. */
export interface Positions {
  readonly batch: number;
  readonly time: number;
  readonly context: number;
  readonly start: number;
  readonly stride: number;
}

type Numbers = Float32Array | Float64Array;

/** What attention is given. */
export interface Given<N extends Numbers = Numbers> {
  readonly positions: Positions;
  /** [batch][time][heads][dim] */
  readonly query: N;
  /** [batch][stride][kvHeads][dim], and of valueWidth elements. */
  readonly key: N;
  readonly value: N;
  /** [heads] */
  readonly sinks: N;
  readonly slopes: N;
  /** What dropout draws by, and whether it does: where not 0. */
  readonly noise: Int32Array;
  readonly training: number;
  /** [batch][time][2], where each position's document begins and ends. */
  readonly documents: Int32Array;
}

function sees({ causal, window, pair }: AttentionShape, position: number, key: number, head: number): boolean {
  const reached = (!causal || key <= position) && (window === 0 || position - key < window);
  return reached && (pair === null || pair.sees(position, key, head));
}

/** A query of one head: its row among all rows, its place in the text, and the first of its keys. */
interface Row {
  readonly row: number;
  readonly sequence: number;
  readonly position: number;
  readonly head: number;
  readonly firstKey: number;
}

function forEachRow({ heads, kvHeads }: AttentionShape, { positions }: Given, visit: (row: Row) => void): void {
  const { batch, time, start, stride } = positions;
  for (let sequence = 0; sequence < batch; sequence++)
    for (let i = 0; i < time; i++)
      for (let head = 0; head < heads; head++) {
        const shared = Math.floor(head / (heads / kvHeads));
        visit({
          row: (sequence * time + i) * heads + head,
          sequence,
          position: start + i,
          head,
          firstKey: sequence * stride * kvHeads + shared,
        });
      }
}

interface Weight {
  /** The softmax of this key, and what dropout multiplies it by. */
  weight: number;
  readonly kept: number;
  readonly byProduct: number;
  readonly bySlope: number;
  /** Which key and value. */
  readonly source: number;
}

/** The keys that one query sees, and the logarithm of the sum of the exponentials of their scores. */
function weigh(shape: AttentionShape, scale: number, given: Given, { row, sequence, position, head, firstKey }: Row) {
  const { dim, pair, dropout } = shape;
  const { query, key } = given;
  const slope = given.slopes[head]!;
  // First with the score, which becomes the weight when all are known.
  const weights: Weight[] = [];
  const bounds = 2 * Math.floor(row / shape.heads);
  const [from, until] = shape.documents ? given.documents.slice(bounds, bounds + 2) : [0, given.positions.context];
  for (let j = from!; j < until!; j++) {
    if (!sees(shape, position, j, head)) continue;
    const source = firstKey + j * shape.kvHeads;
    let score = 0;
    for (let d = 0; d < dim; d++) score += query[row * dim + d]! * key[source * dim + d]!;
    const at = [score * scale, slope, position, j, head] as const;
    const drops = dropout > 0 && given.training !== 0;
    const isDropped = drops && uniform(given.noise, sequence, 256 + head, j, position) < dropout;
    weights.push({
      weight: pair ? pair.score(...at) : at[0],
      source,
      kept: isDropped ? 0 : drops ? 1 / (1 - dropout) : 1,
      byProduct: pair ? pair.byProduct(...at) : 1,
      bySlope: pair ? pair.bySlope(...at) : 0,
    });
  }
  const sink = shape.sinks ? given.sinks[head]! : -Infinity;
  const most = weights.reduce((greatest, { weight }) => Math.max(greatest, weight), sink);
  const total = weights.reduce(
    (sum, { weight }) => sum + Math.exp(weight - most),
    shape.sinks ? Math.exp(sink - most) : 0,
  );
  const logSumExp = most + Math.log(total);
  for (const pair of weights) pair.weight = Math.exp(pair.weight - logSumExp);
  return { logSumExp, weights };
}

/** The output [batch][time][heads][valueDim] and the log-sum-exp [batch][time][heads] of attention. */
export function attend(shape: AttentionShape, scale: number, given: Given) {
  const { dim, valueDim, valueWidth } = shape;
  const { value } = given;
  const rows = given.query.length / dim;
  const output = new Float64Array(rows * valueDim);
  const logSums = new Float64Array(rows);
  forEachRow(shape, given, place => {
    const { weights, logSumExp } = weigh(shape, scale, given, place);
    logSums[place.row] = logSumExp;
    for (const { weight, kept, source } of weights)
      for (let d = 0; d < valueDim; d++)
        output[place.row * valueDim + d]! += kept * weight * value[source * valueWidth + d]!;
  });
  return { output, logSumExp: logSums };
}

/** The gradients of sum(output * outputGradient); those of the slopes are [batch][heads]. */
export function attendBackward(shape: AttentionShape, scale: number, given: Given, outputGradient: Numbers) {
  const { heads, dim, valueDim, valueWidth } = shape;
  const { query, key, value } = given;
  const { output } = attend(shape, scale, given);
  const gradient = {
    query: new Float64Array(given.query.length),
    key: new Float64Array(given.key.length),
    value: new Float64Array(given.value.length),
    slopes: new Float64Array(given.positions.batch * heads),
  };
  forEachRow(shape, given, place => {
    const { row, sequence, head } = place;
    let delta = 0;
    for (let d = row * valueDim; d < (row + 1) * valueDim; d++) delta += output[d]! * outputGradient[d]!;
    for (const { weight, kept, byProduct, bySlope, source } of weigh(shape, scale, given, place).weights) {
      let product = 0;
      for (let d = 0; d < valueDim; d++)
        product += outputGradient[row * valueDim + d]! * value[source * valueWidth + d]!;
      const rise = weight * (kept * product - delta);
      gradient.slopes[sequence * heads + head]! += rise * bySlope;
      for (let d = 0; d < valueDim; d++)
        gradient.value[source * valueWidth + d]! += kept * weight * outputGradient[row * valueDim + d]!;
      for (let d = 0; d < dim; d++) {
        gradient.query[row * dim + d]! += scale * byProduct * rise * key[source * dim + d]!;
        gradient.key[source * dim + d]! += scale * byProduct * rise * query[row * dim + d]!;
      }
    }
  });
  return gradient;
}
