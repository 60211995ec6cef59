// What a native model keeps from one call to the next: the caches and states of decoding, and the biases that an update
// moves to keep experts equally busy.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { edgeModel } from './edge-models.ts';
import { batchOf, open, scramble } from './held-against-oracle.ts';
import { holdBalance } from './held-balance.ts';
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
    const starts = new Int32Array(sequences).fill(start);
    const size = { batch: sequences, time: end - start, starts, roles: cut(roles) };
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
  const beyond = native.decode(tokens.subarray(0, batch), { batch, time: 1, starts: new Int32Array(batch).fill(time) });
  assert.match(await message(beyond), /exceed the key-value cache/);
  native.close();

  const without = await open(model, { fuse: true }, { batch, time, context: 0 });
  const decoded = without.decode(tokens.subarray(0, 2), { batch: 1, time: 2, starts: Int32Array.of(0) });
  assert.match(await message(decoded), /exceed the key-value cache/);
  without.close();
});

test('a decoding call is refused whole, by the sequence at fault', async () => {
  const recurrent = edgeModel('further');
  const alike = edgeModel('alike');
  for (const model of [recurrent, { ...alike, blocks: [alike.blocks[0]!], layers: [0, 0] }]) {
    const native = await open(model, { fuse: true }, { batch: 3, time: 4, context: 6 });
    scramble(native, 6);
    const { tokens } = batchOf(model, 3, 4, 7);
    const decode = (starts: number[], counts: number[], given = tokens) =>
      native.decode(given, { batch: 3, time: 4, starts: Int32Array.from(starts), counts: Int32Array.from(counts) });
    const first = await decode([0, 0, 0], [2, 4, 1]);
    for (const [starts, counts, says] of [
      [[0, 0, 1], [1, 1, 5], /sequence 2: its count is below 0 or above time/],
      [[0, -1, 0], [1, 1, 1], /sequence 1: the positions exceed the key-value cache/],
      [[0, 4, 0], [1, 3, 1], /sequence 1: the positions exceed the key-value cache/],
      [
        [0, 4, 2],
        [1, 1, 1],
        model === recurrent ? /sequence 2: a recurrent model goes/ : /sequence 2: it begins beyond/,
      ],
      [[0, 0, 0], [0, 0, 0], /no sequence has a token/],
    ] as const)
      assert.match(await message(decode([...starts], [...counts])), says);
    const strange = tokens.map((token, n) => (n === 8 ? model.vocab_size : token));
    assert.match(await message(decode([0, 0, 0], [1, 1, 1], strange)), /a token is outside the vocabulary/);
    // Nothing of them was done: every text goes on where it stood, the last one alone from its start too.
    const on = await decode([2, 4, 1], [1, 1, 1]);
    await decode([0, 0, 0], [2, 4, 1]);
    assert.equal(await decode([2, 4, 1], [1, 1, 1]), on);
    assert.equal(
      await decode([0, 0, 0], [2, 0, 1]).then(logits => logits.subarray(0, model.vocab_size)),
      first.subarray(0, model.vocab_size),
    );
    native.close();
  }
});

test('an update moves the bias of each expert by the rate, towards the mean load of all micro-batches', () =>
  holdBalance((model, sizes) => open(model, { fuse: true }, sizes)));

test('a moment that has shrunk below the normal numbers is zero, not a number that is slow to count with for ever', async () => {
  const model = edgeModel('alike');
  const native = await open(model, { fuse: true }, { batch: 1, time: 4 });
  scramble(native, 1);
  const [embedding] = native.writableParameters();
  const unseen = 6 * model.hidden_size; // a token that the batch does not have
  embedding!.firstMoment![unseen] = 1e-40;
  embedding!.secondMoment![unseen] = 1e-40;
  const size = { microBatches: 1, batch: 1, time: 4 };
  const update = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clipNorm: 1, update: 1 };
  await native.step(Int32Array.of(0, 1, 2, 3), Int32Array.of(1, 2, 3, 4), { ...size, update });
  assert.equal([embedding!.firstMoment![unseen], embedding!.secondMoment![unseen]], [0, 0]);
  native.close();
});

test.run();
