// config.json of transformers: what each field means, what is refused and how, and that a Model is written as it was read.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { architectureNames, architectureOf } from '../runtime/hub/architecture.ts';
import { readConfig } from '../runtime/hub/read-config.ts';
import { writeConfig } from '../runtime/hub/write-config.ts';
import { minimal } from './fixtures/hugging-face.ts';
import { userError } from './fixtures/user-error.ts';

const test = suite('import config');

const read = (config: unknown) => readConfig(config, 'm', 'config.json');
const blockOf = (config: unknown) => read(config).model.blocks[0]!;
const ropeOf = (config: unknown) => blockOf(config).attention.position_encoding;

test('each architecture is what it is', () => {
  const gpt2 = read(minimal.gpt2).model;
  assert.equal(gpt2.embeddings, {
    tie_weights: true,
    scale: null,
    learned_positions: 16,
    sinusoidal_positions: false,
    norm: null,
  });
  assert.equal(gpt2.blocks[0]!.ffn, { hidden_dim: 32, activation: 'gelu_tanh', gate: false, bias: true, origin: '' });
  assert.equal(gpt2.init, { std: 0.02, residual_scale: true });
  assert.equal(gpt2.layers, [0, 0]);

  assert.is(blockOf(minimal.llama).attention.num_kv_heads, 2);
  assert.equal(ropeOf(minimal.llama), { kind: 'rope', theta: 10000, dims: 4, interleaved: false, scaling: null });
  assert.equal(blockOf(minimal.llama).norm, { name: 'rmsnorm', constants: { eps: 1e-6 } });
  const biased = blockOf({ ...minimal.llama, attention_bias: true, mlp_bias: true, hidden_act: 'gelu_pytorch_tanh' });
  assert.equal([biased.attention.qkv_bias, biased.attention.output_bias, biased.ffn.bias], [true, true, true]);
  assert.is(biased.ffn.activation, 'gelu_tanh');

  assert.is(blockOf(minimal.mistral).attention.window_size, 4096);
  assert.is(blockOf({ ...minimal.mistral, sliding_window: null }).attention.window_size, null);
  assert.is(blockOf({ ...minimal.mistral, sliding_window: 8 }).attention.window_size, 8);

  const qwen2 = blockOf({ ...minimal.qwen2, sliding_window: 8, use_sliding_window: false });
  assert.equal([qwen2.attention.qkv_bias, qwen2.attention.output_bias], [true, false]);
  assert.is(qwen2.attention.window_size, null);
  assert.equal(blockOf(minimal.qwen3).attention.qk_norm, { name: 'rmsnorm', constants: { eps: 1e-6 } });
  assert.is(blockOf(minimal.qwen3).attention.qk_norm_over, 'head');
  assert.is(blockOf(minimal.olmo2).attention.qk_norm_over, 'all');
  assert.is(blockOf(minimal.olmo2).norm_position, 'output');

  const neox = blockOf(minimal.gpt_neox);
  assert.is(neox.parallel, true);
  assert.is(blockOf({ ...minimal.gpt_neox, use_parallel_residual: false }).parallel, false);
  assert.equal(neox.attention.position_encoding, {
    kind: 'rope',
    theta: 10000,
    dims: 2,
    interleaved: false,
    scaling: null,
  });
  assert.is(blockOf({ ...minimal.phi3, sliding_window: 5 }).attention.window_size, 5);
});

test('rotary positions are read from old files and new ones', () => {
  const scaling = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
  };
  const expected = {
    kind: 'rope',
    theta: 500000,
    dims: 4,
    interleaved: false,
    scaling: { kind: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_positions: 64 },
  };
  const newer = { rope_parameters: { rope_type: 'llama3', rope_theta: 500000, ...scaling } };
  const older = { rope_theta: 500000, rope_scaling: { rope_type: 'llama3', ...scaling } };
  const oldest = { rope_theta: 500000, rope_scaling: { type: 'llama3', ...scaling } };
  for (const form of [newer, older, oldest, { ...newer, ...older }])
    assert.equal(ropeOf({ ...minimal.llama, ...form }), expected);

  const linear = { ...minimal.llama, rope_scaling: { type: 'linear', factor: 2 } };
  assert.equal((ropeOf(linear) as { scaling: unknown }).scaling, { kind: 'linear', factor: 2 });
  const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 };
  assert.equal((ropeOf({ ...minimal.llama, rope_parameters: yarn }) as { scaling: unknown }).scaling, {
    kind: 'yarn',
    factor: 4,
    original_max_positions: 64,
    beta_fast: 32,
    beta_slow: 1,
    attention_factor: null,
  });
  const neox = { ...minimal.gpt_neox, rotary_pct: undefined, rotary_emb_base: 500 };
  assert.equal((ropeOf({ ...neox, rotary_pct: 1 }) as { theta: number }).theta, 500);
  const share = { rope_parameters: { rope_type: 'default', rope_theta: 7, partial_rotary_factor: 0.5 } };
  assert.equal(ropeOf({ ...minimal.phi3, ...share }), {
    kind: 'rope',
    theta: 7,
    dims: 2,
    interleaved: false,
    scaling: null,
  });
});

test('what would change the mathematics is refused by the field’s name', () => {
  const { llama, gpt2, qwen2, phi3 } = minimal;
  const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 };
  const cases: readonly (readonly [config: unknown, expected: RegExp])[] = [
    [[], /config\.json is not a JSON object/],
    [{}, /model_type is missing/],
    [{ model_type: 'bert' }, /architecture 'bert' is not supported; model_type can be one of gpt2, llama, .*phi3/],
    [
      { ...llama, architectures: ['LlamaForSequenceClassification'] },
      /architectures is .*needs \["LlamaForCausalLM"\]/,
    ],
    [{ ...llama, attn_logit_softcapping: 50 }, /does not know what attn_logit_softcapping \(50\) means for llama/],
    [{ ...llama, quantization_config: {}, rope: 1 }, /what quantization_config \(\{\}\), rope \(1\) mean for llama/],
    [{ ...llama, hidden_size: undefined }, /hidden_size is missing; malc needs a whole number above 0/],
    [{ ...llama, hidden_size: 8.5 }, /hidden_size is 8\.5, which is not supported/],
    [{ ...llama, hidden_size: 9 }, /2 heads do not divide the hidden size, 9/],
    [{ ...llama, num_attention_heads: 4, num_key_value_heads: 3 }, /4 heads cannot share 3 heads/],
    [{ ...llama, hidden_act: 'quick_gelu' }, /hidden_act is "quick_gelu".*one of silu, /],
    [{ ...llama, tie_word_embeddings: 'yes' }, /tie_word_embeddings is "yes".*true or false/],
    [{ ...llama, pruned_heads: { 0: [1] } }, /pruned_heads is /],
    [{ ...llama, sliding_window: 8 }, /does not know what sliding_window/],
    [
      { ...llama, rope_scaling: { type: 'dynamic', factor: 2 } },
      /rope_type is "dynamic".*default, linear, llama3, yarn/,
    ],
    [{ ...llama, rope_scaling: { type: 'linear' } }, /rope_scaling\.factor is missing/],
    [{ ...llama, rope_scaling: { type: 'linear', factor: 2, tilt: 1 } }, /rope_scaling\.tilt is 1/],
    [{ ...llama, rope_parameters: { ...yarn, truncate: false } }, /rope_parameters\.truncate is false/],
    [{ ...llama, rope_parameters: yarn, rope_scaling: { type: 'linear', factor: 2 } }, /and rope_scaling differ/],
    [{ ...llama, rope_theta: 5, rope_parameters: { rope_theta: 6 } }, /rope_theta is 5.*rope_parameters\.rope_theta's/],
    [{ ...llama, rope_parameters: { partial_rotary_factor: 0.5 } }, /partial_rotary_factor is 0\.5.*needs 1/],
    [{ ...phi3, rope_scaling: { type: 'longrope', short_factor: [1] } }, /rope_type is "longrope"/],
    [{ ...phi3, partial_rotary_factor: 0.3 }, /1 elements of a head of 4 cannot turn in pairs/],
    [{ ...gpt2, scale_attn_by_inverse_layer_idx: true }, /scale_attn_by_inverse_layer_idx is true.*needs false/],
    [{ ...gpt2, add_cross_attention: true }, /add_cross_attention is true/],
    [{ ...qwen2, use_sliding_window: true }, /use_sliding_window is true/],
    [{ ...qwen2, layer_types: ['full_attention', 'sliding_attention'] }, /layer_types is .*needs "full_attention"/],
  ];
  for (const [config, expected] of cases)
    assert.match(
      userError(() => read(config)),
      expected,
    );
});

test('what changes only how transformers trains is said', () => {
  assert.equal(read({ ...minimal.gpt2, attn_pdrop: 0.1, resid_pdrop: 0, use_cache: true }).warnings, [
    'config.json: attn_pdrop is 0.1; malc trains without dropout',
  ]);
  assert.match(read({ ...minimal.olmo2, pad_token_id: 1 }).warnings[0]!, /does not train that token's embedding/);
});

test('every architecture comes back from what is written for it', () => {
  const tokens = { bos_token_id: 0, eos_token_id: 1, pad_token_id: null };
  const variants = Object.values(minimal).concat(
    { ...minimal.llama, rope_scaling: { type: 'linear', factor: 2 }, tie_word_embeddings: true },
    { ...minimal.llama, rope_scaling: { type: 'yarn', factor: 2, original_max_position_embeddings: 8, mscale: 1 } },
    { ...minimal.gpt_neox, use_parallel_residual: false, attention_bias: false },
  );
  for (const config of variants) {
    const { model, architecture } = read(config);
    const written = writeConfig(model, architecture, tokens);
    assert.ok('config' in written, JSON.stringify(written));
    assert.equal(read(written.config).model, model);
  }
  assert.equal(Object.keys(minimal).sort(), architectureNames().toSorted());
});

test('what an architecture cannot say stands in the way, by its name', () => {
  const { model } = read(minimal.llama);
  const obstacle = (changes: Partial<Model>) => {
    const tokens = { bos_token_id: null, eos_token_id: null, pad_token_id: null };
    const written = writeConfig({ ...model, ...changes }, architectureOf('llama'), tokens);
    return 'obstacle' in written ? written.obstacle : 'none';
  };
  const block = model.blocks[0]!;
  const withRope = (rope: object) => {
    const position_encoding = { ...(block.attention.position_encoding as object), ...rope } as never;
    return { blocks: [{ ...block, attention: { ...block.attention, position_encoding } }] };
  };
  assert.is(obstacle({}), 'none');
  assert.is(obstacle({ init: { std: 0.01, residual_scale: true } }), 'none');
  assert.match(
    obstacle({ output: { ...model.output, softcap: 30 } }),
    /^output\.softcap is 30 and would have to be null/,
  );
  assert.match(obstacle({ blocks: [{ ...block, parallel: true }] }), /^block\.parallel is true/);
  // A property that the patterns have never heard of stands in the way, too.
  assert.match(obstacle({ later: 1 } as Partial<Model>), /^later is 1 and would have to be null/);
  assert.match(
    obstacle({ blocks: [{ ...block, attention: { ...block.attention, softcap: 50 } }] }),
    /^block\.attention\.softcap is 50 and would have to be null/,
  );
  assert.match(obstacle({ blocks: [block, block] }), /2 kinds of block/);
  assert.match(obstacle(withRope({ interleaved: true })), /interleaved is true/);
  assert.match(obstacle(withRope({ scaling: { kind: 'ntk', factor: 2 } })), /scaling is ntk/);
  assert.match(obstacle(withRope({ dims: 2 })), /dims is 2 of a head's 4/);
  assert.match(obstacle(withRope({ kind: 'none' })), /position_encoding is none and would have to be rope/);
  assert.match(obstacle({ blocks: [{ ...block, ffn: { ...block.ffn, activation: 'elu' } }] }), /activation elu/);
});

test.run();
