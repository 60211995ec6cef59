// The optimizers' rules once more, in float64 and straight from their papers: what compiled programs are held against.
import type { Update } from '../runtime/native.ts';

/** A parameter before an update, or after it. */
export interface Tensor {
  readonly shape: readonly number[];
  readonly decays: boolean;
  readonly weights: Float64Array;
  readonly first: Float64Array | null;
  readonly second: Float64Array | null;
}

/** What an update makes of a parameter, given its gradient, clipped. */
export type Rule = (before: Tensor, gradient: Float64Array, update: Update) => Tensor;

const decayOf = ({ decays }: Tensor, { weightDecay }: Update) => (decays ? weightDecay : 0);

export const adamw: Rule = (before, gradient, update) => {
  const { beta1, beta2, epsilon, learningRate, update: t } = update;
  const first = before.first!.map((m, i) => beta1 * m + (1 - beta1) * gradient[i]!);
  const second = before.second!.map((v, i) => beta2 * v + (1 - beta2) * gradient[i]! ** 2);
  const weights = before.weights.map((w, i) => {
    const direction = first[i]! / (1 - beta1 ** t) / (Math.sqrt(second[i]! / (1 - beta2 ** t)) + epsilon);
    return w - learningRate * (direction + decayOf(before, update) * w);
  });
  return { ...before, weights, first, second };
};

export const lion: Rule = (before, gradient, update) => {
  const { beta1, beta2, learningRate } = update;
  const moved = before.first!.map((m, i) => Math.sign(beta1 * m + (1 - beta1) * gradient[i]!));
  const weights = before.weights.map((w, i) => w - learningRate * (moved[i]! + decayOf(before, update) * w));
  return { ...before, weights, first: before.first!.map((m, i) => beta2 * m + (1 - beta2) * gradient[i]!) };
};

export const sgd: Rule = (before, gradient, update) => {
  const slope = gradient.map((g, i) => g + decayOf(before, update) * before.weights[i]!);
  const first = before.first?.map((m, i) => update.momentum! * m + slope[i]!);
  const moved = first ?? slope;
  return {
    ...before,
    first: first ?? null,
    weights: before.weights.map((w, i) => w - update.learningRate * moved[i]!),
  };
};

export const muon: Rule = (before, gradient, update) => {
  const momentum = update.momentum!;
  const first = before.first!.map((m, i) => momentum * m + (1 - momentum) * gradient[i]!);
  const ahead = first.map((m, i) => momentum * m + (1 - momentum) * gradient[i]!);
  const [rows, columns] = before.shape.slice(-2) as [number, number];
  const direction = new Float64Array(ahead.length);
  for (let at = 0; at < ahead.length; at += rows * columns)
    direction.set(orthogonalised(ahead.slice(at, at + rows * columns), rows, columns), at);
  const rate = update.learningRate * 0.2 * Math.sqrt(Math.max(rows, columns));
  const keep = 1 - update.learningRate * decayOf(before, update);
  return { ...before, first, weights: before.weights.map((w, i) => keep * w - rate * direction[i]!) };
};

/** Five steps of Newton and Schulz's iteration on a matrix of norm 1. */
function orthogonalised(matrix: Float64Array, rows: number, columns: number): Float64Array {
  if (rows > columns)
    return transposed(orthogonalised(transposed(matrix, rows, columns), columns, rows), columns, rows);
  const norm = Math.max(Math.hypot(...matrix), 1e-7);
  let x = matrix.map(value => value / norm);
  for (let step = 0; step < 5; step++) {
    const square = product(x, transposed(x, rows, columns), rows, columns, rows);
    const fourth = product(square, square, rows, rows, rows);
    const mixed = product(
      square.map((value, i) => -4.775 * value + 2.0315 * fourth[i]!),
      x,
      rows,
      rows,
      columns,
    );
    x = x.map((value, i) => 3.4445 * value + mixed[i]!);
  }
  return x;
}

function transposed(matrix: Float64Array, rows: number, columns: number): Float64Array {
  return matrix.map((_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!);
}

function product(left: Float64Array, right: Float64Array, rows: number, inner: number, columns: number): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < inner; k++)
      for (let j = 0; j < columns; j++) result[i * columns + j]! += left[i * inner + k]! * right[k * columns + j]!;
  return result;
}
