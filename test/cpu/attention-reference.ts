// Attention in plain float64 loops, forward and backward: what the compiled kernels are held against.

export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly dim: number;
  readonly causal: boolean;
  /** Keys that a query sees, itself included; 0 for all. */
  readonly window: number;
  /** What a pair's scaled score becomes, with its derivative, and whether the pair is looked at; null for what is usual. */
  readonly pair: PairRule | null;
}

export interface PairRule {
  score(score: number, query: number, key: number, head: number): number;
  slope(score: number, query: number, key: number, head: number): number;
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

function sees({ causal, window, pair }: AttentionShape, position: number, key: number, head: number): boolean {
  const reached = (!causal || key <= position) && (window === 0 || position - key < window);
  return reached && (pair === null || pair.sees(position, key, head));
}

/** Calls `visit` for every query head: where its query and the keys' first element lie, and its row among all rows. */
function forEachHead(
  { heads, kvHeads, dim }: AttentionShape,
  { batch, time, start, stride }: Positions,
  visit: (row: number, position: number, keys: number) => void,
): void {
  for (let b = 0; b < batch; b++)
    for (let i = 0; i < time; i++)
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor(h / (heads / kvHeads));
        visit((b * time + i) * heads + h, start + i, (b * stride * kvHeads + shared) * dim);
      }
}

/** The softmax weights of one query over all keys, its scores' slopes, and the logarithm of the sum of their exponentials. */
function weigh(
  shape: AttentionShape,
  positions: Positions,
  scale: number,
  query: Numbers,
  key: Numbers,
  row: number,
  position: number,
  keys: number,
): { weights: Float64Array; slopes: Float64Array; logSumExp: number } {
  const weights = new Float64Array(positions.context);
  const slopes = new Float64Array(positions.context);
  const head = row % shape.heads;
  const step = shape.kvHeads * shape.dim;
  let most = -Infinity;
  for (let j = 0; j < positions.context; j++) {
    if (!sees(shape, position, j, head)) continue;
    let score = 0;
    for (let d = 0; d < shape.dim; d++) score += query[row * shape.dim + d]! * key[keys + j * step + d]!;
    weights[j] = shape.pair ? shape.pair.score(score * scale, position, j, head) : score * scale;
    slopes[j] = shape.pair ? shape.pair.slope(score * scale, position, j, head) : 1;
    most = Math.max(most, weights[j]!);
  }
  let sum = 0;
  for (let j = 0; j < positions.context; j++) {
    weights[j] = sees(shape, position, j, head) ? Math.exp(weights[j]! - most) : 0;
    sum += weights[j]!;
  }
  // A query that sees nothing has no weights.
  return { weights: weights.map(weight => weight / (sum || 1)), slopes, logSumExp: Math.log(sum) + most };
}

/** output and log-sum-exp of attention over query [batch][time][heads][dim], key and value [batch][stride][kvHeads][dim]. */
export function attend(
  shape: AttentionShape,
  positions: Positions,
  scale: number,
  query: Numbers,
  key: Numbers,
  value: Numbers,
): { output: Float64Array; logSumExp: Float64Array } {
  const { dim, heads, kvHeads } = shape;
  const rows = positions.batch * positions.time * heads;
  const output = new Float64Array(rows * dim);
  const logSums = new Float64Array(rows);
  forEachHead(shape, positions, (row, position, keys) => {
    const { weights, logSumExp } = weigh(shape, positions, scale, query, key, row, position, keys);
    logSums[row] = logSumExp;
    weights.forEach((weight, j) => {
      if (weight === 0) return;
      for (let d = 0; d < dim; d++) output[row * dim + d]! += weight * value[keys + j * kvHeads * dim + d]!;
    });
  });
  return { output, logSumExp: logSums };
}

/** The gradients of sum(output * outputGradient), and delta, the row sums of output * outputGradient. */
export function attendBackward(
  shape: AttentionShape,
  positions: Positions,
  scale: number,
  query: Numbers,
  key: Numbers,
  value: Numbers,
  outputGradient: Numbers,
): { query: Float64Array; key: Float64Array; value: Float64Array; delta: Float64Array } {
  const { dim, kvHeads } = shape;
  const { output } = attend(shape, positions, scale, query, key, value);
  const gradient = {
    query: new Float64Array(query.length),
    key: new Float64Array(key.length),
    value: new Float64Array(value.length),
    delta: new Float64Array(query.length / dim),
  };
  forEachHead(shape, positions, (row, position, keys) => {
    const { weights, slopes } = weigh(shape, positions, scale, query, key, row, position, keys);
    let delta = 0;
    for (let d = row * dim; d < (row + 1) * dim; d++) delta += output[d]! * outputGradient[d]!;
    gradient.delta[row] = delta;
    weights.forEach((weight, j) => {
      if (weight === 0) return;
      const at = keys + j * kvHeads * dim;
      let slope = -delta;
      for (let d = 0; d < dim; d++) slope += outputGradient[row * dim + d]! * value[at + d]!;
      slope *= slopes[j]! * weight * scale;
      for (let d = 0; d < dim; d++) {
        gradient.value[at + d]! += weight * outputGradient[row * dim + d]!;
        gradient.query[row * dim + d]! += slope * key[at + d]!;
        gradient.key[at + d]! += slope * query[row * dim + d]!;
      }
    });
  });
  return gradient;
}
