// Attention of bfloat16 products against float64 loops: every way to multiply, and every way to store vectors.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  backward,
  type Case,
  cutToBf16,
  distance,
  forward,
  orNothing,
  outputsOf,
  randomCase,
  randomFloats,
  training,
} from './cpu/attention-calls.ts';
import { type AttentionShape, attend, attendBackward, type Positions } from './cpu/attention-reference.ts';
import { attentionKernels, type Program, scaleOf, shapes } from './cpu/attention-shapes.ts';
import { buildBf16Paths, type Library } from './cpu/build-kernels.ts';
import { randomNumbers } from './random-numbers.ts';

/** Without those that take the emulator long, and with no more of any kind than it has time for. */
const withDocuments = shapes.findIndex(({ documents }) => documents);
const numbers = [...shapes.flatMap(({ dim }, number) => (dim <= 192 && number < 14 ? [number] : [])), withDocuments];
/** With emulated tiles, every way to store vectors; with the others the usual one. */
const programsOf = (path: string): readonly Program[] => (path === 'tiles' ? ['wide', 'narrow', 'mixed'] : ['narrow']);
const built = await buildBf16Paths(path => attentionKernels(programsOf(path), numbers));
const libraries = [...built].map(([name, { library }]) => [name, library] as const);

/**
 * Weights, their gradients and stored results are rounded to bfloat16, by 2^-9 at most; what is given is made of numbers
 * that bfloat16 has. A gradient is a sum of terms that partly cancel.
 */
const bounds = { output: 4e-3, logSumExp: 1e-6, gradient: 1e-2, slopes: 3e-2 };

const test = suite('cpu attention, bf16');

function narrowCase(shape: AttentionShape, positions: Positions, random: () => number): Case {
  const given = randomCase(shape, positions, random);
  const { query, key, value } = given;
  return { ...given, query: cutToBf16(query), key: cutToBf16(key), value: cutToBf16(value) };
}

/** Fewer where the reference is slow. */
const timesOf = ({ dim, dropout }: AttentionShape) => (dim > 100 || dropout > 0 ? [33] : [9, 70]);

function hold(library: Library, program: Program, index: number, given: Case, outputGradient: Float32Array) {
  const shape = shapes[index]!;
  const where = `${program}, shape ${index}, time ${given.positions.time}`;
  const output = forward(library, program, index, given, 2);
  const expected = attend(shape, scaleOf(shape), given);
  const error = distance(output.output, expected.output);
  assert.ok(error < bounds.output, `${where}: output ${error}`);
  const sumError = distance(Float64Array.from(output.logSumExp, orNothing), expected.logSumExp.map(orNothing));
  assert.ok(sumError < bounds.logSumExp, `${where}: log-sum-exp ${sumError}`);
  const gradient = backward(library, program, index, given, outputGradient, 2);
  const expectedGradient = attendBackward(shape, scaleOf(shape), given, outputGradient);
  for (const what of ['query', 'key', 'value', 'slopes'] as const) {
    const error = distance(gradient[what], expectedGradient[what]);
    assert.ok(error < (what === 'slopes' ? bounds.slopes : bounds.gradient), `${where}: ${what} ${error}`);
  }
}

for (const [name, library] of libraries)
  test(name, () => {
    const random = randomNumbers(31);
    for (const index of numbers) {
      const shape = shapes[index]!;
      for (const time of timesOf(shape)) {
        const given = narrowCase(shape, training(time < 20 ? 2 : 1, time), random);
        const outputGradient = cutToBf16(randomFloats(random, outputsOf(shape, given)));
        for (const program of programsOf(name)) hold(library, program, index, given, outputGradient);
      }
    }
  });

test('tiles round weights, floats do not', () => {
  const given = narrowCase(shapes[0]!, training(1, 60), randomNumbers(34));
  const outputs = ['tiles', 'widened', 'refused tiles'].map(name => {
    return forward(built.get(name)!.library, 'narrow', 0, given, 1).output;
  });
  assert.not.equal(outputs[0], outputs[1]);
  assert.equal(outputs[2], outputs[1]);
});

test('few queries of bfloat16 read keys of float32 in place', () => {
  const random = randomNumbers(32);
  for (const index of numbers) {
    const shape = shapes[index]!;
    if (shape.documents) continue; // never in decoding
    const positions = { batch: 2, time: 3, context: 43, start: 40, stride: 50 };
    const given = narrowCase(shape, positions, random);
    const expected = attend(shape, scaleOf(shape), given).output;
    for (const program of ['wide', 'mixed'] as const) {
      const { output } = forward(built.get('tiles')!.library, program, index, given, 2);
      const error = distance(output, expected);
      assert.ok(error < bounds.output, `${program}, shape ${index}: ${error}`);
    }
  }
});

test('the same bits with one thread, two and three', () => {
  const random = randomNumbers(33);
  for (const [name, library] of libraries)
    for (const index of numbers) {
      const shape = shapes[index]!;
      if (shape.dim > 50) continue;
      const given = narrowCase(shape, training(2, 70), random);
      const outputGradient = cutToBf16(randomFloats(random, outputsOf(shape, given)));
      const [one, two, three] = [1, 2, 3].map(threads => [
        forward(library, 'narrow', index, given, threads),
        backward(library, 'narrow', index, given, outputGradient, threads),
      ]);
      assert.equal(two, one, name);
      assert.equal(three, one, name);
    }
});

test.run();
