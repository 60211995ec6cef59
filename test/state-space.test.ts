// What a state-space block is made of, on the CPU: the scan and the convolution of random shapes against the float64
// reference, forward and backward; a sequence in pieces against the whole; the same bits for any number of threads.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { runOnCpu } from './cpu/run-graph.ts';
import {
  endsOf,
  holdAgainstReference,
  holdPieces,
  pieceGraph,
  randomTensors,
  type Shape,
  wholeGraph,
} from './state-space-graphs.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('state space');

/** Kernels are compiled for their shape: these are drawn once, around the widths of the tasks, and the rest in each run. */
const shapes: readonly Shape[] = fc.sample(
  fc.record({
    channels: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(31, 32, 33, 64, 70)),
    states: fc.integer({ min: 1, max: 9 }),
    kernel: fc.integer({ min: 1, max: 5 }),
  }),
  { seed: 21, numRuns: 6 },
);

const whole = shapes.map(wholeGraph);
const piece = shapes.map(pieceGraph);
const run = await runOnCpu([...whole, ...piece]);

const anyShape = fc.nat({ max: shapes.length - 1 });
/** Around the chunks of the backward pass, and shorter than any filter. */
const anyTime = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(63, 64, 65, 129));
const anySeed = fc.integer({ min: 1, max: 2 ** 30 });

test('random shapes, forward and backward, against the reference', () => {
  fc.assert(
    fc.property(anyShape, fc.integer({ min: 1, max: 3 }), anyTime, anySeed, (shape, sequences, positions, seed) =>
      holdAgainstReference(run, whole[shape]!, { batch: sequences, time: positions }, seed),
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
      if (sizes.time > 0) holdAgainstReference(run, piece[shape]!, sizes, seed, ends);
    }),
    { seed: 23, numRuns: 60 },
  );
});

test('300 positions against the reference', () => {
  for (const shape of [0, 1]) holdAgainstReference(run, whole[shape]!, { batch: 2, time: 300 }, 24 + shape);
});

test('a sequence in pieces gives the bits of the whole', () => {
  const cut = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(anyShape, fc.integer({ min: 1, max: 2 }), cut, anySeed, (shape, sequences, lengths, seed) => {
      const graphs = { whole: whole[shape]!, piece: piece[shape]!, shape: shapes[shape]! };
      holdPieces(run, graphs, sequences, lengths, seed);
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
