// The host side of programs for CUDA, run by the emulator: graphs that are replayed change nothing, whatever sizes and
// numbers follow each other; profiles; what a kernel's failure says.
import { copyFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { generate } from '../runtime/generate/generate.ts';
import { type SamplerOptions, sampleToken } from '../runtime/generate/sampler.ts';
import { NativeModel } from '../runtime/native.ts';
import { buildEmulatedModel } from './cuda/build.ts';
import { deviceArchitecture } from './cuda/device.ts';
import { batchOf } from './held-against-oracle.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('cuda host');

const model = check(
  parse(
    `attention attn { num_heads: 2 position_encoding: rope { theta: 10000 } }
ffn mlp { hidden_dim: 12 activation: swiglu }
block layer { attention: attn ffn: mlp norm: rmsnorm { eps: 1e-5 } norm_position: pre dropout: 0.1 }
model tiny {
  vocab_size: 40 max_seq_len: 16 hidden_size: 8 num_layers: 2 block: layer
  embeddings { tie_weights: true }
}`,
    'tiny.mal',
  ).syntax,
).model!;
const sizes = { maxBatch: 3, maxTime: 12, maxContext: 16, training: true, seed: 5 };
const adamw = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 0.5 };

/** Opened so that its launches are queued one by one. */
function openBlocking(library: string): NativeModel {
  process.env.CUDA_LAUNCH_BLOCKING = '1';
  try {
    return NativeModel.open(library, sizes);
  } finally {
    delete process.env.CUDA_LAUNCH_BLOCKING;
  }
}

let plain: Promise<string> | null = null;

/** Two models of the same weights: one that replays graphs, one that launches its kernels one by one. */
async function openBoth() {
  plain ??= buildEmulatedModel(model, { dtype: 'f32' });
  const library = await plain;
  const both = [NativeModel.open(library, sizes), openBlocking(library)] as const;
  for (const native of both) await native.initialize(3);
  return both;
}

/** Adds a line to the start of the function of this head, in the file that has it. */
const inserting = (head: string, line: string) => (source: string) => {
  const at = source.indexOf('\n', source.indexOf('{', source.indexOf(head))) + 1;
  return source.includes(head) ? `${source.slice(0, at)}  ${line}\n${source.slice(at)}` : source;
};

/** One step, of numbers that this update alone has. */
async function step(native: NativeModel, update: number, microBatches: number, batch: number, time: number) {
  const { tokens, labels } = batchOf(model, microBatches * batch, time, update);
  const numbers = { ...adamw, learningRate: 0.01 * update, clipNorm: update % 2 ? 0.5 : 0, update };
  return native.step(tokens, labels, { microBatches, batch, time, update: numbers });
}

if (await emulatorAvailable()) {
  test('steps, evaluations and decoding that are replayed are those launched one by one, to the bit', async () => {
    const both = await openBoth();
    const [replayed, launched] = both;
    const same = async <Result>(call: (native: NativeModel) => Promise<Result>, name: string) => {
      const [actual, expected] = [await call(replayed), await call(launched)];
      assert.equal(actual, expected, name);
      return actual;
    };
    let update = 0;
    const losses = new Set<number>();
    // The same size again and again, one or three micro-batches, then more sizes than graphs are kept of.
    const shapes = [
      [1, 2, 5],
      [1, 2, 5],
      [3, 2, 5],
      [1, 2, 5],
      [3, 2, 5],
      [2, 3, 12],
    ];
    const many = Array.from({ length: 18 }, (_, n) => [1, 1 + (n % 3), 1 + (n % 12)]);
    for (const [microBatches, batch, time] of [...shapes, ...many, ...shapes]) {
      update++;
      const { loss } = await same(
        native => step(native, update, microBatches!, batch!, time!),
        `update ${update}: ${microBatches} x ${batch} x ${time}`,
      );
      losses.add(loss);
    }
    assert.is(losses.size, update, 'no step is another again');
    for (const [n, { name, data, secondMoment }] of replayed.parameters.entries()) {
      assert.equal(data.slice(), launched.parameters[n]!.data.slice(), name);
      assert.equal(secondMoment!.slice(), launched.parameters[n]!.secondMoment!.slice(), `moment of ${name}`);
    }

    const { tokens, labels } = batchOf(model, 3, 12, 70);
    for (const [batch, time] of [
      [3, 12],
      [1, 7],
      [3, 12],
      [2, 7],
    ]) {
      const count = batch! * time!;
      await same(
        native => native.evaluate(tokens.slice(0, count), labels.slice(0, count), { batch: batch!, time: time! }),
        `evaluation of ${batch} x ${time}`,
      );
    }

    // Prompts of three lengths, then a token at a time; the second text pauses now and then.
    const starts = Int32Array.of(0, 0, 0);
    for (let call = 0; call < 10; call++) {
      const counts = call === 0 ? Int32Array.of(5, 2, 3) : Int32Array.of(1, call % 3 === 0 ? 0 : 1, 1);
      const time = call === 0 ? 5 : 1;
      const given = batchOf(model, 3, time, 100 + call).tokens;
      await same(native => native.decode(given, { batch: 3, time, starts, counts }), `decoding, call ${call}`);
      counts.forEach((count, text) => {
        starts[text]! += count;
      });
    }
    for (const native of both) native.close();
  });

  test("tokens that the program chooses are the host sampler's, of texts that begin, pause and go on", async () => {
    const [chooses, decodes] = await openBoth();
    assert.ok(chooses.chooses);
    const samplers: SamplerOptions[] = [
      { temperature: 1.5, topK: 9, repetitionPenalty: 1.5, seed: 4 },
      { temperature: 0, repetitionPenalty: 3, seed: 0 },
      { temperature: 2, topP: 0.8, minP: 0.01, seed: 2 ** 33 },
    ];
    const texts: number[][] = [[], [], []];
    let next = Int32Array.of(3, 5, 7);
    for (let call = 0; call < 9; call++) {
      const prompts = call === 0 || call === 5; // where the second text begins anew
      if (prompts) texts[1] = [];
      const counts = Int32Array.of(1, prompts ? 3 : 1, call % 4 === 3 ? 0 : 1);
      const time = prompts ? 3 : 1;
      const starts = Int32Array.from(texts, text => text.length);
      const tokens = Int32Array.from({ length: 3 * time }, (_, i) => (next[Math.floor(i / time)]! + (i % time)) % 40);
      for (const [n, text] of texts.entries()) text.push(...tokens.slice(n * time, n * time + counts[n]!));
      const size = { batch: 3, time, starts, counts };
      const chosen = await chooses.choose(tokens, size, samplers);
      const logits = await decodes.decode(tokens, size);
      for (const [n, text] of texts.entries()) {
        const own = logits.subarray(n * 40, (n + 1) * 40);
        assert.is(chosen[n], counts[n] === 0 ? -1 : sampleToken(own, samplers[n]!, text.length, text), `call ${call}`);
      }
      next = chosen.map((token, n) => (token < 0 ? next[n]! : token));
    }
    // What generation writes is what these choices are, and logits that are not numbers are told of.
    const limits = { maxTokens: 6, endOfText: null, contextLength: 16 };
    const sampler = samplers[0]!;
    const text = [3, 4];
    const { tokens } = await generate(chooses, Int32Array.from(text), { ...limits, sampler });
    for (const token of tokens) {
      const logits = await decodes.decode(Int32Array.from(text), {
        batch: 1,
        time: text.length,
        starts: Int32Array.of(0),
      });
      assert.is(token, sampleToken(logits, sampler, text.length, text));
      text.push(token);
    }
    chooses.writableParameters()[0]!.data.fill(Number.NaN);
    const fault = await generate(chooses, Int32Array.of(1), { ...limits, sampler }).catch(error => error);
    assert.match(fault.message, /^the prompt: the model answers with NaN/);
    for (const native of [chooses, decodes]) native.close();
  });

  test('gradients with no update are those of one step, stored anew by the next', async () => {
    const both = await openBoth();
    const { tokens, labels } = batchOf(model, 4, 6, 9);
    const gradients = [];
    for (const native of both)
      for (const microBatches of [2, 2]) {
        await native.step(tokens, labels, { microBatches, batch: 2, time: 6, update: null });
        gradients.push(native.parameters.map(({ gradient }) => gradient!.slice()));
      }
    for (const other of gradients.slice(1)) assert.equal(other, gradients[0]);
    for (const native of both) native.close();
  });

  test('a profile has the calls of each launch, and takes their time', async () => {
    const library = await buildEmulatedModel(model, { dtype: 'f32', profile: true });
    const both = await openBoth();
    const native = NativeModel.open(library, sizes);
    await native.initialize(3);
    assert.ok(native.profile().every(({ calls, seconds }) => calls === 0 && seconds === 0));
    const { launches } = compile(model, { target: 'cuda', profile: true });
    for (let update = 1; update <= 2; update++) {
      native.resetProfile();
      assert.equal(await step(native, update, 3, 2, 5), await step(both[0], update, 3, 2, 5));
      const profile = native.profile();
      assert.equal(
        profile.map(({ name }) => name),
        launches.map(({ name }) => name),
      );
      const calls = Object.fromEntries(profile.map(launch => [launch.name, launch.calls]));
      assert.is(calls['step/clear_gradients'], 1);
      assert.is(calls['step/prepare'], 3);
      assert.is(calls['step/gradient_norm'], 1);
      assert.is(calls['step/update'], 1);
      for (const { name, function: of, count } of launches) {
        const runs = /^block_(forward|backward)/.test(of) ? 6 : /^(embedding|head_train)/.test(of) ? 3 : 0;
        if (of !== 'step') assert.is(calls[name], runs * count, name);
      }
      for (const { name, calls, seconds } of profile) assert.is(seconds > 0, calls > 0, name);
    }
    for (const each of [native, ...both]) each.close();
  });

  test('a step of which a launch is refused moves nothing, and the model goes on', async () => {
    const line = 'if (time == 7) return cudaErrorInvalidConfiguration;';
    const change = inserting('cudaError_t launch_block_attention_norm(', line);
    const library = await buildEmulatedModel(model, { dtype: 'f32', change });
    const other = `${library}.other.so`;
    copyFileSync(library, other);
    const both = await openBoth();
    const [replays, launches] = [NativeModel.open(library, sizes), openBlocking(other)];
    for (const native of [replays, launches]) {
      await native.initialize(3);
      const before = native.parameters.map(({ data }) => data.slice());
      const refused = await step(native, 1, 3, 2, 7).then(
        () => 'nothing failed',
        (error: Error) => error.message,
      );
      assert.match(refused, /^malc_step: block_attention_norm \(tiny\.mal:\d+\): invalid configuration argument$/);
      for (const [n, { name, data }] of native.parameters.entries()) assert.equal(data.slice(), before[n], name);
      await native.initialize(3);
    }
    const results = [];
    for (const native of [...both, replays, launches]) results.push(await step(native, 1, 3, 2, 5));
    for (const result of results) assert.equal(result, results[0]);
    for (const native of [...both, replays, launches]) native.close();
  });

  // The address that the kernel reads is an invalid one for the emulator; a GPU may have something there.
  if (deviceArchitecture === null)
    test('a failed kernel is named with its line of MAL where launches block; else the call is, and how to learn more', async () => {
      const change = inserting(
        'block_attention_norm(int64_t batch, int64_t time, const float *x,',
        'malc_follow(); if (x[1 << 20] > 3.0f) return;',
      );
      const library = await buildEmulatedModel(model, { dtype: 'f32', checked: true, change });
      const failure = async (native: NativeModel): Promise<string> => {
        try {
          await native.evaluate(Int32Array.of(1), Int32Array.of(2), { batch: 1, time: 1 });
        } catch (error) {
          return (error as Error).message;
        }
        return 'nothing failed';
      };
      // After a failure the device of a library is lost: each failure has a library of its own.
      const other = `${library}.other.so`;
      copyFileSync(library, other);
      const [replays, launches] = [NativeModel.open(library, sizes), openBlocking(other)];
      const late = await failure(replays);
      assert.match(late, /^malc_evaluate: malc_evaluate: .*out of bounds: reads 4 bytes/);
      assert.match(late, /; CUDA_LAUNCH_BLOCKING=1 in the environment names the kernel that failed$/);
      process.env.CUDA_LAUNCH_BLOCKING = '1';
      const named = await failure(launches);
      delete process.env.CUDA_LAUNCH_BLOCKING;
      assert.match(named, /^malc_evaluate: block_attention_norm \(tiny\.mal:\d+\): .*out of bounds: reads 4 bytes/);
      assert.not.match(named, 'CUDA_LAUNCH_BLOCKING');
      for (const native of [replays, launches]) native.close();
    });
} else console.log('no g++ that the emulator can use: the host side of programs for CUDA is not run');

test.run();
