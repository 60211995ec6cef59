// config.json of transformers: what each field means, what is refused and how, and that a Model is written as it was read.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Block, Model } from '../compiler/check/model.ts';
import { architectureNames, architectureOf } from '../runtime/hub/architecture.ts';
import { readConfig } from '../runtime/hub/read-config.ts';
import { configText, writeConfig } from '../runtime/hub/write-config.ts';
import { minimal } from './fixtures/hugging-face.ts';
import { userError } from './fixtures/user-error.ts';

const test = suite('import config');

const read = (config: unknown) => readConfig(config, 'm', 'config.json');
/** The block of the first layer, for models of attention with a feed-forward. */
const blockOf = (config: unknown) => {
  const { attention, ffn, ...block } = read(config).model.blocks[0]!;
  return { ...block, attention: attention!, ffn: ffn! };
};
const ropeOf = (config: unknown) => blockOf(config).attention.position_encoding;

test('each architecture is what it is', () => {
  const gpt2 = read(minimal.gpt2).model;
  assert.equal(gpt2.embeddings, {
    tie_weights: true,
    scale: null,
    dropout: 0.1,
    untrained_token: null,
    role_embeddings: null,
    learned_positions: 16,
    sinusoidal_positions: false,
    norm: null,
  });
  const { attention, ffn, dropout } = blockOf(minimal.gpt2);
  assert.equal(ffn, {
    dropout: 0,
    moe: null,
    hidden_dim: 32,
    activation: 'gelu_tanh',
    gate: false,
    bias: true,
    origin: '',
  });
  assert.equal([attention.dropout, dropout, attention.value_head_dim, attention.scale], [0.1, 0.1, 4, null]);
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

test('layers of two kinds, and which is which', () => {
  const kinds = (config: unknown) => {
    const { blocks, layers } = read(config).model;
    return layers.map(layer => blocks[layer]!.name).join(' ');
  };
  const four = { num_hidden_layers: 4 };
  assert.is(kinds({ ...minimal.gemma2, ...four }), 'sliding full sliding full');
  const listed = ['full_attention', 'sliding_attention', 'sliding_attention', 'full_attention'];
  assert.is(kinds({ ...minimal.gemma2, ...four, layer_types: listed }), 'full sliding sliding full');
  assert.is(kinds({ ...minimal.gemma3_text, ...four, sliding_window_pattern: 3 }), 'sliding sliding full sliding');
  assert.is(kinds({ ...minimal.qwen3_moe, ...four }), 'dense sparse sparse sparse');
  const second = { decoder_sparse_step: 2, mlp_only_layers: [3] };
  assert.is(kinds({ ...minimal.qwen3_moe, ...four, ...second }), 'dense sparse dense dense');
  assert.is(kinds({ ...minimal.deepseek_v2, ...four, first_k_dense_replace: 2 }), 'dense dense sparse sparse');
  assert.is(kinds({ ...minimal.deepseek_v2, ...four, first_k_dense_replace: 0 }), 'sparse sparse sparse sparse');
  assert.is(kinds({ ...minimal.deepseek_v3, ...four, first_k_dense_replace: undefined }), 'dense dense dense sparse');
});

test('gemma: windows, scale, caps, and a base of its own for layers with a window', () => {
  const { model } = read({ ...minimal.gemma2, query_pre_attn_scalar: 16, final_logit_softcapping: null });
  const [sliding, full] = model.blocks;
  assert.equal([sliding!.attention!.window_size, full!.attention!.window_size], [5, null]);
  assert.equal([sliding!.attention!.scale, sliding!.attention!.softcap, model.output.softcap], [0.25, 50, null]);
  assert.is(read({ ...minimal.gemma2, query_pre_attn_scalar: 4 }).model.blocks[0]!.attention!.scale, null);
  assert.equal(full!.norm, { name: 'norm_offset', constants: { eps: 1e-6 } });
  assert.is(full!.norm_position, 'sandwich');
  assert.is(model.embeddings.scale, Math.sqrt(8));

  const thetas = (config: object) =>
    read({ ...minimal.gemma3_text, ...config }).model.blocks.map(({ attention }) => {
      const { theta, scaling } = attention!.position_encoding as { theta: number; scaling: object | null };
      return [theta, scaling];
    });
  const linear = { kind: 'linear', factor: 8 };
  assert.equal(thetas({}), [
    [10000, null],
    [1000000, null],
  ]);
  const older = { rope_theta: 5, rope_local_base_freq: 6, rope_scaling: { rope_type: 'linear', factor: 8 } };
  assert.equal(thetas(older), [
    [6, null],
    [5, linear],
  ]);
  const newer = {
    full_attention: { rope_type: 'linear', factor: 8, rope_theta: 5 },
    sliding_attention: { rope_type: 'default', rope_theta: 6 },
  };
  assert.equal(thetas({ rope_parameters: newer }), thetas(older));
});

test('experts', () => {
  const expertsOf = (config: object) => read(config).model.blocks.at(-1)!.ffn!.moe!;
  const mixtral = {
    experts: 3,
    top_k: 2,
    shared_experts: 0,
    router: 'softmax',
    normalize: true,
    scale: 1,
    groups: 1,
    top_groups: 1,
    balance: { kind: 'none' },
    z_loss_weight: 0,
    capacity_factor: null,
  };
  assert.equal(expertsOf(minimal.mixtral!), mixtral);
  assert.equal(expertsOf({ ...minimal.mixtral, num_local_experts: undefined, num_experts: 3 }), mixtral);
  assert.equal(expertsOf(minimal.qwen3_moe!), { ...mixtral, experts: 4, normalize: false });
  const deepseek = { ...mixtral, experts: 4, shared_experts: 2, normalize: false };
  assert.equal(expertsOf(minimal.deepseek_v2!), deepseek);
  const grouped = { topk_method: 'group_limited_greedy', n_group: 2, topk_group: 1, routed_scaling_factor: 3 };
  assert.equal(expertsOf({ ...minimal.deepseek_v2, ...grouped }), { ...deepseek, groups: 2, top_groups: 1, scale: 3 });
  assert.equal(expertsOf(minimal.deepseek_v3!), {
    ...deepseek,
    router: 'sigmoid',
    normalize: true,
    groups: 2,
    top_groups: 1,
    scale: 2.5,
    balance: { kind: 'aux_free', rate: 0 },
  });
});

test('latents, and the scale that yarn gives DeepSeek’s scores', () => {
  const { attention } = blockOf(minimal.deepseek_v3);
  assert.equal(attention.latent, {
    query_dim: 5,
    key_value_dim: 6,
    nope_head_dim: 4,
    norm: { name: 'rmsnorm', constants: { eps: 1e-6 } },
  });
  assert.equal([attention.head_dim, attention.value_head_dim, attention.num_kv_heads], [6, 3, 2]);
  assert.equal([attention.scale, (ropeOf(minimal.deepseek_v3) as { dims: number }).dims], [null, 2]);
  assert.is(blockOf(minimal.deepseek_v2).attention.latent!.query_dim, null);
  const yarn = { type: 'yarn', factor: 40, original_max_position_embeddings: 16, mscale: 0.7, mscale_all_dim: 0.7 };
  const scaled = blockOf({ ...minimal.deepseek_v2, rope_scaling: yarn }).attention;
  const mscale = 0.1 * 0.7 * Math.log(40) + 1;
  assert.ok(Math.abs(scaled.scale! - mscale ** 2 / Math.sqrt(6)) < 1e-15);
  assert.is((scaled.position_encoding as { scaling: { attention_factor: number } }).scaling.attention_factor, 1);
  // Any other class reads mscale_all_dim for the attention factor alone.
  assert.is(blockOf({ ...minimal.llama, rope_scaling: yarn }).attention.scale, null);
  const interleaved = (config: object) => (ropeOf(config) as { interleaved: boolean }).interleaved;
  assert.equal([interleaved(minimal.deepseek_v2!), interleaved(minimal.deepseek_v3!)], [true, true]);
  assert.is(interleaved({ ...minimal.deepseek_v3, rope_interleave: false }), false);
});

test('mamba', () => {
  const [block] = read(minimal.mamba).model.blocks;
  assert.equal([block!.attention, block!.ffn], [null, null]);
  assert.equal(block!.ssm, { state_dim: 3, conv_kernel: 4, expand: 2, dt_rank: 2, origin: '' });
  assert.is(read({ ...minimal.mamba, hidden_size: 40, time_step_rank: 'auto' }).model.blocks[0]!.ssm!.dt_rank, 3);
  assert.is(read(minimal.mamba).model.init.std, 0.1);
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
  const { llama, gpt2, qwen2, phi3, gemma2, gemma3_text, mixtral, qwen3_moe, deepseek_v2, deepseek_v3, mamba } =
    minimal;
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
    [{ ...llama, attention_dropout: 1 }, /attention_dropout is 1.*a number from 0 up to 1/],
    [
      { ...mixtral, output_router_logits: true },
      /output_router_logits is true.*needs false: .*takes all layers as one/,
    ],
    [{ ...mixtral, num_experts: 4 }, /num_experts is 4.*num_local_experts's value, 3/],
    [{ ...mixtral, num_experts_per_tok: 9 }, /a token cannot choose 9 of 3 experts/],
    [{ ...qwen3_moe, use_sliding_window: true }, /use_sliding_window is true/],
    [{ ...qwen3_moe, decoder_sparse_step: 0 }, /decoder_sparse_step is 0.*a whole number from 1 on/],
    [{ ...gemma2, use_bidirectional_attention: true }, /use_bidirectional_attention is true/],
    [{ ...gemma2, layer_types: ['full_attention'] }, /layer_types is .*for each of 2 layers/],
    [
      { ...gemma2, layer_types: ['full_attention', 'linear'] },
      /layer_types is .*one of sliding_attention, full_attention/,
    ],
    [{ ...gemma3_text, attn_logit_softcapping: 50 }, /attn_logit_softcapping is 50.*needs null: .*caps nothing/],
    [{ ...gemma3_text, rope_parameters: { rope_theta: 5 } }, /rope_parameters\.rope_theta is 5/],
    [{ ...deepseek_v2, attention_bias: true }, /attention_bias is true/],
    [{ ...deepseek_v2, norm_topk_prob: true }, /norm_topk_prob is true.*DeepSeek's own code/],
    [{ ...deepseek_v2, topk_method: 'noaux_tc' }, /topk_method is "noaux_tc".*one of greedy, group_limited_greedy/],
    [{ ...deepseek_v2, num_key_value_heads: 1 }, /2 heads with 1 of keys and values cannot come out of one latent/],
    [{ ...deepseek_v3, scoring_func: 'softmax' }, /scoring_func is "softmax".*needs "sigmoid"/],
    [{ ...deepseek_v3, n_group: 3 }, /4 experts cannot lie in 3 groups evenly/],
    [{ ...deepseek_v3, moe_layer_freq: 2 }, /moe_layer_freq is 2/],
    [{ ...mamba, use_conv_bias: false }, /use_conv_bias is false/],
    [{ ...mamba, hidden_act: 'gelu' }, /hidden_act is "gelu"/],
    [{ ...mamba, intermediate_size: 20 }, /intermediate_size is 20.*needs 16/],
  ];
  for (const [config, expected] of cases)
    assert.match(
      userError(() => read(config)),
      expected,
    );
});

test('what changes only how transformers trains is taken over or said', () => {
  const dropped = read({ ...minimal.gpt2, attn_pdrop: 0.2, embd_pdrop: 0.3, resid_pdrop: 0, use_cache: true });
  const { attention, dropout } = dropped.model.blocks[0]!;
  assert.equal([attention!.dropout, dropped.model.embeddings.dropout, dropout], [0.2, 0.3, 0]);
  assert.equal(dropped.warnings, []);
  const neox = read({ ...minimal.gpt_neox, hidden_dropout: 0.2 }).model;
  assert.equal([neox.embeddings.dropout, neox.blocks[0]!.dropout], [0.2, 0.2]);
  assert.match(read({ ...minimal.mixtral, router_jitter_noise: 0.1 }).warnings[0]!, /router_jitter_noise is 0\.1/);
  const untrained = (config: object) => read({ ...minimal.olmo2, ...config }).model.embeddings.untrained_token;
  assert.equal([untrained({}), untrained({ pad_token_id: 1 }), untrained({ pad_token_id: -1 })], [null, 1, 5]);
});

test('every architecture comes back from what is written for it', () => {
  const tokens = { bos_token_id: 0, eos_token_id: 1, pad_token_id: null };
  const yarn = { type: 'yarn', factor: 4, original_max_position_embeddings: 16 };
  const variants = Object.values(minimal).concat(
    { ...minimal.llama, rope_scaling: { type: 'linear', factor: 2 }, tie_word_embeddings: true },
    { ...minimal.llama, rope_scaling: { type: 'yarn', factor: 2, original_max_position_embeddings: 8, mscale: 1 } },
    { ...minimal.gpt_neox, use_parallel_residual: false, attention_bias: false },
    { ...minimal.gemma2, query_pre_attn_scalar: 12, layer_types: ['full_attention', 'full_attention'] },
    { ...minimal.gemma2, layer_types: ['full_attention', 'sliding_attention'] },
    { ...minimal.gemma3_text, rope_scaling: { rope_type: 'linear', factor: 8 }, rope_local_base_freq: 7 },
    { ...minimal.qwen3_moe, mlp_only_layers: [], norm_topk_prob: true, attention_dropout: 0.1 },
    { ...minimal.deepseek_v2, topk_method: 'group_limited_greedy', n_group: 2, topk_group: 1 },
    { ...minimal.deepseek_v2, first_k_dense_replace: 2 },
    { ...minimal.deepseek_v3, rope_scaling: { ...yarn, mscale: 1, mscale_all_dim: 1 }, rope_interleave: false },
    { ...minimal.deepseek_v3, rope_scaling: { ...yarn, mscale: 0.5, mscale_all_dim: 0.7 } },
    { ...minimal.deepseek_v3, rope_scaling: { ...yarn, mscale_all_dim: 0.7 } },
  );
  for (const config of variants) {
    const { model } = read(config);
    const architecture = architectureOf(config.model_type as string);
    const written = writeConfig(model, architecture, tokens);
    assert.ok('config' in written, JSON.stringify(written));
    assert.equal(read(written.config).model, model);
  }
  assert.equal(Object.keys(minimal).sort(), architectureNames().toSorted());
});

test('numbers that transformers takes for real have a point in the file', () => {
  const { model } = read({
    ...minimal.gemma2,
    rope_scaling: { type: 'yarn', factor: 2, original_max_position_embeddings: 8 },
  });
  const tokens = { bos_token_id: 0, eos_token_id: 1, pad_token_id: null };
  const written = writeConfig(model, architectureOf('gemma2'), tokens);
  assert.ok('config' in written);
  const text = configText({ ...written.config, malc: model });
  assert.equal(JSON.parse(text), JSON.parse(JSON.stringify({ ...written.config, malc: model })));
  assert.match(text, /^ {2}"final_logit_softcapping": 30\.0,$/m);
  assert.match(text, /^ {2}"attention_dropout": 0\.0,$/m);
  assert.match(text, /^ {4}"rope_theta": 10000\.0$/m);
  assert.match(text, /^ {4}"original_max_position_embeddings": 8,$/m);
  assert.match(text, /^ {2}"vocab_size": 6,$/m);
});

test('what an architecture cannot say stands in the way, by its name', () => {
  const { model } = read(minimal.llama);
  const obstacle = (changes: Partial<Model>) => {
    const tokens = { bos_token_id: null, eos_token_id: null, pad_token_id: null };
    const written = writeConfig({ ...model, ...changes }, architectureOf('llama'), tokens);
    return 'obstacle' in written ? written.obstacle : 'none';
  };
  const block = blockOf(minimal.llama);
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
  assert.match(obstacle({ blocks: [block, { ...block, residual: false }], layers: [0, 1] }), /2 kinds of block/);
  assert.is(obstacle({ blocks: [block, { ...block, name: 'other' }], layers: [0, 1] }), 'none');
  assert.match(obstacle(withRope({ interleaved: true })), /interleaved is true/);
  assert.match(obstacle(withRope({ scaling: { kind: 'ntk', factor: 2 } })), /scaling is ntk/);
  assert.match(obstacle(withRope({ dims: 2 })), /dims is 2 of a head's 4/);
  assert.match(obstacle(withRope({ kind: 'none' })), /position_encoding is none and would have to be rope/);
  assert.match(obstacle({ blocks: [{ ...block, ffn: { ...block.ffn, activation: 'elu' } }] }), /activation elu/);
  assert.is(obstacle({ blocks: [{ ...block, dropout: 0.1 }] }), 'none', 'what changes only training stands in no way');
});

test('two kinds of block find their places, or say what keeps them from it', () => {
  const { model } = read({ ...minimal.deepseek_v3, num_hidden_layers: 3 });
  const [dense, sparse] = model.blocks as [Block, Block];
  const written = (changes: Partial<Model>, name: string) => {
    const tokens = { bos_token_id: null, eos_token_id: null, pad_token_id: null };
    const result = writeConfig({ ...model, ...changes }, architectureOf(name), tokens);
    return 'config' in result ? (result.config as Record<string, unknown>) : result.obstacle;
  };
  const swapped = written({ blocks: [sparse, dense], layers: [1, 0, 0] }, 'deepseek_v3');
  assert.is((swapped as Record<string, unknown>).first_k_dense_replace, 1);
  assert.match(String(written({ layers: [1, 0, 1] }, 'deepseek_v3')), /layer 1 is dense, after one that is sparse/);
  assert.match(String(written({}, 'deepseek_v2')), /^sparse\.ffn\.moe\.router is "sigmoid"/);
  const moe = { ...sparse.ffn!.moe!, balance: { kind: 'none' } as const };
  const unbiased = { blocks: [dense, { ...sparse, ffn: { ...sparse.ffn!, moe } }] };
  assert.match(String(written(unbiased, 'deepseek_v3')), /^sparse\.ffn\.moe\.balance\.kind is "none"/);
  const scaled = [dense, sparse].map(each => ({ ...each, attention: { ...each.attention!, scale: 0.3 } }));
  assert.match(String(written({ blocks: scaled }, 'deepseek_v3')), /attention\.scale is 0\.3, which only yarn/);
});

test.run();
