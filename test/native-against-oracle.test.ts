// The compiled C program against the float64 reference evaluation of its graph: logits, loss and every gradient, over
// random small architectures; and the properties that any such program must have.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import type { Model } from '../compiler/check/model.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { compile } from '../compiler/index.ts';
import { buildLibrary, findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { NativeModel } from '../runtime/native.ts';
import { oracle, relativeError } from './oracle.ts';
import { randomModel } from './random-models.ts';
import { randomNumbers } from './random-numbers.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('native against oracle');
const folder = mkdtempSync(join(tmpdir(), 'malc-oracle-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const models = fc.sample(randomModel, { seed: 20, numRuns: 24 });
const found = await findCompiler();
/** Little optimisation, as these are many programs; no warning passes. The kernels' headers have tests at full optimisation. */
const compiler = {
  ...found,
  flags: [...found.flags.filter(flag => flag !== '-O3'), '-O1', '-Wall', '-Wextra', '-Werror'],
};
let built = 0;
/** Of what training drops. */
const seed = 5;

async function open(
  model: Model,
  options: { fuse: boolean },
  sizes: { batch: number; time: number },
): Promise<NativeModel> {
  const sources = join(folder, String(built++));
  mkdirSync(sources);
  for (const [name, text] of Object.entries(compile(model, { verify: true, ...options }).files))
    writeFileSync(join(sources, name), text);
  const library = join(sources, 'model.so');
  await buildLibrary(sources, compiler, library);
  return NativeModel.open(library, {
    maxBatch: sizes.batch,
    maxTime: sizes.time,
    maxContext: 32,
    training: true,
    threads: 2,
    seed,
  });
}

/** Weights that are neither zero nor one, so that every parameter matters. */
function scramble(model: NativeModel, seed: number): Map<string, Float32Array> {
  const random = randomNumbers(seed);
  for (const { data, shape } of model.parameters) {
    const spread = shape.length === 1 ? 0.3 : 1 / Math.sqrt(shape.at(-1)!);
    for (let i = 0; i < data.length; i++)
      data[i] = (shape.length === 1 ? 0.8 : 0) + spread * 2 * (random() - 0.5) * 1.7;
  }
  return new Map(model.parameters.map(parameter => [parameter.name, parameter.data]));
}

function batchOf(model: Model, batch: number, time: number, seed: number) {
  const random = randomNumbers(seed);
  const draw = () => Int32Array.from({ length: batch * time }, () => Math.floor(random() * model.vocab_size));
  const labels = draw();
  for (let i = 0; i < labels.length; i += 5) labels[i] = -1;
  return { tokens: draw(), labels };
}

const describe = (model: Model) => JSON.stringify({ ...model, blocks: model.blocks });

models.forEach((model, n) => {
  for (const fuse of n % 4 === 0 ? [true, false] : [true])
    test(`model ${n}${fuse ? '' : ', without fusion'}: logits, loss, gradients, causality, decoding`, async () => {
      const [batch, time] = [2, 7];
      const native = await open(model, { fuse }, { batch, time });
      const parameters = scramble(native, n + 1);
      const { tokens, labels } = batchOf(model, batch, time, n + 100);
      const program = buildProgram(model, standardLibrary());
      const still = oracle(program, parameters, tokens, labels, batch, time);
      const expected = oracle(program, parameters, tokens, labels, batch, time, seed);

      const logits = await native.forward(tokens, { batch, time });
      assert.ok(
        relativeError(logits, still.logits) < 1e-5,
        `logits ${relativeError(logits, still.logits)} ${describe(model)}`,
      );
      const result = await native.step(tokens, labels, { microBatches: 1, batch, time, update: null });
      assert.ok(
        Math.abs(result.loss - expected.loss) < 1e-5 * expected.loss,
        `loss ${result.loss}, expected ${expected.loss}`,
      );
      assert.ok(Math.abs(result.auxiliary - expected.auxiliary) <= 1e-5 * expected.auxiliary, 'auxiliary loss');
      assert.is(native.parameters.length, expected.gradients.size);
      for (const { name, gradient } of native.parameters) {
        const error = relativeError(gradient!, expected.gradients.get(name)!);
        const size = Math.sqrt(expected.gradients.get(name)!.reduce((sum, x) => sum + x * x, 0));
        assert.ok(error < 1e-4 || error * size < 1e-6, `gradient of ${name}: ${error} of ${size} ${describe(model)}`);
      }
      const evaluated = await native.evaluate(tokens, labels, { batch, time });
      assert.ok(Math.abs(evaluated.loss - still.loss) < 1e-5 * still.loss);

      // Causality: another token at t leaves every logit before t as it was, bit for bit.
      const changed = tokens.slice();
      const at = 4;
      for (let b = 0; b < batch; b++) changed[b * time + at] = (changed[b * time + at]! + 1) % model.vocab_size;
      const after = await native.forward(changed, { batch, time });
      for (let b = 0; b < batch; b++)
        for (let i = 0; i < at * model.vocab_size; i++) {
          const place = b * time * model.vocab_size + i;
          assert.is(after[place], logits[place]);
        }

      // Cached decoding: a prompt of three, then one token at a time.
      for (let end = 3, start = 0; end <= time; start = end, end++) {
        const part = Int32Array.from(
          { length: batch * (end - start) },
          (_, i) => tokens[Math.floor(i / (end - start)) * time + start + (i % (end - start))]!,
        );
        const decoded = await native.decode(part, { batch, time: end - start, start });
        for (let b = 0; b < batch; b++) {
          const from = (b * time + end - 1) * model.vocab_size;
          const error = relativeError(
            decoded.subarray(b * model.vocab_size, (b + 1) * model.vocab_size),
            logits.subarray(from, from + model.vocab_size),
          );
          assert.ok(error < 1e-5, `decoding at ${end - 1}: ${error} ${describe(model)}`);
        }
      }
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
