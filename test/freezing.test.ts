// Programs that freeze some parameters: layers from the bottom, tensors by name, all but one; on the CPU, and on CUDA's
// emulator.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { formulaLibrary } from '../compiler/check/standard-library.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { compile } from '../compiler/index.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { openEmulated } from './cuda/build.ts';
import { edgeModel } from './edge-models.ts';
import { open } from './held-against-oracle.ts';
import { holdFreezing, matching } from './held-freezing.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('freezing');

/** A model of so many layers. */
function denseModel(layers: number, embeddings: string, moe = ''): Model {
  const text = `model dense {
    vocab_size: 11  max_seq_len: 32  hidden_size: 16  num_layers: ${layers}
    embeddings { ${embeddings} }
    block { attention { num_heads: 2  num_kv_heads: 1  bias: true }  ffn { hidden_dim: 24  ${moe} } }
  }`;
  return check(parse(text, 'dense.mal').syntax).model!;
}

const dense = denseModel(4, 'tie_weights: true');
const untied = denseModel(1, 'tie_weights: false');
const sparse = denseModel(2, 'tie_weights: true', 'moe { experts: 3  top_k: 1  balance: aux_free { rate: 0.1 } }');
const size = { batch: 2, time: 7 };

const cases: readonly (readonly [name: string, model: Model, pattern: RegExp])[] = [
  [
    'the embedding, which is the head too, layers and single tensors',
    dense,
    /embed|layers\.0|layers\.[13].*(k_proj|norm)/,
  ],
  ['all but the head', untied, /embed|layers/],
  ['biases that balance experts, with their layer and alone', sparse, /layers\.0|layers\.1.*correction_bias/],
  ['modules, and what they hand on to', edgeModel('further'), /embed_norm|layers\.(0|[2-4])\./],
];

for (const [name, model, pattern] of cases) {
  test(`${name}: no gradient, the same bytes, and all else as it is without`, async () => {
    const whole = await open(model, { fuse: true }, size);
    const frozen = matching(whole, pattern);
    assert.ok(frozen.length > 0 && frozen.length < whole.parameters.length);
    const native = await open(model, { fuse: true, frozen }, size);
    await holdFreezing(whole, native, model, frozen, size);
    native.close();
    whole.close();
  });
}

const emulated = await emulatorAvailable();
if (!emulated) console.log('no g++ that the emulator can use: nothing is frozen on CUDA');
if (emulated) {
  test('the same on CUDA', async () => {
    const whole = await openEmulated(dense, { dtype: 'f32' }, size);
    const frozen = matching(whole, /embed|layers\.[0-2]/);
    const native = await openEmulated(dense, { dtype: 'f32', frozen }, size);
    await holdFreezing(whole, native, dense, frozen, size);
    native.close();
    whole.close();
  });
}

test('what is frozen has no product for its gradient, and the backward pass ends above it', () => {
  const names = (frozen: readonly string[]) => compile(dense, { frozen }).plan.functions.map(({ name }) => name);
  const lower = [...Array(2).keys()].flatMap(layer =>
    buildProgram(dense, formulaLibrary(dense)).blocks[0]!.parameters.map(({ name }) => `model.layers.${layer}.${name}`),
  );
  const functions = names(['model.embed_tokens.weight', ...lower]);
  assert.ok(functions.includes('block_lowest_backward') && functions.includes('block_trained_backward'));
  assert.not(functions.some(name => name === 'embedding_backward' || name === 'block_frozen_backward'));
  // One that is trained below them, and they hand the gradient on.
  assert.ok(names(lower).includes('block_passing_backward'));
  const gradients = (frozen: readonly string[]) =>
    compile(dense, { frozen }).files['model.c']!.match(/k_proj_weight_gradient/g);
  assert.is(gradients([0, 1, 2, 3].map(layer => `model.layers.${layer}.self_attn.k_proj.weight`)), null);
  assert.ok(gradients([])!.length > 0);
});

test('modules that share their functions are frozen alike', () => {
  const further = edgeModel('further');
  assert.throws(
    () => compile(further, { frozen: ['model.layers.3.hnorm.weight'] }),
    (error: Error) =>
      error instanceof UserError && /freeze model\.layers\.2 to model\.layers\.4 alike/.test(error.message),
  );
});

test.run();
