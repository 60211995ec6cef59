// Calls the emulated kernels of attention with typed arrays, and holds what they give against float64 loops.
import * as assert from 'uvu/assert';
import type { NativeFunction } from '../runtime/ffi.ts';
import { type Case, distance, furtherOf, loaded, notANumber, randomCase, stored } from './cpu/attention-calls.ts';
import { attend, attendBackward } from './cpu/attention-reference.ts';
import { scaleOf } from './cpu/attention-shapes.ts';
import type { Compiled } from './cuda-attention-shapes.ts';

export type Library = Readonly<Record<string, NativeFunction>>;

/** What relative L2 distances may be at most. */
export interface Bounds {
  readonly output: number;
  readonly logSumExp: number;
  readonly gradient: number;
  readonly slopes: number;
}

function call(library: Library, name: string, ...given: unknown[]): void {
  const report = library[name]!(...given) as string | null;
  if (report !== null) throw new Error(`${name}: ${report}`);
}

export function forward(library: Library, { name, shape, program }: Compiled, given: Case) {
  const rows = given.query.length / shape.dim;
  const output = notANumber(program, true, rows * shape.valueDim);
  const logSumExp = new Float32Array(rows).fill(NaN);
  const { batch, time } = given.positions;
  call(
    ...([library, `forward_${name}`, batch, time, stored(program, true, given.query)] as const),
    ...[stored(program, false, given.key), stored(program, false, given.value), output, logSumExp],
    ...furtherOf(given),
  );
  return { output: loaded(output), logSumExp };
}

/** Attention of the queries of several texts, one text's after the other's. */
function decode(library: Library, { name, shape, program }: Compiled, texts: readonly Case[]) {
  const { heads, dim, valueDim } = shape;
  const time = texts.reduce((sum, { positions }) => sum + positions.time, 0);
  const starts = Int32Array.from(texts, ({ positions }) => positions.start);
  let end = 0;
  const ends = Int32Array.from(texts, ({ positions }) => {
    end += positions.time;
    return end;
  });
  const joined = (of: 'query' | 'key' | 'value') => Float32Array.from(texts.flatMap(text => [...text[of]]));
  const output = notANumber(program, true, time * heads * valueDim);
  call(
    ...([library, `decoding_${name}`, time, texts.length, texts[0]!.positions.stride, starts, ends] as const),
    ...[stored(program, true, joined('query')), stored(program, false, joined('key'))],
    ...[stored(program, false, joined('value')), output, ...furtherOf(texts[0]!)],
  );
  let row = 0;
  return texts.map(text => {
    const rows = text.query.length / dim;
    row += rows;
    return loaded(output).subarray((row - rows) * valueDim, row * valueDim);
  });
}

/** @param outputGradient of the output [batch][time][heads][valueDim] */
export function backward(library: Library, compiled: Compiled, given: Case, outputGradient: Float32Array) {
  const { name, shape, program } = compiled;
  const { batch, time } = given.positions;
  const { output, logSumExp } = forward(library, compiled, given);
  const delta = new Float32Array(logSumExp.length);
  for (let i = 0; i < output.length; i++) delta[Math.floor(i / shape.valueDim)]! += output[i]! * outputGradient[i]!;
  const query = notANumber(program, true, given.query.length);
  const key = notANumber(program, false, given.key.length);
  const value = notANumber(program, false, given.value.length);
  const slopes = new Float32Array(batch * shape.heads).fill(shape.pair?.learned ? NaN : 0);
  call(
    ...([library, `backward_${name}`, batch, time, stored(program, true, given.query)] as const),
    ...[stored(program, false, given.key), stored(program, false, given.value), logSumExp],
    ...[stored(program, true, outputGradient), delta, ...furtherOf(given), query, key, value, slopes],
  );
  return { query: loaded(query), key: loaded(key), value: loaded(value), slopes };
}

/** The log-sum-exp of a query that sees nothing is -1e30 where it should be infinite. */
const orNothing = (logSumExp: number) => (logSumExp <= Math.fround(-1e30) ? 0 : logSumExp);

const placeOf = ({ name }: Compiled, { positions }: Case) => `${name}, time ${positions.time} from ${positions.start}`;

/** Holds an output against the reference's. */
export function holdOutput(compiled: Compiled, given: Case, output: Float32Array, bounds: Bounds): void {
  const { shape } = compiled;
  const error = distance(output, attend(shape, scaleOf(shape), given).output);
  assert.ok(error < bounds.output, `${placeOf(compiled, given)}: output ${error}`);
}

/** Holds the output and the log-sum-exp of whole texts. */
export function holdForward(library: Library, compiled: Compiled, given: Case, bounds: Bounds): void {
  const { shape } = compiled;
  const actual = forward(library, compiled, given);
  holdOutput(compiled, given, actual.output, bounds);
  const expected = attend(shape, scaleOf(shape), given);
  const [logSums, wanted] = [actual, expected].map(({ logSumExp }) => Float64Array.from(logSumExp, orNothing));
  const error = distance(logSums!, wanted!);
  assert.ok(error < bounds.logSumExp, `${placeOf(compiled, given)}: log-sum-exp ${error}`);
}

export function holdBackward(
  library: Library,
  compiled: Compiled,
  given: Case,
  outputGradient: Float32Array,
  bounds: Bounds,
): void {
  const { shape } = compiled;
  const expected = attendBackward(shape, scaleOf(shape), given, outputGradient);
  const actual = backward(library, compiled, given, outputGradient);
  for (const what of ['query', 'key', 'value', 'slopes'] as const) {
    const error = distance(actual[what], expected[what]);
    const bound = what === 'slopes' ? bounds.slopes : bounds.gradient;
    assert.ok(error < bound, `${placeOf(compiled, given)}: ${what} ${error}`);
  }
}

/** How many new tokens texts have that are decoded at once, and the position of the first. */
const decoded = [
  [1, 0],
  [5, 0],
  [1, 300],
  [70, 30],
  [0, 7],
  [3, 130],
] as const;

/** Holds what several texts' new tokens get, of a cache with room for more. */
export function holdDecoding(
  library: Library,
  compiled: Compiled,
  random: () => number,
  prepare: (given: Case) => Case,
  bounds: Bounds,
): void {
  const { shape } = compiled;
  // Wide vectors take the emulator long.
  const few = shape.dim > 100 ? decoded.filter(([time]) => time < 10) : decoded;
  const texts = few.map(([time, start]) =>
    prepare(randomCase(shape, { batch: 1, time, context: start + time, start, stride: 310 }, random)),
  );
  // What is the model's own is the same for all.
  const { sinks, slopes, noise } = texts[0]!;
  const all = texts.map(text => ({ ...text, sinks, slopes, noise, training: 0 }));
  const outputs = decode(library, compiled, all);
  all.forEach((text, n) => void holdOutput(compiled, text, outputs[n]!, bounds));
}

/** Holds that results are the same bits in whatever order threads and copies run: as they come, and in each of `orders`. */
export function holdOrders(
  library: Library,
  each: Compiled,
  given: Case,
  outputGradient: Float32Array,
  orders: readonly number[],
): void {
  const [first, ...others] = [0, ...orders].map(order => {
    library.schedule!(order);
    return [forward(library, each, given), backward(library, each, given, outputGradient)];
  });
  library.schedule!(0);
  for (const other of others) assert.equal(other, first, each.name);
}
