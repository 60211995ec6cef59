// What takes attention's and the one network's place, and what training alone uses: state-space blocks, experts, latents,
// sinks, dropout, roles, further tokens. What is written reaches the Model, in hermes-llm's words too.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { SourceError } from '../compiler/diagnostic.ts';
import { format } from '../compiler/syntax/format.ts';
import { parse } from '../compiler/syntax/parse.ts';

function modelOf(text: string): Model {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  const checked = check(syntax);
  const all = [...diagnostics, ...checked.diagnostics];
  assert.ok(checked.model, new SourceError(all, new Map([['test.mal', text]])).message);
  return checked.model!;
}

const blockOf = (block: string) => modelOf(`model m { hidden_size: 96 block { ${block} } }`).blocks[0]!;
const attentionOf = (properties: string) => blockOf(`attention { ${properties} }`).attention!;
const mixtureOf = (properties: string) => blockOf(`ffn { moe { experts: 8 top_k: 2 ${properties} } }`).ffn!.moe!;

const messages = (text: string) =>
  check(parse(text, 'test.mal').syntax).diagnostics.map(({ severity, message }) => `${severity}: ${message}`);

const mixers = suite('mixers');

mixers('a state space takes the place of attention, under any of its names', () => {
  const block = blockOf('ssm { }');
  assert.is(block.attention, null);
  assert.equal(block.ssm, { state_dim: 16, conv_kernel: 4, expand: 2, dt_rank: 6, origin: 'test.mal:1' });
  // As in hermes-llm: what is not written is the default network.
  assert.is(block.ffn!.hidden_dim, 4 * 96);
  const named = modelOf(`ssm s { d_state: 8 d_conv: 3 expand: 4 dt_rank: 5 }
    block b { ssm: s ffn: none } model m { hidden_size: 100 block: b }`).blocks[0]!;
  assert.equal(named.ssm, { state_dim: 8, conv_kernel: 3, expand: 4, dt_rank: 5, origin: 'test.mal:1' });
  assert.is(named.ffn, null);
  assert.is(modelOf('model m { hidden_size: 100 block { ssm { } } }').blocks[0]!.ssm!.dt_rank, 7);
});

mixers('a block without a network is one sub-layer, unless a network is called none', () => {
  assert.is(blockOf('ffn: none').ffn, null);
  assert.is(blockOf('ffn: none').attention!.num_heads, 12);
  const named = 'ffn none { hidden_dim: 8 } model m { block { ffn: none } }';
  assert.is(modelOf(named).blocks[0]!.ffn!.hidden_dim, 8);
  assert.equal(messages(named), []);
});

mixers('extends: attention gives way to a state space and the other way round', () => {
  const model = modelOf(`
    ssm small { state_dim: 4 } ssm wide extends small { expand: 3 }
    block first { attention { num_heads: 4 } norm_position: sandwich }
    block second extends first { ssm: wide }
    block third extends second { attention { num_heads: 2 } ffn: none }
    model m { hidden_size: 64 pattern: [first, second, third] }`);
  const [first, second, third] = model.blocks;
  assert.equal([first!.ssm, second!.attention, third!.ssm, third!.ffn], [null, null, null, null]);
  assert.equal([second!.ssm!.state_dim, second!.ssm!.expand, third!.attention!.num_heads], [4, 3, 2]);
  assert.is(third!.norm_position, 'sandwich');
});

mixers('a latent gives heads their widths and turns the trailing elements', () => {
  const attention = attentionOf('num_heads: 4 kind: mla { kv_latent: 32 nope_head_dim: 16 rope_head_dim: 8 }');
  assert.equal(attention.latent, {
    query_dim: null,
    key_value_dim: 32,
    nope_head_dim: 16,
    norm: { name: 'rmsnorm', constants: { eps: 1e-6 } },
  });
  assert.equal([attention.num_kv_heads, attention.head_dim, attention.value_head_dim], [4, 24, 16]);
  assert.is(attention.scale, null);
  assert.equal(attention.position_encoding, {
    kind: 'rope',
    theta: 10000,
    dims: 8,
    interleaved: false,
    scaling: null,
  });
  const latent = (properties: string, beside = '') =>
    attentionOf(`${beside} kind: mla { kv_latent: 32 nope_head_dim: 16 ${properties} }`);
  const full = latent('rope_head_dim: 8 q_latent: 24 v_head_dim: 20 latent_norm: layernorm { eps: 1e-5 }');
  assert.equal([full.latent!.query_dim, full.value_head_dim, full.latent!.norm!.name], [24, 20, 'layernorm']);
  assert.is(latent('rope_head_dim: 8 latent_norm: false').latent!.norm, null);
  assert.equal(latent('rope_head_dim: 8 latent_norm: true').latent, latent('rope_head_dim: 8').latent);
  assert.is(latent('rope_head_dim: 0').position_encoding.kind, 'none');
  assert.is(latent('rope_head_dim: 0', 'position_encoding: none').head_dim, 16);
  assert.is(latent('rope_head_dim: 0', 'position_encoding: alibi').position_encoding.kind, 'alibi');
  // What is refused where it acts may be written where it does not.
  assert.ok(latent('rope_head_dim: 8', 'bias: false qk_norm: false output_bias: true').output_bias);
});

mixers('sinks, slopes and dropout', () => {
  assert.is(attentionOf('sinks: true').sinks, true);
  assert.equal(attentionOf('position_encoding: alibi').position_encoding, { kind: 'alibi', slopes: 'fixed' });
  const slopes = attentionOf('position_encoding: alibi { slopes: learned }').position_encoding;
  assert.equal(slopes, { kind: 'alibi', slopes: 'learned' });
  const block = blockOf('dropout: 0.1 attention { dropout: 0.2 } ffn { dropout: 0.3 }');
  assert.equal([block.dropout, block.attention!.dropout, block.ffn!.dropout], [0.1, 0.2, 0.3]);
});

mixers('roles and further tokens', () => {
  const model = modelOf(
    'let n = 3 model m { embeddings { role_embeddings: n dropout: n / 10.0 } mtp { depth: n - 1 } }',
  );
  assert.equal([model.embeddings.role_embeddings, model.embeddings.dropout], [3, 0.3]);
  assert.equal(model.mtp, { depth: 2, weight: 0.3 });
  assert.equal(modelOf('model m { mtp { depth: 1 weight: 0.1 } }').mtp, { depth: 1, weight: 0.1 });
});

const experts = suite('experts');

experts('have the defaults of the language', () => {
  assert.equal(mixtureOf(''), {
    experts: 8,
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
  });
  assert.is(blockOf('ffn { hidden_dim: 40 moe { experts: 8 top_k: 8 } }').ffn!.hidden_dim, 40);
  assert.is(blockOf('ffn { moe { experts: 8 top_k: 8 hidden_dim: 24 } }').ffn!.hidden_dim, 24);
  assert.is(blockOf('ffn { moe { experts: 8 top_k: 8 } }').ffn!.hidden_dim, 4 * 96);
  const plain = blockOf('ffn { gate: false bias: true dropout: 0.5 activation: relu2 moe { experts: 2 top_k: 1 } }')
    .ffn!;
  assert.equal([plain.gate, plain.bias, plain.dropout, plain.activation], [false, true, 0.5, 'relu2']);
});

experts('take every property to the Model', () => {
  const moe = mixtureOf(
    'shared_experts: 1 router: sigmoid normalize: false scale: 2.5 groups: 4 top_groups: 2 ' +
      'balance: aux_free { rate: 0.001 } router_z_loss_weight: 1e-3 capacity_factor: 1.25',
  );
  assert.equal(moe, {
    experts: 8,
    top_k: 2,
    shared_experts: 1,
    router: 'sigmoid',
    normalize: false,
    scale: 2.5,
    groups: 4,
    top_groups: 2,
    balance: { kind: 'aux_free', rate: 0.001 },
    z_loss_weight: 1e-3,
    capacity_factor: 1.25,
  });
  assert.equal(mixtureOf('groups: 8 top_groups: 2').groups, 8);
});

experts('are balanced by a loss in two spellings, or by nothing', () => {
  const loss = { kind: 'loss', weight: 0.01 };
  assert.equal(mixtureOf('balance: loss { weight: 0.01 }').balance, loss);
  assert.equal(mixtureOf('load_balance_loss_weight: 0.01').balance, loss);
  for (const none of ['', 'balance: none', 'load_balance_loss_weight: 0.0'])
    assert.equal(mixtureOf(none).balance, { kind: 'none' });
});

experts('extends: groups of properties are merged, and one way to say the balance replaces the other', () => {
  const model = modelOf(`
    ffn base { hidden_dim: 64 moe { experts: 8 top_k: 2 load_balance_loss_weight: 0.01 } }
    ffn more extends base { moe { experts: 16 balance: aux_free { rate: 0.001 } } }
    ffn same extends base { moe { scale: 2 } }
    block a { ffn: more } block b { ffn: same } model m { pattern: [a, b] }`);
  const [more, same] = model.blocks.map(({ ffn }) => ffn!.moe!);
  assert.equal([more!.experts, more!.top_k, more!.balance.kind], [16, 2, 'aux_free']);
  assert.equal([same!.experts, same!.scale, same!.balance], [8, 2, { kind: 'loss', weight: 0.01 }]);
});

const hermes = suite("hermes-llm's files");

// The constructs of its first generation: four kinds of definition, rope under one name.
const first = `# A comment
attention attn {
    num_heads: 4
    num_kv_heads: 2
    head_dim: 16
    bias: true
    dropout: 0.1
    causal: true
    window_size: 32    # at the end of a line
    position_encoding: rope { rope_theta: 10000.0 rope_scaling: 2.0 }
}
ffn mlp {
    intermediate_size: 128
    activation: gelu
    bias: true
    dropout: 0.1
    gate: false
}
block layer {
    attention: attn
    ffn: mlp
    norm: layernorm { eps: 1e-5 }
    norm_position: post
    residual: true
    dropout: 0.1
}
model old-one {
    description: "First \\"generation\\""
    vocab_size: 1000
    context_length: 64
    d_model: 64
    n_layers: 2
    block: layer
    embeddings { tie_weights: true dropout: 0.1 scale: 8.0 }
    output { bias: true norm: none }
}`;

// Those of its second: state spaces, experts, patterns, blocks in place.
const second = `
attention attn { n_heads: 4 kv_heads: 2 qk_norm: true position_encoding: rope { theta: 100000.0 } }
ssm scan { d_state: 8 d_conv: 4 expand: 2 dt_rank: 6 }
ffn dense { hidden_dim: 96 activation: swiglu bias: false }
ffn sparse {
    hidden_dim: 48
    moe { experts: 8 top_k: 2 shared_experts: 1 load_balance_loss_weight: 0.01 router_z_loss_weight: 0.001 }
}
block attn_block { attention: attn ffn: dense norm: rmsnorm { norm_eps: 1e-6 } }
block scan_block { ssm: scan ffn: sparse norm: rmsnorm { } residual: true }
block own_block { ssm: { state_dim: 4 } ffn: { activation: silu } }
model new_one {
    vocab_size: 1000
    seq_len: 64
    embed_dim: 64
    depth: 5
    block: attn_block
    pattern: [scan_block, own_block, attn_block,]
}
model in-place { hidden_size: 64 block: { attention: { num_heads: 4 position_encoding: alibi { slopes: learned } } } }`;

hermes('of the first generation mean what they say', () => {
  const model = modelOf(first);
  const [block] = model.blocks;
  assert.equal([model.max_seq_len, model.hidden_size, model.layers], [64, 64, [0, 0]]);
  assert.equal(
    [block!.dropout, block!.attention!.dropout, block!.ffn!.dropout, model.embeddings.dropout],
    [0.1, 0.1, 0.1, 0.1],
  );
  assert.equal([block!.norm_position, block!.norm!.name, model.output.norm], ['post', 'layernorm', null]);
  assert.is(model.description, 'First "generation"');
  assert.equal(messages(first), []);
});

hermes('of the second too', () => {
  const { syntax, diagnostics } = parse(second, 'test.mal');
  assert.equal(diagnostics, []);
  const { model } = check(syntax, { model: 'new_one' });
  assert.equal(model!.layers, [0, 1, 2, 0, 1]);
  const [scan, own, attention] = model!.blocks;
  assert.equal([scan!.ssm!.state_dim, scan!.ssm!.dt_rank, own!.ssm!.dt_rank], [8, 6, 4]);
  assert.equal([scan!.norm!.constants.eps, attention!.norm!.constants.eps], [1e-5, 1e-6]);
  assert.equal([scan!.ffn!.moe!.balance, scan!.ffn!.moe!.z_loss_weight], [{ kind: 'loss', weight: 0.01 }, 0.001]);
  assert.equal(
    [own!.ffn!.activation, own!.ffn!.hidden_dim, attention!.attention!.qk_norm!.name],
    ['silu', 256, 'rmsnorm'],
  );
  // Its own words for a pattern that overrides a block.
  assert.equal(messages(second).slice(0, 1), [
    'warning: `block` has no effect: `pattern` says which blocks the layers are',
  ]);
});

hermes('with a memory are refused by name, wherever one is written', () => {
  const memory = `ffn f { } memory cms { tier fast { ffn: f reserve_experts { capacity: 2 rank: 32 top_k: 1 } }
    tier slow { ffn: { hidden_dim: 16 } residual_init: zero } }
    block b { memory: cms } block c { ssm { } memory: { tier only { ffn: f } } } model m { pattern: [b, c] }`;
  assert.equal(parse(memory, 'test.mal').diagnostics, []);
  assert.equal(messages(memory), Array(3).fill('error: `memory` is not supported in this version'));
});

hermes('are laid out without a change of meaning', () => {
  for (const text of [first, second]) {
    const laidOut = format(text, 'test.mal');
    assert.is(format(laidOut, 'test.mal'), laidOut);
    const bare = (source: string) =>
      JSON.stringify(parse(source, 'test.mal').syntax, (key, value) => (/span$|^text$/i.test(key) ? undefined : value));
    assert.is(bare(laidOut), bare(text));
  }
});

for (const each of [mixers, experts, hermes]) each.run();
