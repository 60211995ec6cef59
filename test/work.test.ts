// The work of launches, counted by hand: operations and bytes of a llama block, pairs of attention, parts of the head.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { flopsPerToken } from '../compiler/check/cost.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { compile } from '../compiler/index.ts';
import { amount, type Pairs } from '../compiler/plan/work.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { ProgramLaunch } from '../compiler/targets/cpu/index.ts';

const test = suite('work');

function modelOf(text: string): Model {
  const { model } = check(parse(text, 'work.mal').syntax);
  if (!model) throw new Error('the test’s model does not compile');
  return model;
}

const heads = 4;
const [hidden, dim, keyValue, ffn, vocabulary] = [32, 8, 16, 48, 50];
const llama = modelOf(`
model llama {
  vocab_size: ${vocabulary} hidden_size: ${hidden} num_layers: 3 max_seq_len: 64
  block {
    attention { num_heads: ${heads} num_kv_heads: 2 position_encoding: rope { theta: 10000 } }
    ffn { hidden_dim: ${ffn} activation: swiglu }
    norm: rmsnorm
  }
}`);
const [batch, time] = [3, 20];
const sizes = { batch, time, context: time };
const tokens = batch * time;
/** Queries and the keys that they see, of all sequences. */
const pairs = (batch * time * (time + 1)) / 2;

const launches = compile(llama).launches;
function launch(name: string): ProgramLaunch {
  const found = launches.find(candidate => candidate.name === name);
  if (!found) throw new Error(`no launch ${name} among\n${launches.map(each => each.name).join('\n')}`);
  return found;
}
const operations = (name: string) => amount(launch(name).work.operations, sizes);
const floatsRead = (name: string) => amount(launch(name).work.reads, sizes) / 4;
const floats = (name: string) => floatsRead(name) + amount(launch(name).work.writes, sizes) / 4;

test('a llama block forward: operations', () => {
  const qkv = hidden + 2 * keyValue;
  // Rotation: x cos + partner sin, of queries and keys.
  assert.is(operations('block_forward/block_query_key_value'), tokens * (2 * hidden * qkv + 3 * (hidden + keyValue)));
  assert.is(operations('block_forward/block_attention'), 4 * heads * dim * pairs);
  assert.is(operations('block_forward/block_attention_residual'), tokens * (2 * hidden * hidden + hidden));
  // Gate and up; x sigmoid(x) up.
  assert.is(operations('block_forward/block_gate_up_gated'), tokens * (2 * hidden * 2 * ffn + 3 * ffn));
  assert.is(operations('block_forward/block_y'), tokens * (2 * ffn * hidden + hidden));
  // Of each element its square, their sum, and two products; of each row mean, epsilon and the root.
  assert.is(operations('block_forward/block_attention_norm'), tokens * (4 * hidden + 3));
});

test('a llama block forward: bytes, each value once', () => {
  const qkv = hidden + 2 * keyValue;
  assert.is(floats('block_forward/block_query_key_value'), tokens * (hidden + qkv) + hidden * qkv + 2 * time * dim);
  // It leaves the log of the sum of exponentials too.
  assert.is(floats('block_forward/block_attention'), tokens * (2 * hidden + 2 * keyValue + heads));
  assert.is(floats('block_forward/block_attention_residual'), tokens * 3 * hidden + hidden * hidden);
  // Gate and up are kept for the backward pass.
  assert.is(floats('block_forward/block_gate_up_gated'), tokens * (hidden + 3 * ffn) + 2 * hidden * ffn);
  assert.is(floatsRead('block_forward/block_y'), tokens * (ffn + hidden) + ffn * hidden);
  assert.is(floats('block_forward/block_y'), tokens * (ffn + 2 * hidden) + ffn * hidden);
});

test('a llama block backward: each product twice, attention’s five products', () => {
  assert.is(operations('block_backward/block_attention_gradient'), (10 / 2) * heads * dim * 2 * pairs);
  // The inputs' gradients of gate and up, added up, and the weights' of down, which waited for what it is made of.
  assert.is(
    operations('block_backward/block_feed_forward_norm_gradient_and_weights'),
    tokens * (3 * 2 * hidden * ffn + hidden),
  );
  // Weights of gate and up are read, the gradients of down's read and written; the norm's gradient is new; the gradients of
  // gate, up and y are read, and what down multiplied.
  assert.is(
    floats('block_backward/block_feed_forward_norm_gradient_and_weights'),
    tokens * (2 * hidden + 3 * ffn) + (2 + 2) * hidden * ffn,
  );
});

test('the head is counted once, however many parts it takes', () => {
  const { part, count } = launch('head_train/head_logits_kernel');
  assert.equal([part, count], [512, 1]);
  assert.is(operations('head_train/head_logits_kernel'), 2 * tokens * hidden * vocabulary);
  assert.is(launch('block_forward/block_y').part, null);
});

test('what a step does besides: every parameter', () => {
  const perLayer = 2 * hidden * hidden + 2 * hidden * keyValue + 3 * hidden * ffn + 2 * hidden;
  const parameters = 3 * perLayer + hidden + vocabulary * hidden * (llama.embeddings.tie_weights ? 1 : 2);
  assert.is(floats('step/clear_gradients'), parameters);
  assert.equal([operations('step/gradient_norm'), floats('step/gradient_norm')], [2 * parameters, parameters]);
  assert.equal([operations('step/update'), floats('step/update')], [15 * parameters, 7 * parameters]);
});

test('pairs are those that a query sees, one by one', () => {
  for (const [causal, window] of [
    [true, 0],
    [true, 5],
    [true, 1],
    [false, 0],
    [false, 5],
  ] as const)
    for (const [queries, keys] of [
      [12, 12],
      [1, 12],
      [4, 12],
      [3, 3],
      [1, 1],
    ] as const) {
      let seen = 0;
      for (let query = keys - queries; query < keys; query++)
        for (let key = 0; key < keys; key++)
          if ((key <= query || !causal) && (window === 0 || key > query - window)) seen++;
      const range: Pairs = { keys: 'context', causal, window };
      const quantity = { runtime: ['batch'], count: 7, pairs: range };
      const counted = amount([quantity], { batch: 2, time: queries, context: keys });
      assert.is(counted, 14 * seen, `${queries} of ${keys}, causal ${causal}, window ${window}`);
    }
});

test('experts are counted by slots, and a scan by its state', () => {
  const model = modelOf(`
ffn experts { hidden_dim: 24 activation: relu gate: false moe { experts: 6 top_k: 2 } }
block sparse { attention { num_heads: 2 } ffn: experts }
block state { ssm { state_dim: 4 expand: 2 conv_kernel: 3 } ffn: none }
model mixed { vocab_size: 40 hidden_size: 16 max_seq_len: 32 layers: [sparse, state] }
`);
  const own = compile(model).launches;
  const kindOf = new Map(compile(model).kernels.map(({ name, kind }) => [name, kind]));
  const total = (kind: string, within: string) =>
    own
      .filter(({ kernel, function: name }) => kindOf.get(kernel) === kind && name === within)
      .reduce((sum, { work }) => sum + amount(work.operations, sizes), 0);
  const slots = 2 * tokens;
  assert.is(total('grouped', 'block_sparse_forward'), 2 * 2 * slots * 16 * 24);
  assert.is(total('grouped-gradient', 'block_sparse_backward'), 2 * 2 * slots * 16 * 24);
  assert.is(total('scan', 'block_state_forward'), 7 * tokens * 32 * 4);
  assert.is(total('scan-gradient', 'block_state_backward'), 14 * tokens * 32 * 4);
  assert.is(total('convolution', 'block_state_forward'), 2 * tokens * 32 * 3);
});

test('a whole step comes to what malc info says, and the rows between the products to little more', () => {
  for (const name of ['lil-39m', 'gpt2-small', 'hybrid-tiny']) {
    const { model } = readModel(name);
    const step = { batch: 2, time: 256, context: 256 };
    const runs = (of: string) => (/decode|loss|logits/.test(of) ? 0 : of.startsWith('block') ? layersOf(model, of) : 1);
    const total = compile(model).launches.reduce(
      (sum, { function: of, kernel, work }) =>
        sum + (kernel === 'update' ? 0 : runs(of) * amount(work.operations, step)),
      0,
    );
    const ratio = total / (2 * 256 * flopsPerToken(model, 256));
    assert.ok(ratio > 0.95 && ratio < 1.1, `${name}: ${ratio}`);
  }
});

/** Layers whose block has this function. */
function layersOf(model: Model, functionName: string): number {
  if (model.blocks.length === 1) return model.layers.length;
  const kind = model.blocks.findIndex(({ name }) => functionName.replace(/^block_|_(forward|backward)$/g, '') === name);
  return model.layers.filter(layer => layer === kind).length;
}

test('a program without a profile has no clock in it; one with a profile is the same besides', () => {
  const plain = compile(llama).files;
  const profiled = compile(llama, { profile: true }).files;
  const words = /profile\.h|malc_(start|lap|watch|timing)|clock_gettime/;
  for (const [name, text] of Object.entries(plain)) assert.not.match(text, words, name);
  assert.equal(
    Object.keys(profiled).filter(name => !(name in plain)),
    ['profile.h'],
  );
  const kernels = (source: string) => source.slice(source.indexOf('Kernels ----'), source.indexOf('Stages ----'));
  assert.is(kernels(profiled['model.c']!), kernels(plain['model.c']!));
  const body = profiled['model.c']!.replace(/^ *malc_(start|lap)\(.*\n/gm, '');
  assert.ok(body.includes('block_y('), 'launches are there');
  const laps = [...profiled['model.c']!.matchAll(/malc_lap\(.*, (\d+)\)/g)].map(([, number]) => Number(number));
  assert.equal(
    [...new Set(laps)].sort((a, b) => a - b),
    launches.map((_, number) => number),
  );
});

test.run();
