// What a native model keeps from one call to the next: the caches and states of decoding, and the biases that an update
// moves to keep experts equally busy.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NativeModel } from '../runtime/native.ts';
import { edgeModel } from './edge-models.ts';
import { batchOf, open, scramble } from './held-against-oracle.ts';
import { relativeError } from './oracle.ts';

const test = suite('between calls');

async function message(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'nothing was refused',
    (error: Error) => error.message,
  );
}

test('a recurrent text goes on where it ended, whatever came between; a new one begins at 0', async () => {
  const model = edgeModel('further');
  const [batch, time] = [2, 8];
  const native = await open(model, { fuse: true }, { batch, time, context: time });
  scramble(native, 1);
  const { tokens, labels, roles } = batchOf(model, batch, time, 2);
  const logits = await native.forward(tokens, { batch, time, roles });
  /** Positions [start, end) of the leading sequences, whose last logits must be those of the whole text. */
  const decode = async (sequences: number, start: number, end: number) => {
    const cut = (values: Int32Array) =>
      Int32Array.from(
        Array.from({ length: sequences }, (_, b) => [...values.subarray(b * time + start, b * time + end)]).flat(),
      );
    const size = { batch: sequences, time: end - start, start, roles: cut(roles) };
    const decoded = await native.decode(cut(tokens), size);
    for (let b = 0; b < sequences; b++) {
      const own = decoded.subarray(b * model.vocab_size, (b + 1) * model.vocab_size);
      const from = (b * time + end - 1) * model.vocab_size;
      assert.ok(relativeError(own, logits.subarray(from, from + model.vocab_size)) < 1e-5, `${start} to ${end}`);
    }
  };
  assert.match(await message(decode(batch, 3, 4)), /goes on where the last call ended/);
  await decode(batch, 0, 3);
  assert.match(await message(decode(batch, 5, 6)), /goes on where the last call ended/);
  await native.step(tokens, labels, { microBatches: 1, batch, time, update: null, roles });
  await native.evaluate(tokens, labels, { batch, time, roles });
  await decode(batch, 3, 4);
  await decode(1, 0, 2);
  await decode(1, 2, 3);
  await decode(batch, 0, 1);
  await decode(batch, 1, 8);
  const beyond = native.decode(tokens.subarray(0, batch), { batch, time: 1, start: time });
  assert.match(await message(beyond), /exceed the key-value cache/);
  native.close();

  const without = await open(model, { fuse: true }, { batch, time, context: 0 });
  const decoded = without.decode(tokens.subarray(0, 2), { batch: 1, time: 2, start: 0 });
  assert.match(await message(decoded), /exceed the key-value cache/);
  without.close();
});

test('an update moves the bias of each expert by the rate, towards the mean load of all micro-batches', async () => {
  const text = edgeModel('alike');
  const [first] = text.blocks;
  const moe = { ...first!.ffn!.moe!, top_k: 2, balance: { kind: 'aux_free', rate: 0.125 } } as const;
  const model = { ...text, blocks: [{ ...first!, ffn: { ...first!.ffn!, moe } }], layers: [0, 0] };
  const [microBatches, batch, time] = [2, 2, 7];
  const native = await open(model, { fuse: true }, { batch, time });
  scramble(native, 4);
  const { tokens, labels } = batchOf(model, microBatches * batch, time, 5);
  const biases = ({ parameters }: NativeModel) => parameters.filter(({ trained }) => !trained);
  assert.is(biases(native).length, 2);
  const before = biases(native).map(({ data }) => Float32Array.from(data));
  const adamw = { learningRate: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1e-6 };
  await native.step(tokens, labels, { microBatches, batch, time, update: { ...adamw, update: 1 } });
  const choices = microBatches * batch * time * moe.top_k;
  biases(native).forEach(({ data, gradient: loads }, n) => {
    assert.is(
      loads!.reduce((sum, load) => sum + load, 0),
      choices,
    );
    const moved = before[n]!.map((value, e) => value + 0.125 * Math.sign(choices / moe.experts - loads![e]!));
    assert.equal(data, moved);
  });
  native.close();
});

test.run();
