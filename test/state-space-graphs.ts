// Graphs of what a state-space block is made of, the scan and the convolution, and how a target is held to them: against the
// float64 reference, and a sequence in pieces against the whole.
import * as assert from 'uvu/assert';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { Builder } from '../compiler/graph/builder.ts';
import {
  batch,
  type Dimension,
  dimension,
  product,
  type Sizes,
  sequences,
  sizeOf,
  time,
} from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import type { Tensor } from '../compiler/graph/tensor.ts';
import { convolve } from '../compiler/ops/convolution.ts';
import { recentOf } from '../compiler/ops/recent.ts';
import { scanned, scanState } from '../compiler/ops/scan.ts';
import { randomNumbers } from './random-numbers.ts';

export interface Shape {
  readonly channels: number;
  readonly states: number;
  readonly kernel: number;
}

type Tensors = ReadonlyMap<string, Tensor>;

/** Numbers of a decay, of a step, and of anything else lie in ranges of their own. */
const ranges: Readonly<Record<string, readonly [number, number]>> = { a: [-2, -0.1], delta: [0.01, 1] };

/** A whole sequence: what is computed from a fresh start, and the gradients of that; `a` and `weight` are parameters. */
export function wholeGraph(shape: Shape): Graph {
  const builder = new Builder();
  const { scanInputs, weight } = inputsOf(builder, shape);
  const [x] = scanInputs as [Node];
  const y = scanned(builder, scanInputs);
  const z = convolve(builder, [x, weight]);
  const [yGradient, zGradient] = ['y_gradient', 'z_gradient'].map(name => builder.input(name, x.dimensions));
  const slopes = (node: Node, gradient: Node, wanted: readonly Node[], prefix: string) => {
    const gradients = differentiate(builder, [{ node, gradient }], wanted);
    return wanted.map(input => ({
      name: `${prefix}.${input.label}`,
      node: gradients.get(input)!,
      accumulate: input.label === 'a' || input.label === 'weight',
    }));
  };
  const results = [
    ...Object.entries({ y, h: scanState(builder, scanInputs), z }).map(([name, node]) => ({
      name,
      node,
      accumulate: false,
    })),
    ...slopes(y, yGradient!, scanInputs, 'scan'),
    ...slopes(z, zGradient!, [x, weight], 'convolution'),
  ];
  return makeGraph('whole', results);
}

/** Pieces of sequences, one after the other, each of which goes on from the states that the piece before it left. */
export function pieceGraph(shape: Shape): Graph {
  const builder = new Builder();
  const { scanInputs, weight, channels, states } = inputsOf(builder, shape);
  const [x] = scanInputs as [Node];
  const start = builder.input('start', [sequences, channels, states]);
  const memory = builder.input('memory', [sequences, dimension('memory', shape.kernel - 1), channels]);
  const ends = builder.input('ends', [sequences], 'i32');
  const results = {
    y: scanned(builder, [...scanInputs, start, ends]),
    h: scanState(builder, [...scanInputs, start, ends]),
    z: convolve(builder, [x, weight, memory, ends]),
    memory: recentOf(builder, x, memory, ends),
  };
  const outputs = Object.entries(results).map(([name, node]) => ({ name, node, accumulate: false }));
  return makeGraph('piece', outputs);
}

function inputsOf(builder: Builder, shape: Shape) {
  const channels = dimension('inner', shape.channels);
  const states = dimension('state', shape.states);
  const tensors: Readonly<Record<string, readonly Dimension[]>> = {
    x: [batch, time, channels],
    delta: [batch, time, channels],
    a: [channels, states],
    b: [batch, time, states],
    c: [batch, time, states],
  };
  const scanInputs = Object.entries(tensors).map(([name, dims]) => builder.input(name, dims));
  const weight = builder.input('weight', [channels, dimension('kernel', shape.kernel)]);
  return { scanInputs, weight, channels, states };
}

/** Float32 numbers for each input of a graph, and for what the buffers of accumulated outputs hold before. */
export function randomTensors(graph: Graph, sizes: Sizes, seed: number): Map<string, Tensor> {
  const random = randomNumbers(seed);
  const held = graph.outputs.filter(output => output.accumulate).map(({ name, node }) => [name, node] as const);
  const named = [...graph.inputs.map(node => [node.label, node] as const), ...held];
  return new Map(
    named.map(([name, node]) => {
      const [low, high] = ranges[name] ?? [-1, 1];
      const shape = node.dimensions.map(dim => sizeOf(dim, sizes));
      const data = Float64Array.from({ length: product(shape) }, () => Math.fround(low + (high - low) * random()));
      return [name, { names: node.dimensions.map(dim => dim.name), shape, data }];
    }),
  );
}

/** Positions [from, to) of what has any; the rest as it is. */
function positionsOf(tensors: Tensors, from: number, to: number): Map<string, Tensor> {
  return new Map(
    [...tensors].map(([name, tensor]) => {
      if (tensor.names[1] !== 'time') return [name, tensor];
      const [sequences, positions, width] = tensor.shape as [number, number, number];
      const rows = Array.from({ length: sequences }, (_, b) =>
        tensor.data.subarray((b * positions + from) * width, (b * positions + to) * width),
      );
      return [name, { ...tensor, shape: [sequences, to - from, width], data: joined(rows) }];
    }),
  );
}

const joined = (parts: readonly Float64Array[]): Float64Array => Float64Array.from(parts.flatMap(part => [...part]));

/** Pieces of [batch][time][width], one after the other along time. */
function concatenated(pieces: readonly Tensor[]): Float64Array {
  const [sequences] = pieces[0]!.shape as [number];
  return joined(
    Array.from({ length: sequences }, (_, b) => b).flatMap(b =>
      pieces.map(({ data, shape }) => {
        const length = shape[1]! * shape[2]!;
        return data.subarray(b * length, (b + 1) * length);
      }),
    ),
  );
}

/** Relative L2 distance; absolute where the reference is all zeros. */
function distance(actual: Float64Array, expected: Float64Array): number {
  const norm = Math.hypot(...expected);
  return Math.hypot(...actual.map((value, i) => value - expected[i]!)) / (norm || 1);
}

/** Where pieces of these lengths end, one after the other. */
export function endsOf(counts: readonly number[]): Tensor {
  const ends = counts.map((_, n) => counts.slice(0, n + 1).reduce((a, b) => a + b));
  return { names: ['sequences'], shape: [counts.length], data: Float64Array.from(ends) };
}

/** Runs one of a target's graphs. */
type Run = (graph: Graph, given: Tensors, sizes: Sizes) => Map<string, Tensor>;

export function holdAgainstReference(run: Run, graph: Graph, sizes: Sizes, seed: number, ends?: Tensor): void {
  const given = randomTensors(graph, sizes, seed);
  if (ends) given.set('ends', ends);
  const actual = run(graph, given, sizes);
  const expected = evaluate(graph, given, sizes);
  for (const { name, accumulate } of graph.outputs) {
    const held = accumulate ? given.get(name)!.data : null;
    const data = expected.get(name)!.data.map((value, i) => value + (held?.[i] ?? 0));
    const error = distance(actual.get(name)!.data, data);
    assert.ok(error < 3e-6, `${name}: relative L2 distance ${error}`);
  }
}

/**
 * A sequence in pieces of these lengths gives the bits of the whole.
 * @param whole the graph of a shape, and `piece` that of its pieces
 */
export function holdPieces(
  run: Run,
  { whole, piece, shape }: { readonly whole: Graph; readonly piece: Graph; readonly shape: Shape },
  sequences: number,
  lengths: readonly number[],
  seed: number,
): void {
  const { channels, states, kernel } = shape;
  const sizes = { batch: sequences, time: lengths.reduce((a, b) => a + b) };
  const given = randomTensors(whole, sizes, seed);
  const expected = run(whole, given, sizes);
  const zeros = (...dims: number[]) => ({ names: [], shape: dims, data: new Float64Array(product(dims)) });
  let start: Tensor = zeros(sequences, channels, states);
  let memory: Tensor = zeros(sequences, kernel - 1, channels);
  let from = 0;
  const results = lengths.map(length => {
    const own = positionsOf(given, from, from + length)
      .set('start', start)
      .set('memory', memory)
      .set('ends', endsOf(Array.from({ length: sequences }, () => length)));
    const result = run(piece, own, { batch: 1, time: sequences * length, sequences });
    for (const name of ['y', 'z']) result.set(name, { ...result.get(name)!, shape: [sequences, length, channels] });
    from += length;
    start = result.get('h')!;
    memory = result.get('memory')!;
    return result;
  });
  for (const name of ['y', 'z'])
    assert.equal(concatenated(results.map(result => result.get(name)!)), expected.get(name)!.data, name);
  assert.equal(start.data, expected.get('h')!.data, 'the last state');
}
