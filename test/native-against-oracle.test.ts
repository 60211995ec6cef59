// The compiled C program against the float64 reference evaluation of its graph: logits, loss and every gradient, over
// random small architectures; and the properties that any such program must have.
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { batchOf, hold, open, scramble } from './held-against-oracle.ts';
import { relativeError } from './oracle.ts';
import { randomModel } from './random-models.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('native against oracle');

fc.sample(randomModel, { seed: 20, numRuns: 24 }).forEach((model, n) => {
  for (const fuse of n % 4 === 0 ? [true, false] : [true])
    test(`model ${n}${fuse ? '' : ', without fusion'}: logits, loss, gradients, causality, decoding`, async () => {
      const native = await open(model, { fuse }, { batch: 2, time: 7 });
      await hold(native, model, 2, 7, n + 1);
      native.close();
    });
});

/** The model with everything dropped that can be, and nothing that is no mean over positions: routers' losses, capacities. */
function dropping(model: Model): Model {
  const blocks = model.blocks.map(block => ({
    ...block,
    dropout: 0.2,
    attention: block.attention && { ...block.attention, dropout: 0.3 },
    ffn: block.ffn && {
      ...block.ffn,
      dropout: 0.1,
      moe: block.ffn.moe && {
        ...block.ffn.moe,
        balance: { kind: 'none' as const },
        z_loss_weight: 0,
        capacity_factor: null,
      },
    },
  }));
  return { ...model, blocks, embeddings: { ...model.embeddings, dropout: 0.2 } };
}

test('1, 2, 4 and 8 micro-batches drop the same and give the same gradients; another step drops otherwise', async () => {
  const isMixed = ({ blocks, mtp }: Model) =>
    mtp !== null && blocks.some(block => block.attention) && blocks.some(block => block.ffn?.moe);
  const model = dropping(fc.sample(randomModel, { seed: 4, numRuns: 100 }).find(isMixed)!);
  const native = await open(model, { fuse: true }, { batch: 8, time: 6 });
  scramble(native, 3);
  const { tokens, labels } = batchOf(model, 8, 6, 4);
  const still = { learningRate: 0, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clipNorm: 0 };
  const step = async (microBatches: number, update = 1) => {
    const size = { microBatches, batch: 8 / microBatches, time: 6 };
    const result = await native.step(tokens, labels, { ...size, update: { ...still, update } });
    return { result, gradients: native.parameters.map(parameter => Float32Array.from(parameter.gradient!)) };
  };
  const whole = await step(1);
  for (const microBatches of [2, 4, 8]) {
    const parts = await step(microBatches);
    assert.ok(Math.abs(parts.result.loss - whole.result.loss) < 1e-6 * whole.result.loss);
    for (const [n, gradient] of parts.gradients.entries()) {
      const error = relativeError(gradient, whole.gradients[n]!);
      const size = Math.hypot(...whole.gradients[n]!);
      assert.ok(error < 1e-5 || error * size < 1e-6, `${native.parameters[n]!.name}: ${error} of ${size}`);
    }
  }
  const { gradients: other } = await step(1, 2);
  assert.ok(relativeError(other[0]!, whole.gradients[0]!) > 0.1);
  native.close();
});

test.run();
