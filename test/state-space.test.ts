// What a state-space block is made of, on the CPU: the scan and the convolution of random shapes against the float64
// reference, forward and backward; a sequence in pieces against the whole; the same bits for any number of threads.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { differentiate } from '../compiler/grad/differentiate.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { batch, type Dimension, dimension, product, sequences, sizeOf, time } from '../compiler/graph/dimension.ts';
import { evaluate } from '../compiler/graph/evaluate.ts';
import { type Graph, makeGraph, type Node } from '../compiler/graph/graph.ts';
import type { Tensor } from '../compiler/graph/tensor.ts';
import { convolve } from '../compiler/ops/convolution.ts';
import { recentOf } from '../compiler/ops/recent.ts';
import { scanned, scanState } from '../compiler/ops/scan.ts';
import { runOnCpu } from './cpu/run-graph.ts';
import { randomNumbers } from './random-numbers.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('state space');

interface Shape {
  readonly channels: number;
  readonly states: number;
  readonly kernel: number;
}

type Tensors = ReadonlyMap<string, Tensor>;

/** Kernels are compiled for their shape: these are drawn once, around the widths of the tasks, and the rest in each run. */
const shapes: readonly Shape[] = fc.sample(
  fc.record({
    channels: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(31, 32, 33, 64, 70)),
    states: fc.integer({ min: 1, max: 9 }),
    kernel: fc.integer({ min: 1, max: 5 }),
  }),
  { seed: 21, numRuns: 6 },
);

/** Numbers of a decay, of a step, and of anything else lie in ranges of their own. */
const ranges: Readonly<Record<string, readonly [number, number]>> = { a: [-2, -0.1], delta: [0.01, 1] };

/** A whole sequence: what is computed from a fresh start, and the gradients of that; `a` and `weight` are parameters. */
function wholeGraph(shape: Shape): Graph {
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
function pieceGraph(shape: Shape): Graph {
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
function randomTensors(graph: Graph, sizes: Readonly<Record<string, number>>, seed: number): Map<string, Tensor> {
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

const whole = shapes.map(wholeGraph);
const piece = shapes.map(pieceGraph);
const run = await runOnCpu([...whole, ...piece]);

const anyShape = fc.nat({ max: shapes.length - 1 });
/** Around the chunks of the backward pass, and shorter than any filter. */
const anyTime = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(63, 64, 65, 129));
const anySeed = fc.integer({ min: 1, max: 2 ** 30 });

/** Where pieces of these lengths end, one after the other. */
function endsOf(counts: readonly number[]): Tensor {
  const ends = counts.map((_, n) => counts.slice(0, n + 1).reduce((a, b) => a + b));
  return { names: ['sequences'], shape: [counts.length], data: Float64Array.from(ends) };
}

function holdAgainstReference(
  graph: Graph,
  sizes: Readonly<Record<string, number>>,
  seed: number,
  ends?: Tensor,
): void {
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

test('random shapes, forward and backward, against the reference', () => {
  fc.assert(
    fc.property(anyShape, fc.integer({ min: 1, max: 3 }), anyTime, anySeed, (shape, sequences, positions, seed) =>
      holdAgainstReference(whole[shape]!, { batch: sequences, time: positions }, seed),
    ),
    { seed: 22, numRuns: 60 },
  );
});

test('random shapes that go on from a state, each sequence with tokens of its own number, against the reference', () => {
  const counts = fc.array(fc.oneof(fc.constantFrom(0, 1), anyTime), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(anyShape, counts, anySeed, (shape, counts, seed) => {
      const ends = endsOf(counts);
      const sizes = { batch: 1, time: ends.data.at(-1)!, sequences: counts.length };
      if (sizes.time > 0) holdAgainstReference(piece[shape]!, sizes, seed, ends);
    }),
    { seed: 23, numRuns: 60 },
  );
});

test('300 positions against the reference', () => {
  for (const shape of [0, 1]) holdAgainstReference(whole[shape]!, { batch: 2, time: 300 }, 24 + shape);
});

test('a sequence in pieces gives the bits of the whole', () => {
  const cut = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(anyShape, fc.integer({ min: 1, max: 2 }), cut, anySeed, (shape, sequences, lengths, seed) => {
      const { channels, states, kernel } = shapes[shape]!;
      const sizes = { batch: sequences, time: lengths.reduce((a, b) => a + b) };
      const given = randomTensors(whole[shape]!, sizes, seed);
      const expected = run(whole[shape]!, given, sizes);
      const zeros = (...dims: number[]) => ({ names: [], shape: dims, data: new Float64Array(product(dims)) });
      let start: Tensor = zeros(sequences, channels, states);
      let memory: Tensor = zeros(sequences, kernel - 1, channels);
      let from = 0;
      const results = lengths.map(length => {
        const own = positionsOf(given, from, from + length)
          .set('start', start)
          .set('memory', memory)
          .set('ends', endsOf(Array.from({ length: sequences }, () => length)));
        const result = run(piece[shape]!, own, { batch: 1, time: sequences * length, sequences });
        for (const name of ['y', 'z']) result.set(name, { ...result.get(name)!, shape: [sequences, length, channels] });
        from += length;
        start = result.get('h')!;
        memory = result.get('memory')!;
        return result;
      });
      for (const name of ['y', 'z'])
        assert.equal(concatenated(results.map(result => result.get(name)!)), expected.get(name)!.data, name);
      assert.equal(start.data, expected.get('h')!.data, 'the last state');
    }),
    { seed: 25, numRuns: 60 },
  );
});

test('the same bits with one, two and three threads', () => {
  shapes.forEach((_, shape) => {
    const sizes = { batch: 3, time: 70 };
    for (const graph of [whole[shape]!, piece[shape]!]) {
      const own = graph === whole[shape] ? sizes : { batch: 1, time: 210, sequences: 3 };
      const given = randomTensors(graph, own, 26).set('ends', endsOf([70, 1, 139]));
      const one = run(graph, given, own, 1);
      for (const threads of [2, 3]) assert.equal(run(graph, given, own, threads), one);
    }
  });
});

test.run();
