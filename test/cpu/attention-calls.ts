// Calls the compiled kernels of attention with typed arrays, and makes what they are given.
import type { AttentionShape, Given, Positions } from './attention-reference.ts';
import { isNarrow, type Program, scratchOf, shapes, workspaceOf } from './attention-shapes.ts';
import type { Library } from './build-kernels.ts';

export type Case = Given<Float32Array>;

export const randomFloats = (random: () => number, count: number) =>
  Float32Array.from({ length: count }, () => 2 * random() - 1);

/** Relative L2 distance; absolute where nothing is expected. */
export function distance(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}

export function randomCase(shape: AttentionShape, positions: Positions, random: () => number): Case {
  const { heads, kvHeads, dim, valueWidth } = shape;
  const sources = positions.batch * positions.stride * kvHeads;
  return {
    positions,
    query: randomFloats(random, positions.batch * positions.time * heads * dim).map(x => 3 * x),
    key: randomFloats(random, sources * dim),
    value: randomFloats(random, sources * valueWidth),
    sinks: randomFloats(random, heads).map(x => 4 * x),
    slopes: randomFloats(random, heads).map(x => 0.1 * x),
    noise: Int32Array.from({ length: 4 }, () => Math.floor(1000 * random())),
    training: 1,
    documents: shape.documents
      ? randomDocuments(positions, random)
      : new Int32Array(2 * positions.batch * positions.time),
  };
}

/** Documents of 1 to 80 positions, one after another, some of them cut off by the sequence's end. */
function randomDocuments({ batch, time }: Positions, random: () => number): Int32Array {
  const bounds = new Int32Array(2 * batch * time);
  for (let sequence = 0; sequence < batch; sequence++)
    for (let start = 0, end = 0; start < time; start = end) {
      end = Math.min(time, start + 1 + Math.floor(80 * random() ** 2));
      for (let t = start; t < end; t++) bounds.set([start, end], 2 * (sequence * time + t));
    }
  return bounds;
}

/** Whole texts. */
export const training = (batch: number, time: number): Positions => ({
  batch,
  time,
  context: time,
  start: 0,
  stride: time,
});

/** Elements of the output. */
export const outputsOf = (shape: AttentionShape, { query }: Case) => (query.length / shape.dim) * shape.valueDim;

export const furtherOf = ({ sinks, slopes, noise, training, documents }: Case) => [
  sinks,
  slopes,
  noise,
  Float32Array.of(training),
  documents,
];

type Stored = Float32Array | Uint16Array;

/** Numbers that bfloat16 has: what is left of others is cut off. */
export function cutToBf16(numbers: Float32Array): Float32Array {
  const bits = new Uint32Array(numbers.slice().buffer);
  return new Float32Array(bits.map(word => word & 0xffff0000).buffer);
}

/** As a program stores what is `own` to a query, or its keys and values. @param numbers that bfloat16 has */
export function stored(program: Program, own: boolean, numbers: Float32Array): Stored {
  if (!isNarrow(program, own)) return numbers;
  return Uint16Array.from(new Uint32Array(numbers.slice().buffer), word => word >>> 16);
}

export function loaded(numbers: Stored): Float32Array {
  if (numbers instanceof Float32Array) return numbers;
  return new Float32Array(Uint32Array.from(numbers, half => half * 65536).buffer);
}

export const notANumber = (program: Program, own: boolean, count: number): Stored =>
  stored(program, own, new Float32Array(count).fill(NaN));

export function forward(library: Library, program: Program, index: number, given: Case, threads: number) {
  const shape = shapes[index]!;
  const { positions, query, key, value } = given;
  const rows = query.length / shape.dim;
  const output = notANumber(program, true, rows * shape.valueDim);
  const logSumExp = new Float32Array(rows).fill(NaN);
  const { batch, time, start, stride } = positions;
  const scratch = new Float32Array(threads * scratchOf(shape)).fill(NaN);
  library[`forward_${program}_${index}`]!(
    ...[threads, batch, time, start, stride, stored(program, true, query), stored(program, false, key)],
    ...[stored(program, false, value), output, logSumExp, ...furtherOf(given), scratch],
  );
  return { output: loaded(output), logSumExp };
}

/** The log-sum-exp of a query that sees nothing is -1e30 where it should be infinite. */
export const orNothing = (logSumExp: number) => (logSumExp <= Math.fround(-1e30) ? 0 : logSumExp);

/** @param outputGradient of the output [batch][time][heads][valueDim] */
export function backward(
  library: Library,
  program: Program,
  index: number,
  given: Case,
  outputGradient: Float32Array,
  threads: number,
) {
  const shape = shapes[index]!;
  const { batch, time } = given.positions;
  const { output, logSumExp } = forward(library, program, index, given, threads);
  const delta = new Float32Array(logSumExp.length);
  for (let i = 0; i < output.length; i++) delta[Math.floor(i / shape.valueDim)]! += output[i]! * outputGradient[i]!;
  const query = notANumber(program, true, given.query.length);
  const key = notANumber(program, false, given.key.length);
  const value = notANumber(program, false, given.value.length);
  const slopes = new Float32Array(batch * shape.heads).fill(shape.pair?.learned ? NaN : 0);
  const scratch = new Float32Array(threads * scratchOf(shape)).fill(NaN);
  const workspace = new Float32Array(workspaceOf(shape) * batch * time).fill(NaN);
  library[`backward_${program}_${index}`]!(
    ...[threads, batch, time, stored(program, true, given.query), stored(program, false, given.key)],
    ...[stored(program, false, given.value), logSumExp, stored(program, true, outputGradient), delta],
    ...[...furtherOf(given), query, key, value, slopes, workspace, scratch],
  );
  return { query: loaded(query), key: loaded(key), value: loaded(value), slopes };
}
