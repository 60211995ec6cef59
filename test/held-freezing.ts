// Holds programs that freeze parameters against the one that trains all: the same gradients of what is trained, none of
// what is frozen, and bytes that stay as they are.
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import type { NativeModel } from '../runtime/native.ts';
import { batchOf, scramble } from './held-against-oracle.ts';
import { relativeError } from './oracle.ts';

/** A large epsilon: first updates then follow the gradient's size, and not the sign of what is nearly zero. */
const adamw = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 0.1, weightDecay: 0.1, clipNorm: 0 };

/** Relative L2 between what kernels that are fused in other ways compute in float32. */
const tolerance = { loss: 1e-5, gradients: 1e-5, updates: 1e-4 };

/**
 * @param whole the program that trains everything
 * @param native the one with `frozen`, as large
 */
export async function holdFreezing(
  whole: NativeModel,
  native: NativeModel,
  model: Model,
  frozen: readonly string[],
  { batch, time }: { batch: number; time: number },
): Promise<void> {
  const isFrozen = new Set(frozen);
  const before = scramble(whole, 7);
  const start = new Map([...before].map(([name, data]) => [name, Float32Array.from(data)]));
  for (const { name, data } of native.writableParameters()) data.set(start.get(name)!);
  const { tokens, labels, roles } = batchOf(model, batch, time, 8);
  const step = (each: NativeModel, update: number) =>
    each.step(tokens, labels, { microBatches: 1, batch, time, roles, update: { ...adamw, update } });
  const [expected, result] = [await step(whole, 1), await step(native, 1)];
  assert.ok(Math.abs(result.loss - expected.loss) <= tolerance.loss * Math.abs(expected.loss), 'loss');
  assert.ok(Math.abs(result.auxiliary - expected.auxiliary) <= tolerance.loss * expected.auxiliary, 'auxiliary loss');

  let squares = 0;
  const others = new Map(whole.parameters.map(parameter => [parameter.name, parameter]));
  for (const { name, trained, gradient, firstMoment, secondMoment } of native.parameters) {
    if (isFrozen.has(name)) {
      assert.equal([trained, gradient, firstMoment, secondMoment], [false, null, null, null], name);
      continue;
    }
    const wanted = Float32Array.from(others.get(name)!.gradient!);
    const length = Math.hypot(...wanted);
    const error = relativeError(gradient!, wanted);
    assert.ok(error < tolerance.gradients || error * length < 1e-6, `gradient of ${name}: ${error} of ${length}`);
    if (trained) squares += Math.hypot(...Float32Array.from(gradient!)) ** 2;
  }
  assert.ok(
    Math.abs(result.gradientNorm - Math.sqrt(squares)) <= 1e-4 * result.gradientNorm,
    'the norm of what is trained',
  );
  const moved = (name: string, data: ArrayLike<number>) =>
    Float64Array.from(data, (value, i) => value - start.get(name)![i]!);
  for (const { name, data } of native.parameters) {
    if (isFrozen.has(name)) continue;
    const wanted = moved(name, Float32Array.from(others.get(name)!.data));
    const size = Math.hypot(...wanted);
    const error = relativeError(moved(name, Float32Array.from(data)), wanted);
    // The difference of two float32 numbers near one has lost bits.
    const rounding = 1e-7 * Math.sqrt(wanted.length);
    assert.ok(error < tolerance.updates || error * size < rounding, `${name} moves otherwise: ${error} of ${size}`);
  }
  for (let update = 2; update <= 3; update++) await step(native, update);
  for (const { name, data } of native.parameters) {
    const same = Buffer.from(Float32Array.from(data).buffer).equals(Buffer.from(start.get(name)!.buffer));
    assert.is(same, isFrozen.has(name), `${name} ${same ? 'stays' : 'moves'}`);
  }
  const [all, fewer] = [whole.parts, native.parts];
  assert.ok(fewer.gradients < all.gradients && fewer.moments < all.moments && fewer.activations <= all.activations);
  for (const { parts, bytes } of [whole, native])
    assert.is(
      Object.values(parts).reduce((a, b) => a + b, 0),
      bytes,
    );
}

/** Names of the parameters that a pattern finds. */
export const matching = (native: NativeModel, pattern: RegExp): string[] =>
  native.parameters.map(({ name }) => name).filter(name => pattern.test(name));
