// Holds programs that freeze parameters against the float64 oracle: the gradients of what is trained and none of what is
// frozen, updates that follow their rule, products that read all weights as these are then, bytes that stay as they are.
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import type { Model } from '../compiler/check/model.ts';
import { formulaLibrary } from '../compiler/check/standard-library.ts';
import type { NativeModel, Update } from '../runtime/native.ts';
import { batchOf, scramble, tolerances } from './held-against-oracle.ts';
import { holdRule, stateOf } from './held-updates.ts';
import { adamw } from './optimizer-rules.ts';
import { oracle, relativeError } from './oracle.ts';

/** Large steps: logits of weights that have moved are not those of the weights before. */
const adamwOf = (update: number): Update => ({
  ...{ learningRate: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 0.1, weightDecay: 0.1, clipNorm: 0, update },
});

/** Of what the program drops. */
const seed = 5;

/** @param native a program of the model, which leaves the `frozen` parameters as they are */
export async function holdFreezing(
  native: NativeModel,
  model: Model,
  frozen: readonly string[],
  { batch, time }: { batch: number; time: number },
  dtype: keyof typeof tolerances = 'f32',
): Promise<void> {
  const isFrozen = new Set(frozen);
  const tolerance = tolerances[dtype];
  const start = new Map([...scramble(native, 7)].map(([name, data]) => [name, Float32Array.from(data)]));
  const { tokens, labels, roles } = batchOf(model, batch, time, 8);
  const program = buildProgram(model, formulaLibrary(model));
  const step = (update: Update | null) => native.step(tokens, labels, { microBatches: 1, batch, time, roles, update });
  const forward = () => native.forward(tokens, { batch, time, roles });

  const expected = oracle(program, start, tokens, labels, batch, time, seed, roles);
  const result = await step(null);
  assert.ok(Math.abs(result.loss - expected.loss) <= tolerance.logits * expected.loss, 'loss');
  const away = Math.abs(result.auxiliary - expected.auxiliary);
  assert.ok(away <= tolerance.logits * expected.auxiliary, 'auxiliary loss');
  let squares = 0;
  for (const { name, trained, gradient, firstMoment, secondMoment } of native.parameters) {
    if (isFrozen.has(name)) {
      assert.equal([trained, gradient, firstMoment, secondMoment], [false, null, null, null], name);
      continue;
    }
    const wanted = expected.gradients.get(name)!;
    const length = Math.hypot(...wanted);
    const error = relativeError(gradient!, wanted);
    assert.ok(error < tolerance.gradients || error * length < 1e-6, `gradient of ${name}: ${error} of ${length}`);
    if (trained) squares += Math.hypot(...Float32Array.from(gradient!)) ** 2;
  }
  assert.ok(
    Math.abs(result.gradientNorm - Math.sqrt(squares)) <= 1e-4 * result.gradientNorm,
    'the norm of what is trained',
  );

  const logits = await forward();
  const before = new Map(native.parameters.filter(({ trained }) => trained).map(own => [own.name, stateOf(own)]));
  await step(adamwOf(1));
  for (const own of native.parameters) {
    const state = before.get(own.name);
    if (state) holdRule(own.name, state, stateOf(own), adamw(state, Float64Array.from(own.gradient!), adamwOf(1)));
  }
  await holdWeightsAreRead();
  for (let update = 2; update <= 3; update++) await step(adamwOf(update));
  for (const { name, data } of native.parameters) {
    const same = Buffer.from(Float32Array.from(data).buffer).equals(Buffer.from(start.get(name)!.buffer));
    assert.is(same, isFrozen.has(name), `${name} ${same ? 'stays' : 'moves'}`);
  }
  holdMemory(native, isFrozen);

  /** What products read of the weights, of the frozen ones too, is what a refresh of it all would make. */
  async function holdWeightsAreRead(): Promise<void> {
    const weights = new Map(native.parameters.map(({ name, data }) => [name, Float32Array.from(data)]));
    const still = oracle(program, weights, tokens, labels, batch, time, null, roles);
    const moved = await forward();
    const error = relativeError(moved, still.logits);
    assert.ok(error < tolerance.logits, `logits after an update: ${error}`);
    const change = relativeError(moved, Float64Array.from(logits));
    assert.ok(change > 2 * tolerance.logits, `an update changes logits by ${change}`);
    const results = async () => {
      await step(null);
      return [await forward(), ...native.parameters.map(({ gradient }) => gradient && Float32Array.from(gradient))];
    };
    const updated = await results();
    native.writableParameters();
    assert.equal(await results(), updated);
  }
}

/** Gradients and moments of what has them, each tensor in whole lines of a cache, and nothing else. */
function holdMemory({ parameters, parts, bytes }: NativeModel, isFrozen: ReadonlySet<string>): void {
  const bytesOf = (wanted: typeof parameters) =>
    wanted.reduce((sum, { data }) => sum + 64 * Math.ceil(data.length / 16), 0);
  const [moved, trained] = [
    parameters.filter(({ name }) => !isFrozen.has(name)),
    parameters.filter(own => own.trained),
  ];
  const isOf = (part: number, least: number, buffers: number) => part >= least && part < least + 256 * buffers;
  assert.ok(isOf(parts.gradients, bytesOf(moved), 1), `gradients take ${parts.gradients}, of ${bytesOf(moved)}`);
  assert.ok(isOf(parts.moments, 2 * bytesOf(trained), 2), `moments take ${parts.moments}, of 2 * ${bytesOf(trained)}`);
  assert.is(
    Object.values(parts).reduce((a, b) => a + b, 0),
    bytes,
  );
}
