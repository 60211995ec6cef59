// What norms ask of the rows that products make, in programs of bfloat16 for CUDA: which launches it spares, that nothing
// but rounding changes, and random architectures in the emulator, by the kernels for all GPUs and by those for Hopper.
import { copyFileSync } from 'node:fs';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram, type Program } from '../compiler/build/program.ts';
import type { Block, Model } from '../compiler/check/model.ts';
import { readModel } from '../compiler/check/read-model.ts';
import { standardLibrary } from '../compiler/check/standard-library.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { dimension, time as rows } from '../compiler/graph/dimension.ts';
import { makeGraph, type Node } from '../compiler/graph/graph.ts';
import { verify } from '../compiler/graph/verify.ts';
import { compile } from '../compiler/index.ts';
import { fuse } from '../compiler/kernels/fuse.ts';
import { multiplyMatrices } from '../compiler/ops/contract.ts';
import { mapOver } from '../compiler/ops/map.ts';
import { sum } from '../compiler/ops/reduce.ts';
import { compose } from '../compiler/passes/compose.ts';
import { defer } from '../compiler/passes/defer.ts';
import { apply, multiply, operand } from '../compiler/scalar/expression.ts';
import type { Tunable } from '../compiler/targets/cuda/tunable.ts';
import { NativeModel } from '../runtime/native.ts';
import { buildEmulatedModel } from './cuda/build.ts';
import { drawParameters } from './draw-parameters.ts';
import { holdStep } from './held-against-oracle.ts';
import { oracle } from './oracle.ts';
import { randomModel, wideModel } from './random-models.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

fc.configureGlobal({ includeErrorInReport: true });
const test = suite('cuda statistics of rows');

const forwardLaunches = (name: string, dtype: 'f32' | 'bf16'): readonly string[] =>
  compile(readModel(name).model, { target: 'cuda', dtype }).plan.functions.find(each => each.name === 'block_forward')!
    .launches;

test('rmsnorm after a product is no launch in bfloat16, and one in float32', () => {
  assert.equal(forwardLaunches('llama-small', 'bf16'), [
    'block_attention_norm',
    'block_query_key_value',
    'block_attention',
    'block_attention_residual_feed_forward_norm_unscaled',
    'block_gate_up_gated',
    'block_y',
  ]);
  assert.is(forwardLaunches('llama-small', 'f32').length, 7);
});

test('launches that overlap the one before read nothing by a pointer that nvcc takes for constant', () => {
  const asTheyCome = { schedule: { queryGradient: 'as-they-come' }, library: false } as const;
  const choiceOf = ({ kind }: Tunable) => (kind === 'attention-gradient' ? asTheyCome : null);
  const heads = ['gpt2-small', 'llama-small'].flatMap(name => {
    const { files } = compile(readModel(name).model, { target: 'cuda', dtype: 'bf16', choiceOf, anyOrder: true });
    return Object.values(files).flatMap(text => text.match(/__global__ void[^{;]*/g) ?? []);
  });
  // Statistics and totals of what is stored, and sums that another launch has added up, are only read.
  const those = (pattern: RegExp) => heads.filter(head => pattern.test(head));
  const [completing, rounding] = [those(/_(statistics|totals)\(/), those(/_round_sm90\(/)];
  assert.ok(completing.length > 0 && rounding.length > 0);
  for (const head of completing) assert.not.match(head, '__restrict__');
  for (const head of rounding) assert.not.match(head, /__restrict__ workspace/);
});

test('before layernorm the residual is added in the product, and no row is summed up where it is read', () => {
  const { model } = readModel('gpt2-small');
  const forward = compose(buildProgram(model, standardLibrary()).blocks[0]!.forward);
  const { kernels } = fuse(forward, { fuse: true, statistics: true });
  const measured = kernels.flatMap(kernel => (kernel.kind === 'matmul' ? kernel.groups : []));
  assert.equal(
    measured.flatMap(({ statistics }) => statistics?.of.label ?? []),
    ['attention_residual'],
  );
  const norm = kernels.find(({ outputs }) => outputs.some(({ label }) => label === 'feed_forward_norm'))!;
  assert.equal(
    norm.members.map(({ primitive }) => primitive!.name),
    ['map'],
  );
});

test('squares that something else reads are no term of a statistic', () => {
  const builder = new Builder();
  const [inner, columns] = [dimension('inner', 16), dimension('columns', 32)];
  const [x, weight] = [builder.input('x', [rows, inner]), builder.input('weight', [columns, inner])];
  const product = multiplyMatrices(builder, x, weight, [rows, columns]);
  const made = mapOver(builder, [rows, columns], apply('tanh', operand(0)), [product]);
  const squared = mapOver(builder, [rows, columns], multiply(operand(0), operand(0)), [made]);
  const all = [made, squared, sum(builder, squared, ['columns'])];
  const measuredOf = (nodes: readonly Node[]) => {
    const outputs = nodes.map((node, n) => ({ name: `output_${n}`, node, accumulate: false }));
    const { kernels } = fuse(makeGraph('squares', outputs), { fuse: true, statistics: true });
    return kernels
      .flatMap(kernel => (kernel.kind === 'matmul' ? kernel.groups : []))
      .map(({ statistics }) => statistics?.of);
  };
  assert.equal(measuredOf([all[0]!, all[2]!]), [made]);
  assert.equal(measuredOf(all), [undefined]);
});

/** A block with a norm before all that it does. */
const normed = (block: Block, name: 'rmsnorm' | 'layernorm'): Block => ({
  ...block,
  name: `${block.name}_${name}`,
  norm: { name, constants: { eps: 1e-5 } },
  norm_position: 'pre',
  parallel: false,
});

/** The program with what defer makes of it. */
const deferred = (program: Program): Program => ({
  ...program,
  blocks: program.blocks.map(block => ({ ...block, forward: compose(defer(compose(block.forward))) })),
});

const scaled = (model: Model): Model => ({ ...model, blocks: model.blocks.map(block => normed(block, 'rmsnorm')) });

test('scales of rows are multiplied after products to the same effect', () => {
  let changed = 0;
  fc.assert(
    fc.property(randomModel.map(scaled), fc.nat(1000), (model, seed) => {
      const program = buildProgram(model, standardLibrary());
      const other = deferred(program);
      for (const { forward } of other.blocks) {
        verify(forward);
        changed += forward.nodes.filter(({ label }) => label.endsWith('_unscaled')).length;
      }
      const random = randomNumbers(seed);
      const { values } = drawParameters(program, random);
      const tokens = Int32Array.from({ length: 6 }, () => Math.floor(random() * model.vocab_size));
      const [expected, found] = [program, other].map(each => oracle(each, values, tokens, tokens, 2, 3));
      const away = found!.logits.map((logit, n) => Math.abs(logit - expected!.logits[n]!));
      assert.ok(Math.max(...away) < 1e-9, `logits are ${Math.max(...away)} away`);
    }),
    { seed: 3, numRuns: 25 },
  );
  assert.ok(changed > 5, `${changed} norms`);
});

/** A random block, once with each norm. */
const wholeModel = wideModel.filter(({ blocks: [first] }) => first!.ffn !== null && first!.attention !== null);
const both = ({ blocks: [first], ...model }: Model): Model => ({
  ...model,
  blocks: [normed(first!, 'rmsnorm'), normed(first!, 'layernorm')],
  layers: [0, 1],
  max_seq_len: 96,
});
/** More rows than a tile has, and no whole number of tiles. */
const [batch, time] = [2, 67];

async function holdOn(capability: string, library: string, model: Model, seed: number): Promise<void> {
  const before = process.env.MALC_SIMT_CAPABILITY;
  process.env.MALC_SIMT_CAPABILITY = capability;
  const copy = `${library}.${capability}.so`; // each asks once
  copyFileSync(library, copy);
  const maxContext = model.max_seq_len;
  const native = NativeModel.open(copy, { maxBatch: batch, maxTime: time, maxContext, training: true, seed: 5 });
  try {
    await holdStep(native, model, batch, time, seed, 'bf16');
  } finally {
    native.close();
    if (before === undefined) delete process.env.MALC_SIMT_CAPABILITY;
    else process.env.MALC_SIMT_CAPABILITY = before;
  }
}

if (await emulatorAvailable())
  for (const [n, model] of fc.sample(wholeModel.map(both), { seed: 12, numRuns: 1 }).entries())
    test(`random model ${n}: logits, loss, gradients, causality`, async () => {
      const sources: string[] = [];
      const change = (source: string) => {
        sources.push(source);
        return source;
      };
      const library = await buildEmulatedModel(model, { dtype: 'bf16', change });
      for (const type of ['squares', 'moments'])
        assert.match(sources.join('\n'), `malc_joined_parts<malc_${type}>`, 'tiles leave parts of statistics');
      for (const capability of ['8.0', '9.0']) await holdOn(capability, library, model, n + 1);
    });
else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test.run();
