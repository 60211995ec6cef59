// Programs that freeze some parameters: layers from the bottom, tensors by name, all but one; on the CPU, and on CUDA's
// emulator.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { compile, type PlanSummary } from '../compiler/index.ts';
import { bytesKept } from '../compiler/plan/recompute.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { frozenParameters } from '../runtime/train/frozen.ts';
import { openEmulated } from './cuda/build.ts';
import { edgeModel } from './edge-models.ts';
import { open } from './held-against-oracle.ts';
import { holdFreezing } from './held-freezing.ts';
import { emulatorAvailable } from './simt/build.ts';

const test = suite('freezing');

/** A model of so many layers. */
function modelOf(layers: number, embeddings: string, moe = ''): Model {
  const text = `model dense {
    vocab_size: 11  max_seq_len: 32  hidden_size: 16  num_layers: ${layers}
    embeddings { ${embeddings} }
    block { attention { num_heads: 2  num_kv_heads: 1  bias: true }  ffn { hidden_dim: 24  ${moe} } }
  }`;
  return check(parse(text, 'dense.mal').syntax).model!;
}

const found = (model: Model, pattern: string) => frozenParameters(model, { 'freeze-layers': 0, freeze: [pattern] });

const dense = modelOf(4, 'tie_weights: true');
const shallow = modelOf(2, 'tie_weights: true');
const untied = modelOf(1, 'tie_weights: false');
const sparse = modelOf(4, 'tie_weights: true', 'moe { experts: 3  top_k: 1  balance: aux_free { rate: 0.1 } }');
const size = { batch: 2, time: 7 };

const cases: readonly (readonly [name: string, model: Model, pattern: string])[] = [
  [
    'the embedding, which is the head too, tensors, biases that balance experts, with their layer and alone',
    sparse,
    'embed|layers\\.0|layers\\.[13].*(k_proj|norm)|layers\\.2.*correction_bias',
  ],
  ['all but the head', untied, 'embed|layers'],
  ['modules, and what they hand on to', edgeModel('further'), 'embed_norm|layers\\.(0|[2-4])\\.'],
];

for (const [name, model, pattern] of cases)
  test(`${name}: no gradient, the same bytes, and all else as the oracle has it`, async () => {
    const frozen = found(model, pattern);
    const native = await open(model, { fuse: true, frozen }, size);
    await holdFreezing(native, model, frozen, size);
    native.close();
  });

const emulated = await emulatorAvailable();
if (!emulated) console.log('no g++ that the emulator can use: nothing is frozen on CUDA');
if (emulated)
  test('the same on CUDA, in bfloat16, where products read copies of frozen weights and of trained ones', async () => {
    // Two layers: in deeper ones of so small a model the gradients of queries and keys are differences of numbers a
    // hundred times as large, of which bfloat16 leaves little, whatever is frozen.
    const frozen = found(shallow, 'embed|layers\\.0|layers\\.1.*(v_proj|up_proj)');
    const native = await openEmulated(shallow, { dtype: 'bf16', frozen }, size);
    await holdFreezing(native, shallow, frozen, size, 'bf16');
    native.close();
  });

test('what is frozen has no product for its gradient, and the backward pass ends above it', () => {
  const planOf = (frozen: readonly string[]) => compile(dense, { frozen }).plan;
  const names = ({ functions }: PlanSummary) => functions.map(({ name }) => name);
  const lowest = planOf(found(dense, 'embed|layers\\.[01]\\.'));
  const functions = names(lowest);
  assert.ok(functions.includes('block_lowest_backward') && functions.includes('block_trained_backward'));
  assert.not(functions.some(name => name === 'embedding_backward' || name === 'block_frozen_backward'));
  // One that is trained below them, and they hand the gradient on.
  assert.ok(names(planOf(found(dense, 'layers\\.[01]\\.'))).includes('block_passing_backward'));
  const gradients = (frozen: readonly string[]) =>
    compile(dense, { frozen }).files['model.c']!.match(/k_proj_weight_gradient/g);
  assert.is(gradients(found(dense, 'k_proj.weight')), null);
  assert.ok(gradients([])!.length > 0);
  // Nothing is kept for what has no backward pass, and no function needs more room.
  const whole = planOf([]);
  assert.is(bytesKept(lowest.kept, size), bytesKept(whole.kept, size) / 2);
  const room = (plan: PlanSummary) =>
    Math.max(...plan.functions.map(({ intermediate }) => intermediate['batch*time'] ?? 0));
  assert.ok(room(lowest) <= room(whole), `${room(lowest)} floats for each position, of ${room(whole)}`);
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
