// The gradient of whole programs against finite differences of their loss, in float64: two hundred random architectures,
// each with everything that training does to it, along a random direction of all its parameters.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { drawParameters } from './draw-parameters.ts';
import { oracle } from './oracle.ts';
import { randomModel } from './random-models.ts';
import { randomNumbers } from './random-numbers.ts';

const test = suite('gradients of random architectures');
const models = fc.sample(randomModel, { seed: 7, numRuns: 200 });
const [batch, time] = [2, 5];

models.forEach((model, n) => {
  test(`model ${n}`, () => {
    const random = randomNumbers(n + 1);
    const program = buildProgram(model, standardLibrary());
    const { values, trained } = drawParameters(program, random);
    const draw = () => Int32Array.from({ length: batch * time }, () => Math.floor(random() * model.vocab_size));
    const [tokens, labels] = [draw(), draw()];
    labels[3] = -1;
    const run = (parameters: ReadonlyMap<string, Float64Array>) =>
      oracle(program, parameters, tokens, labels, batch, time, n);
    const { gradients } = run(values);

    const direction = new Map([...trained].map(name => [name, values.get(name)!.map(() => 2 * random() - 1)]));
    let slope = 0;
    for (const [name, along] of direction)
      slope += along.reduce((sum, step, i) => sum + step * gradients.get(name)![i]!, 0);
    const moved = (by: number) => {
      const there = new Map(
        [...values].map(([name, own]) => [name, own.map((value, i) => value + by * (direction.get(name)?.[i] ?? 0))]),
      );
      const { loss, auxiliary } = run(there);
      return loss + auxiliary;
    };
    const central = (step: number) => (moved(step) - moved(-step)) / (2 * step);
    // Two central differences without the error that grows with the square of the step (Richardson 1911).
    const numeric = (4 * central(5e-7) - central(1e-6)) / 3;
    assert.ok(
      Math.abs(numeric - slope) < 1e-6 * (1 + Math.abs(slope)),
      `${slope}, differences say ${numeric}: ${JSON.stringify(model)}`,
    );
  });
});

test.run();
