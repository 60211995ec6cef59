// Programs that keep weights as products read them, rounded to bfloat16 or to 8 bits: against the float64 oracle, with
// decoding against whole texts; and that these forms are those of the weights after whatever changed them.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { type CompileOptions, compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { NativeModel } from '../runtime/native.ts';
import { batchOf, open, scramble } from './held-against-oracle.ts';
import { oracle, relativeError } from './oracle.ts';

// Matrices that are no whole panels, wider than what the update takes at once; a tied head; grouped-query attention, gates
// and an untied head whose module's blocks are for training alone.
const { syntax } = parse(
  `model tied {
    vocab_size: 101  max_seq_len: 40  hidden_size: 72  num_layers: 2
    embeddings { tie_weights: true }
    block {
      attention { num_heads: 6  position_encoding: learned {}  bias: true }
      ffn { hidden_dim: 530  activation: gelu  bias: true }
      norm: layernorm
    }
  }
  model gated {
    vocab_size: 67  max_seq_len: 40  hidden_size: 64  num_layers: 2
    embeddings { tie_weights: false }
    block {
      attention { num_heads: 4  num_kv_heads: 2 }
      ffn { hidden_dim: 150 }
    }
    mtp { depth: 1 }
  }`,
  'prepared.mal',
);

function modelOf(name: string): Model {
  const { model, diagnostics } = check(syntax, { model: name });
  if (!model) throw new Error(JSON.stringify(diagnostics));
  return model;
}

const models = ['tied', 'gated'].map(modelOf);
const [batch, time] = [3, 24];
const fuse = true;

/** What rounding explains of the logits' relative L2: 2^-9 or a 254th of a group's largest weight, over two layers. */
const tolerance = { bf16: 2e-2, int8: 3e-2 } as const;

const test = suite('prepared weights');

const logitsOf = (native: NativeModel, model: Model, seed: number) =>
  native.forward(batchOf(model, batch, time, seed).tokens, { batch, time });

for (const model of models)
  for (const dtype of ['bf16', 'int8'] as const)
    test(`${model.name} in ${dtype}: logits and loss, decoding of a prompt and of single tokens`, async () => {
      const native = await open(model, { fuse, dtype }, { batch, time });
      // Weights are written over those that were drawn: what products read must follow.
      await native.initialize(1);
      const drawn = await logitsOf(native, model, 5);
      const parameters = scramble(native, 11);
      const { tokens, labels, roles } = batchOf(model, batch, time, 5);
      const expected = oracle(
        buildProgram(model, standardLibrary()),
        parameters,
        tokens,
        labels,
        batch,
        time,
        null,
        roles,
      );
      const logits = await native.forward(tokens, { batch, time });
      assert.not.equal(logits, drawn);
      const error = relativeError(logits, expected.logits);
      assert.ok(error < tolerance[dtype], `logits ${error}`);
      assert.ok(error > 1e-5, 'nothing was rounded');
      const { loss } = await native.evaluate(tokens, labels, { batch, time });
      assert.ok(Math.abs(loss - expected.loss) < tolerance[dtype] * expected.loss, `loss ${loss} of ${expected.loss}`);

      // Fewer and more rows at once than the products of few rows take. Of those, bfloat16's leave activations unrounded
      // and 8-bit ones round them to 8 bits, where products of many rows do the opposite.
      for (const prompt of [1, 12])
        for (let end: number = prompt, start = 0; end <= prompt + 3; start = end, end++) {
          const length = end - start;
          const part = Int32Array.from(
            { length: batch * length },
            (_, i) => tokens[Math.floor(i / length) * time + start + (i % length)]!,
          );
          const starts = new Int32Array(batch).fill(start);
          const decoded = await native.decode(part, { batch, time: length, starts });
          for (let b = 0; b < batch; b++) {
            const from = (b * time + end - 1) * model.vocab_size;
            const difference = relativeError(
              decoded.subarray(b * model.vocab_size, (b + 1) * model.vocab_size),
              logits.subarray(from, from + model.vocab_size),
            );
            assert.ok(difference < tolerance[dtype], `decoding at ${end - 1} after ${prompt}: ${difference}`);
          }
        }
      native.close();
    });

const update = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };

/** Some steps from drawn weights. */
async function train(native: NativeModel, model: Model): Promise<void> {
  await native.initialize(3);
  for (let n = 1; n <= 3; n++) {
    const { tokens, labels } = batchOf(model, batch, time, n);
    await native.step(tokens, labels, { microBatches: 1, batch, time, update: { ...update, update: n } });
  }
}

/** Logits and gradients: whatever products make of the weights, forward and backward. */
async function results(native: NativeModel, model: Model) {
  const { tokens, labels } = batchOf(model, batch, time, 9);
  const logits = await native.forward(tokens, { batch, time });
  await native.step(tokens, labels, { microBatches: 1, batch, time, update: null });
  return [logits, ...native.parameters.map(({ gradient }) => gradient!.slice())];
}

for (const model of models)
  test(`${model.name}: an update prepares the weights as a refresh does, with one thread as with two`, async () => {
    const weights: Float32Array[][] = [];
    for (const threads of [1, 2]) {
      const native = await open(model, { fuse, dtype: 'bf16', threads }, { batch, time });
      await train(native, model);
      const updated = await results(native, model);
      native.writableParameters();
      assert.equal(await results(native, model), updated);
      weights.push([...native.parameters.map(({ data }) => data.slice()), ...updated]);
      native.close();
    }
    assert.equal(weights[0], weights[1]);
  });

test('8-bit weights are refused for training, by name', async () => {
  const native = await open(models[0]!, { fuse, dtype: 'int8' }, { batch, time });
  const { tokens, labels } = batchOf(models[0]!, batch, time, 1);
  let message = '';
  await native.step(tokens, labels, { microBatches: 1, batch, time, update: null }).catch(error => {
    message = error.message;
  });
  assert.match(message, /not created for training/);
  native.close();
});

test('8-bit weights have no use for what is for training, and say so by name', () => {
  // Of a single block none would run again.
  const single = { ...models[0]!, layers: [0] };
  const cases: readonly (readonly [name: string, options: CompileOptions])[] = [
    ['the optimizer lion', { optimizer: 'lion' }],
    ['recompute', { recompute: 'block' }],
    ['freezing', { frozen: ['model.embed_tokens.weight'] }],
  ];
  for (const [name, options] of cases)
    assert.throws(
      () => compile(single, { dtype: 'int8', ...options }),
      (error: Error) =>
        error instanceof UserError && error.message.startsWith(`${name} is for training, and weights of`),
    );
  assert.ok(compile(single, { dtype: 'int8', optimizer: 'adamw', recompute: 'none', frozen: [] }));
});

test.run();
