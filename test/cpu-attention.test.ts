// Attention's kernels against plain float64 loops, compiled as generated programs are and called through koffi.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  backward,
  type Case,
  distance,
  forward,
  furtherOf,
  orNothing,
  outputsOf,
  randomCase,
  randomFloats,
  training,
} from './cpu/attention-calls.ts';
import { type AttentionShape, attend, attendBackward } from './cpu/attention-reference.ts';
import { attentionKernels, scaleOf, scratchOf, shapes } from './cpu/attention-shapes.ts';
import { buildVariants, type Library } from './cpu/build-kernels.ts';
import { randomNumbers } from './random-numbers.ts';

const built = await buildVariants(attentionKernels(['f32']));
const { library: native } = built.get('native')!;

/** Every build's library, by name, for tests that hold for each. */
const libraries = [...built].map(([name, { library }]) => [name, library] as const);

const test = suite('cpu attention');

/** Times on both sides of the blocks, and few enough for the path of few rows; fewer where the reference is slow. */
function timesOf({ dim, dropout }: AttentionShape, build: string): number[] {
  const isSlow = dim > 100 || dropout > 0;
  if (build !== 'native') return isSlow ? [10] : [7, 101];
  return isSlow ? [8, 101] : [1, 5, 8, 9, 64, 97, 150];
}

function holdForward(library: Library, index: number, given: Case) {
  const shape = shapes[index]!;
  const expected = attend(shape, scaleOf(shape), given);
  const actual = forward(library, 'f32', index, given, 2);
  const where = `shape ${index}, time ${given.positions.time}`;
  assert.ok(distance(actual.output, expected.output) < 1e-6, `${where}: output`);
  const logSums = [actual, expected].map(({ logSumExp }) => Float64Array.from(logSumExp, orNothing));
  assert.ok(distance(logSums[0]!, logSums[1]!) < 1e-6, `${where}: log-sum-exp`);
}

for (const [name, library] of libraries)
  test(`forward: ${name}`, () => {
    const random = randomNumbers(11);
    shapes.forEach((shape, index) => {
      for (const time of timesOf(shape, name))
        holdForward(library, index, randomCase(shape, training(time < 20 ? 2 : 1, time), random));
    });
  });

test('large scores neither overflow nor lose the softmax', () => {
  const given = randomCase(shapes[0]!, training(1, 100), randomNumbers(5));
  const large = { ...given, query: given.query.map(x => 300 * x) };
  const expected = attend(shapes[0]!, scaleOf(shapes[0]!), large).output;
  assert.ok(distance(forward(native, 'f32', 0, large, 2).output, expected) < 1e-3);
});

test('a cache filled in parts gives what the whole text gives', () => {
  const random = randomNumbers(12);
  shapes.forEach((shape, index) => {
    // Nothing that later parts hold may be seen; what the first masked shapes see of the future is in the first part.
    if (!shape.causal && index !== 6 && index !== 7) return;
    if (shape.documents) return; // never in decoding
    const [batch, total, stride] = [2, 150, 160];
    const whole = randomCase(shape, { batch, time: total, context: total, start: 0, stride }, random);
    const expected = forward(native, 'f32', index, whole, 2).output;
    let start = 0;
    for (const time of [70, 1, 1, 9, 3, 66]) {
      const part = (from: Float32Array, row: number) =>
        Float32Array.from({ length: batch * time * row }, (_, i) => {
          const sequence = Math.floor(i / (time * row));
          return from[(sequence * total + start) * row + (i - sequence * time * row)]!;
        });
      const positions = { batch, time, context: start + time, start, stride };
      const query = part(whole.query, shape.heads * shape.dim);
      const { output } = forward(native, 'f32', index, { ...whole, positions, query }, 2);
      const error = distance(output, part(expected, shape.heads * shape.valueDim));
      assert.ok(error < 1e-6, `shape ${index}, ${time} from ${start}: ${error}`);
      start += time;
    }
    assert.is(start, total);
  });
});

test('keys may be the values too', () => {
  const random = randomNumbers(17);
  const isDecoded = ({ valueWidth, dim, documents }: AttentionShape) => valueWidth === dim && !documents;
  const shared = shapes.flatMap((shape, index) => (isDecoded(shape) ? [index] : []));
  for (const index of shared)
    for (const time of [2, 30]) {
      const positions = { batch: 2, time, context: 100 + time, start: 100, stride: 140 };
      const given = randomCase(shapes[index]!, positions, random);
      holdForward(native, index, { ...given, value: given.key });
    }
});

test('nothing is dropped outside training', () => {
  const random = randomNumbers(18);
  shapes.forEach((shape, index) => {
    if (shape.dropout === 0) return;
    for (const time of [4, 40]) {
      const given = { ...randomCase(shape, training(2, time), random), training: 0 };
      holdForward(native, index, given);
      holdBackward(native, index, given, randomFloats(random, outputsOf(shape, given)));
    }
  });
});

test('a query that sees only its sink is zero', () => {
  const index = shapes.findIndex(({ sinks }) => sinks);
  const shape = shapes[index]!;
  for (const time of [3, 33]) {
    const given = randomCase(shape, training(1, time), randomNumbers(19));
    // So high a sink leaves nothing for the keys.
    const { output, logSumExp } = forward(native, 'f32', index, { ...given, sinks: given.sinks.map(() => 1000) }, 2);
    assert.ok(output.every(x => x === 0));
    assert.ok(logSumExp.every(x => x === 1000));
  }
});

test('the log-sum-exp may be left out', () => {
  const given = randomCase(shapes[1]!, training(1, 40), randomNumbers(13));
  const output = new Float32Array(given.query.length);
  const scratch = new Float32Array(scratchOf(shapes[1]!));
  const { query, key, value } = given;
  native.forward_f32_1!(1, 1, 40, 0, 40, query, key, value, output, null, ...furtherOf(given), scratch);
  assert.equal(output, forward(native, 'f32', 1, given, 1).output);
});

function holdBackward(library: Library, index: number, given: Case, outputGradient: Float32Array) {
  const shape = shapes[index]!;
  const expected = attendBackward(shape, scaleOf(shape), given, outputGradient);
  const actual = backward(library, 'f32', index, given, outputGradient, 2);
  for (const what of ['query', 'key', 'value', 'slopes'] as const) {
    const error = distance(actual[what], expected[what]);
    // A slope's gradient is a sum over all pairs, most of which cancel.
    const bound = what === 'slopes' ? 3e-5 : 3e-6;
    assert.ok(error < bound, `shape ${index}, time ${given.positions.time}, ${what}: ${error}`);
  }
}

for (const [name, library] of libraries)
  test(`backward: ${name}`, () => {
    const random = randomNumbers(14);
    shapes.forEach((shape, index) => {
      // The gradients of the only weight of a row, which is 1, are nothing but rounding.
      for (const time of timesOf(shape, name).filter(time => time > 1)) {
        const given = randomCase(shape, training(time < 20 ? 2 : 1, time), random);
        holdBackward(library, index, given, randomFloats(random, outputsOf(shape, given)));
      }
    });
  });

test('the reference agrees with central differences', () => {
  const random = randomNumbers(15);
  for (const shape of shapes.filter(({ dim }) => dim < 100)) {
    const given = randomCase(shape, training(2, 7), random);
    const seed = randomFloats(random, outputsOf(shape, given));
    const inputs = {
      query: Float64Array.from(given.query),
      key: Float64Array.from(given.key),
      value: Float64Array.from(given.value),
      slopes: Float64Array.from(given.slopes),
    };
    const at = { ...given, ...inputs, sinks: Float64Array.from(given.sinks) };
    const loss = () => attend(shape, scaleOf(shape), at).output.reduce((sum, x, i) => sum + x * seed[i]!, 0);
    const gradient = attendBackward(shape, scaleOf(shape), at, seed);
    const slopes = inputs.slopes.map((_, head) => gradient.slopes[head]! + gradient.slopes[shape.heads + head]!);
    for (const what of ['query', 'key', 'value', 'slopes'] as const)
      for (let trial = 0; trial < 6; trial++) {
        const place = Math.floor(random() * inputs[what].length);
        const kept = inputs[what][place]!;
        inputs[what][place] = kept + 1e-5;
        const above = loss();
        inputs[what][place] = kept - 1e-5;
        const difference = (above - loss()) / 2e-5;
        inputs[what][place] = kept;
        const expected = { ...gradient, slopes }[what][place]!;
        assert.ok(Math.abs(difference - expected) < 1e-7 * (1 + Math.abs(expected)), `${what}[${place}]`);
      }
  }
});

test('the same bits with one thread, two and three', () => {
  const random = randomNumbers(16);
  shapes.forEach((shape, index) => {
    for (const time of [6, 130]) {
      const given = randomCase(shape, training(2, time), random);
      const seed = randomFloats(random, outputsOf(shape, given));
      const [one, two, three] = [1, 2, 3].map(threads => [
        forward(native, 'f32', index, given, threads),
        backward(native, 'f32', index, given, seed, threads),
      ]);
      assert.equal(two, one);
      assert.equal(three, one);
    }
  });
});

test.run();
