// Models of hermes-llm: what its config.json means in each of its generations, which tensors its files hold, where each
// element goes, and what is refused.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type HermesGeneration, readHermesConfig } from '../runtime/hub/hermes.ts';
import { importFolder } from '../runtime/hub/import.ts';
import { writeSafetensors } from '../runtime/hub/safetensors.ts';
import { userError } from './fixtures/user-error.ts';

const test = suite('hermes');
const root = mkdtempSync(join(tmpdir(), 'malc-hermes-'));
test.after(() => rmSync(root, { recursive: true }));

const attention = {
  name: 'attn',
  num_heads: 2,
  num_kv_heads: null,
  head_dim: null,
  dropout: 0,
  bias: false,
  position_encoding: { Rope: { theta: 10000, scaling: null } } as unknown,
  window_size: null as number | null,
  causal: true,
};
const ffn = { name: 'ffn', hidden_dim: 6, activation: 'GELU', bias: false, dropout: 0, gate: true };
const block = {
  name: 'tiny_block',
  attention,
  ffn,
  norm: { norm_type: 'RmsNorm', eps: 1e-5 },
  norm_position: 'Pre',
  residual: true,
  dropout: 0,
};
/** As hermes-llm 1.8.21 writes it. */
const tiny = {
  name: 'tiny',
  description: 'Small model for quick experiments',
  vocab_size: 5,
  max_seq_len: 16,
  hidden_size: 8,
  num_layers: 2,
  block,
  embeddings: { tie_weights: false, dropout: 0, scale: null as number | null },
  output: { bias: false, norm: null as object | null },
};
const mamba = { name: 'mamba', state_dim: 3, conv_kernel: 4, expand: 2, dt_rank: null };
const moe = { experts: 3, top_k: 2, shared_experts: 2, load_balance_loss_weight: 0.01, router_z_loss_weight: 0.001 };
/** As 1.8.106 does: layers of a state space and of attention with experts in turn. */
const hybrid = {
  ...tiny,
  embeddings: { ...tiny.embeddings, tie_weights: true },
  output: { bias: true, norm: null },
  pattern: [
    { ...block, name: 'first', ssm: mamba },
    {
      ...block,
      name: 'second',
      attention: { ...attention, qk_norm: true, num_kv_heads: 1 },
      ssm: null,
      ffn: { ...ffn, moe },
    },
  ],
};

const read = (config: object, generation: HermesGeneration) =>
  readHermesConfig(config as Readonly<Record<string, unknown>>, generation, 'config.json');

let folders = 0;

/** A folder whose tensors have the values 0, 1, 2, ... */
async function writeFolder(config: object, shapes: Readonly<Record<string, readonly number[]>>): Promise<string> {
  const path = join(root, `folder-${folders++}`);
  mkdirSync(path);
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  const tensors = Object.entries(shapes).map(([name, shape]) => ({
    name,
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, index) => index),
  }));
  await writeSafetensors(join(path, 'checkpoint_epoch_1.safetensors'), tensors);
  return path;
}

function parametersIn(path: string) {
  const { tensors } = importFolder(path);
  const parameters = new Map(tensors.parameters().map(({ name, shape, data }) => [name, { shape, data }]));
  tensors.close();
  return (name: string, ...index: readonly number[]) => {
    const { shape, data } = parameters.get(name)!;
    assert.is(shape.length, index.length, name);
    return data[index.reduce((offset, i, axis) => offset * shape[axis]! + i, 0)];
  };
}

const layersOf = (count: number, shapes: Readonly<Record<string, readonly number[]>>) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, n) =>
      Object.entries(shapes).map(([name, s]) => [`layers.${n}.${name}`, s]),
    ).flat(),
  );

test('1.8.21: the architecture, and every tensor in torch’s layout', async () => {
  const { model, warnings } = read(tiny, '1.8.21');
  assert.equal(warnings, []);
  assert.equal([model.name, model.layers, model.blocks.length], ['tiny', [0, 0], 1]);
  const { attention: mixer, ffn: network, norm } = model.blocks[0]!;
  assert.equal([mixer!.num_kv_heads, mixer!.head_dim, network!.activation, network!.gate], [2, 4, 'gelu', true]);
  assert.equal(norm, { name: 'rmsnorm', constants: { eps: 1e-5 } });
  assert.equal(model.output.norm, norm);
  const square = [8, 8];
  const path = await writeFolder(tiny, {
    'embedding.weight': [5, 8],
    ...layersOf(2, {
      'attention.q_proj.weight': square,
      'attention.k_proj.weight': square,
      'attention.v_proj.weight': square,
      'attention.o_proj.weight': square,
      'feed_forward.gate_proj.weight': [6, 8],
      'feed_forward.up_proj.weight': [6, 8],
      'feed_forward.down_proj.weight': [8, 6],
      'attn_norm.weight': [8],
      'ffn_norm.weight': [8],
    }),
    'final_norm.weight': [8],
    'lm_head.weight': [5, 8],
  });
  const at = parametersIn(path);
  assert.is(at('model.layers.1.mlp.down_proj.weight', 2, 3), 2 * 6 + 3);
  assert.is(at('model.layers.1.post_attention_layernorm.weight', 7), 7);
});

test('1.8.21: what it did not act on is read as what it did, and said', () => {
  const other = {
    ...tiny,
    block: {
      ...block,
      attention: { ...attention, bias: true, window_size: 3, position_encoding: 'None', dropout: 0.2 },
      ffn: { ...ffn, activation: 'ReLU' },
      norm: { norm_type: 'LayerNorm', eps: 0 },
      dropout: 0.1,
    },
    embeddings: { tie_weights: true, dropout: 0.3, scale: 2 },
    output: { bias: true, norm: { norm_type: 'RmsNorm', eps: 1e-6 } },
  };
  const { model, warnings } = read(other, '1.8.21');
  const [{ attention: mixer, ffn: network, ...rest }] = model.blocks as [(typeof model.blocks)[0]];
  assert.equal([mixer!.qkv_bias, network!.bias, network!.activation], [true, true, 'gelu']);
  // It masked what is further away than the window.
  assert.equal([mixer!.window_size, mixer!.position_encoding.kind], [4, 'rope']);
  assert.equal([mixer!.dropout, network!.dropout, rest.dropout, model.embeddings.dropout], [0.1, 0.1, 0, 0]);
  assert.equal([model.embeddings.tie_weights, model.embeddings.scale, model.output.bias], [false, null, false]);
  assert.equal(model.output.norm, { name: 'layernorm', constants: { eps: 1e-5 } });
  for (const field of ['ffn.bias', 'position_encoding', 'activation', 'tie_weights', 'scale', 'output.norm'])
    assert.ok(
      warnings.some(warning => warning.includes(field) && warning.includes('did not act on')),
      field,
    );
});

test('1.8.106: layers in turn, experts, and every tensor in Burn’s layout', async () => {
  const { model, warnings } = read(hybrid, '1.8.106');
  assert.equal(warnings, []);
  assert.equal(
    model.blocks.map(({ name, attention: mixer, ssm }) => [name, mixer !== null, ssm !== null]),
    [
      ['first', false, true],
      ['second', true, false],
    ],
  );
  const { ssm, ffn: plain } = model.blocks[0]!;
  assert.equal([ssm!.dt_rank, plain!.moe], [1, null]);
  const { attention: mixer, ffn: sparse } = model.blocks[1]!;
  assert.equal(mixer!.qk_norm, { name: 'rmsnorm', constants: { eps: 1e-5 } });
  assert.equal(sparse!.moe!.balance, { kind: 'loss', weight: 0.01 });
  assert.equal([sparse!.moe!.normalize, sparse!.moe!.z_loss_weight, sparse!.moe!.shared_experts], [true, 0.001, 2]);

  const norms = { 'attn_norm.gamma': [8], 'ffn_norm.gamma': [8] };
  const path = await writeFolder(hybrid, {
    // Rows of the vocabulary up to a multiple of 64.
    'embedding.weight': [64, 8],
    ...prefixed('layers.0.', {
      'ssm.in_proj.weight': [8, 32],
      'ssm.conv1d.weight': [16, 1, 4],
      'ssm.conv1d.bias': [16],
      'ssm.x_proj.weight': [16, 7],
      'ssm.dt_proj.weight': [1, 16],
      'ssm.dt_proj.bias': [16],
      'ssm.a_log': [16, 3],
      'ssm.d': [16],
      'ssm.out_proj.weight': [16, 8],
      'feed_forward.in_proj.weight': [8, 12],
      'feed_forward.down_proj.weight': [6, 8],
      ...norms,
    }),
    ...prefixed('layers.1.', {
      'attention.qkv_proj.weight': [8, 16],
      'attention.o_proj.weight': [8, 8],
      'attention.q_norm.gamma': [4],
      'attention.k_norm.gamma': [4],
      'feed_forward.moe.router.weight': [8, 3],
      'feed_forward.moe.experts.in_weight': [3, 8, 12],
      'feed_forward.moe.experts.down_weight': [3, 6, 8],
      'feed_forward.moe.shared_experts.0.in_proj.weight': [8, 12],
      'feed_forward.moe.shared_experts.0.down_proj.weight': [6, 8],
      'feed_forward.moe.shared_experts.1.in_proj.weight': [8, 12],
      'feed_forward.moe.shared_experts.1.down_proj.weight': [6, 8],
      ...norms,
    }),
    'final_norm.gamma': [8],
    tied_output_bias: [64],
  });
  const at = parametersIn(path);
  assert.is(at('model.embed_tokens.weight', 4, 3), 4 * 8 + 3);
  assert.is(at('lm_head.bias', 4), 4);
  assert.is(at('model.layers.0.mixer.z_proj_in.weight', 2, 3), 3 * 32 + 16 + 2);
  assert.is(at('model.layers.0.mixer.c_proj.weight', 2, 3), 3 * 7 + 1 + 3 + 2);
  assert.is(at('model.layers.0.mixer.conv1d.weight', 2, 3), 2 * 4 + 3);
  assert.is(at('model.layers.0.mlp.up_proj.weight', 2, 3), 3 * 12 + 6 + 2);
  const layer = 'model.layers.1.';
  assert.is(at(`${layer}self_attn.k_proj.weight`, 2, 3), 3 * 16 + 8 + 2);
  assert.is(at(`${layer}mlp.gate.weight`, 2, 3), 3 * 3 + 2);
  assert.is(at(`${layer}mlp.experts.up_proj.weight`, 2, 4, 3), (2 * 8 + 3) * 12 + 6 + 4);
  assert.is(at(`${layer}mlp.experts.down_proj.weight`, 2, 4, 3), (2 * 6 + 3) * 8 + 4);
  // The shared experts are one network: the second has the last rows of the way in, and the last columns of the way out.
  assert.is(at(`${layer}mlp.shared_experts.gate_proj.weight`, 6 + 2, 3), 3 * 12 + 2);
  assert.is(at(`${layer}mlp.shared_experts.down_proj.weight`, 4, 6 + 3), 3 * 8 + 4);
});

const prefixed = (prefix: string, shapes: Readonly<Record<string, readonly number[]>>) =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [`${prefix}${name}`, shape]));

test('what cannot be read is refused by its field', async () => {
  const withBlock = (changes: object) => ({ ...tiny, block: { ...block, ...changes } });
  const cases: readonly (readonly [object, HermesGeneration, RegExp])[] = [
    [{ ...tiny, later: 1 }, '1.8.106', /config\.json: later is 1, which is not supported; malc needs absent/],
    [withBlock({ memory: { tiers: [] } }), '1.8.106', /block\.memory is .*without memory tiers/],
    [withBlock({ attention: { ...attention, sinks: true } }), '1.8.106', /block\.attention\.sinks is true/],
    [
      withBlock({ attention: { ...attention, position_encoding: { Alibi: { learned_slopes: true } } } }),
      '1.8.106',
      /position_encoding is .*Alibi.*needs Rope or None/,
    ],
    [
      withBlock({ norm: { norm_type: 'LayerNorm', eps: 1e-5 } }),
      '1.8.21',
      /norm_type is "LayerNorm".*a bias in the block/,
    ],
    [withBlock({ ffn: { ...ffn, activation: 'Mish' } }), '1.8.21', /activation is "Mish".*one of SwiGLU, SiLU/],
    [{ ...tiny, num_layers: undefined }, '1.8.21', /num_layers is missing/],
  ];
  for (const [config, generation, expected] of cases)
    assert.match(
      userError(() => read(config, generation)),
      expected,
    );
  const path = await writeFolder(tiny, { 'embedding.weight': [5, 8], 'layers.0.attention.q_proj.weight': [8, 8] });
  assert.match(
    userError(() => importFolder(path)),
    /'layers\.0\.attention\.k_proj\.weight' is missing/,
  );
  await writeSafetensors(join(path, 'weights.safetensors'), []);
  assert.match(
    userError(() => importFolder(path)),
    /holds checkpoint_epoch_1\.safetensors, weights\.safetensors: copy the one to import/,
  );
});

test.run();
