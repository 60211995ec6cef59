// Holds a target to how biases balance experts: `balance: aux_free`.
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import type { NativeModel } from '../runtime/native.ts';
import { edgeModel } from './edge-models.ts';
import { batchOf, scramble } from './held-against-oracle.ts';

/** Each update moves the bias of each expert by the rate, towards the mean load of all micro-batches. */
export async function holdBalance(
  open: (model: Model, sizes: { readonly batch: number; readonly time: number }) => Promise<NativeModel>,
): Promise<void> {
  const text = edgeModel('alike');
  const [first] = text.blocks;
  const moe = { ...first!.ffn!.moe!, top_k: 2, balance: { kind: 'aux_free', rate: 0.125 } } as const;
  const model = { ...text, blocks: [{ ...first!, ffn: { ...first!.ffn!, moe } }], layers: [0, 0] };
  const [microBatches, batch, time] = [2, 2, 7];
  const native = await open(model, { batch, time });
  scramble(native, 4);
  const biases = () => native.parameters.filter(({ trained }) => !trained);
  assert.is(biases().length, 2);
  const adamw = { learningRate: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1e-6 };
  const choices = microBatches * batch * time * moe.top_k;
  for (let update = 1; update <= 3; update++) {
    const before = biases().map(({ data }) => Float32Array.from(data));
    const { tokens, labels } = batchOf(model, microBatches * batch, time, 4 + update);
    await native.step(tokens, labels, { microBatches, batch, time, update: { ...adamw, update } });
    biases().forEach(({ data, gradient: loads }, n) => {
      assert.is(
        loads!.reduce((sum, load) => sum + load, 0),
        choices,
      );
      const moved = before[n]!.map((value, e) => value + 0.125 * Math.sign(choices / moe.experts - loads![e]!));
      assert.equal(Float32Array.from(data), moved);
    });
  }
  native.close();
}
