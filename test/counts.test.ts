// What a model counts and costs: the parameters of each part, against the formulas, the program that is built and what is
// published; operations, caches, training memory; and how `malc info` prints them.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildProgram } from '../compiler/build/program.ts';
import type { Stage } from '../compiler/build/stage.ts';
import { cacheSize, flopsPerToken } from '../compiler/check/cost.ts';
import { countParameters } from '../compiler/check/count.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { readModel, wellKnownModels } from '../compiler/check/read-model.ts';
import { formulaLibrary } from '../compiler/check/standard-library.ts';
import { SourceError } from '../compiler/diagnostic.ts';
import { packagePath } from '../compiler/package-files.ts';
import { format } from '../compiler/syntax/format.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { info } from '../runtime/commands/info.ts';

function modelOf(text: string): Model {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  const checked = check(syntax);
  const all = [...diagnostics, ...checked.diagnostics];
  assert.ok(checked.model, new SourceError(all, new Map([['test.mal', text]])).message);
  return checked.model!;
}

const counts = suite('counts and costs');

const count = (block: string, rest = '') =>
  countParameters(modelOf(`model m { hidden_size: 64 num_layers: 3 vocab_size: 10 block { ${block} } ${rest} }`));

counts('of a state space', () => {
  const { stateSpace, feedForward, norms, attention } = count('ssm { dt_rank: 5 } ffn: none');
  const inner = 128;
  const one =
    64 * 2 * inner + inner * 4 + inner + inner * (5 + 32) + inner * 5 + inner + inner * 16 + inner + inner * 64;
  assert.equal([stateSpace, feedForward, norms, attention], [3 * one, 0, (3 + 1) * 64, 0]);
  assert.is(count('ssm { } ffn: none norm_position: sandwich').norms, (3 * 2 + 1) * 64);
});

counts('of a latent', () => {
  const latent = (properties: string, beside = '') =>
    count(`attention { num_heads: 4 kind: mla { kv_latent: 32 nope_head_dim: 16 ${properties} } ${beside} }`)
      .attention / 3;
  const keys = 32 * 64 + 32 + 4 * 16 * 32;
  assert.is(latent('rope_head_dim: 8'), 4 * 24 * 64 + 8 * 64 + keys + 4 * 16 * 32 + 64 * 4 * 16);
  assert.is(latent('rope_head_dim: 0 v_head_dim: 20'), 4 * 16 * 64 + keys + 4 * 20 * 32 + 64 * 4 * 20);
  const low = 24 * 64 + 24 + 4 * 24 * 24;
  assert.is(latent('rope_head_dim: 8 q_latent: 24'), low + 8 * 64 + keys + 4 * 16 * 32 + 64 * 4 * 16);
  assert.is(latent('rope_head_dim: 8 latent_norm: false') + 32, latent('rope_head_dim: 8'));
  assert.is(latent('rope_head_dim: 8', 'output_bias: true output_gate: true'), latent('rope_head_dim: 8') + 64 + 4096);
});

counts('of experts, all and those that a token passes', () => {
  const expert = 3 * 24 * 64;
  const mixture = (properties: string, beside = '') =>
    count(`ffn { hidden_dim: 24 ${beside} moe { experts: 8 top_k: 2 ${properties} } } attention { num_heads: 4 }`);
  const plain = mixture('');
  assert.equal([plain.experts, plain.router, plain.feedForward], [3 * 8 * expert, 3 * 8 * 64, 0]);
  assert.is(plain.total - plain.active, 3 * 6 * expert);
  const shared = mixture('shared_experts: 2 balance: aux_free { rate: 0.1 }', 'bias: true');
  assert.is(shared.feedForward, 3 * (2 * expert + 2 * 48 + 64));
  assert.is(shared.experts, 3 * 8 * (expert + 2 * 24 + 64));
  assert.is(shared.router, 3 * 8 * (64 + 1));
});

counts('of sinks, slopes, roles and modules for further tokens', () => {
  const plain = count('attention { num_heads: 4 position_encoding: alibi }');
  assert.is(count('attention { num_heads: 4 sinks: true position_encoding: alibi }').total - plain.total, 3 * 4);
  const learned = count('attention { num_heads: 4 position_encoding: alibi { slopes: learned } }');
  assert.is(learned.attention - plain.attention, 3 * 4);
  const modules = count('attention { num_heads: 4 position_encoding: alibi }', 'mtp { depth: 2 }');
  assert.is(modules.mtp, 2 * (plain.perLayer[2]! + 3 * 64 + 2 * 64 * 64));
  assert.equal([modules.total - plain.total, modules.active], [modules.mtp, plain.active]);
  assert.is(count('attention { num_heads: 4 }', 'embeddings { role_embeddings: 3 }').roles, 3 * 64);
});

/** Elements of the parameters of a built program, each counted once. */
function builtParameters(model: Model): number {
  const { embedding, blocks, head, modules } = buildProgram(model, formulaLibrary(model));
  const sizes = new Map<string, number>();
  const add = (place: string, { parameters }: Stage) => {
    for (const { name, shape } of parameters)
      sizes.set(
        /^(model|lm_head)\./.test(name) ? name : `${place}.${name}`,
        shape.reduce((a, b) => a * b, 1),
      );
  };
  add('', embedding);
  for (const [layer, kind] of model.layers.entries()) add(`layer ${layer}`, blocks[kind]!);
  add('', head);
  for (let module = 0; modules && module < model.mtp!.depth; module++)
    for (const stage of [modules.join, blocks[model.layers.at(-1)!]!, modules.head]) add(`module ${module}`, stage);
  return [...sizes.values()].reduce((a, b) => a + b, 0);
}

counts('are those of the program that is built', () => {
  for (const name of wellKnownModels()) {
    const { model } = readModel(name);
    assert.is(builtParameters(model), countParameters(model).total, name);
  }
  const model = modelOf(`
    attention latent { num_heads: 4 sinks: true output_bias: true output_gate: true
      kind: mla { kv_latent: 16 q_latent: 24 nope_head_dim: 8 rope_head_dim: 4 v_head_dim: 12 latent_norm: layernorm } }
    attention sloped { num_heads: 4 num_kv_heads: 2 bias: true qk_norm: true position_encoding: alibi { slopes: learned } }
    ffn sparse { bias: true moe { experts: 6 top_k: 2 shared_experts: 2 hidden_dim: 10 balance: aux_free { rate: 0.1 } } }
    ffn plain { gate: false bias: true moe { experts: 4 top_k: 1 shared_experts: 1 hidden_dim: 6 } }
    block a { attention: latent ffn: sparse norm_position: sandwich }
    block b { attention: sloped ffn: plain norm: layernorm }
    block c { ssm { expand: 3 } ffn: none }
    block d { ssm { } norm_position: sandwich ffn { bias: true } }
    model m { hidden_size: 32 vocab_size: 50 max_seq_len: 16 layers: [2 * [a, b], c, d, a] mtp { depth: 2 }
      embeddings { role_embeddings: 3 norm: layernorm } output { bias: true } }`);
  assert.is(builtParameters(model), countParameters(model).total);
});

counts('of operations: chosen experts, the scan, heads of two widths', () => {
  const flops = (block: string, rest = '') =>
    flopsPerToken(modelOf(`model m { hidden_size: 64 num_layers: 1 vocab_size: 10 block { ${block} } ${rest} }`), 100);
  const head = 6 * 640;
  const inner = 128;
  const matrices = inner * (3 * 64 + 2 * 4 + 2 * 16);
  assert.is(flops('ssm { } ffn: none'), head + 6 * matrices + inner * (21 * 16 + 6 * 4));
  const chosen = (properties: string) => flops(`ssm { } ffn { hidden_dim: 24 moe { experts: 8 ${properties} } }`);
  assert.is(chosen('top_k: 3') - chosen('top_k: 2'), 6 * 3 * 24 * 64);
  assert.is(chosen('top_k: 2 shared_experts: 1'), chosen('top_k: 3'));
  const latent = 'num_heads: 4 kind: mla { kv_latent: 32 nope_head_dim: 16 rope_head_dim: 8 }';
  const weights = 4 * 24 * 64 + 8 * 64 + 32 * (64 + 4 * 32) + 64 * 64;
  assert.is(flops(`attention { ${latent} } ffn: none`), head + 6 * weights + 6 * 4 * (24 + 16) * 100);
  const one = flops('ssm { } ffn: none');
  assert.is(flops('ssm { } ffn: none', 'mtp { depth: 2 }') - one, 2 * (one + 12 * 64 * 64));
});

counts('of what a text keeps: latents, windows, states', () => {
  const cache = (blocks: string) =>
    cacheSize(modelOf(`${blocks} model m { hidden_size: 64 max_seq_len: 100 pattern: [a, b] num_layers: 4 }`));
  const text = `
    block a { attention { num_heads: 4 num_kv_heads: 2 } }
    block b { attention { num_heads: 4 window_size: 10 } }`;
  assert.equal(cache(text), { perToken: 4 * 2 * 2 * 32, constant: 4 * 2 * 10 * 2 * 64 });
  assert.equal(cache(text.replace('10', '100')), { perToken: 4 * (2 * 2 * 32 + 2 * 2 * 64), constant: 0 });
  const mixed = `block a { ssm { } }
    block b { attention { num_heads: 4 kind: mla { kv_latent: 32 nope_head_dim: 16 rope_head_dim: 8 } } }`;
  assert.equal(cache(mixed), { perToken: 4 * 2 * (32 + 8), constant: 4 * 2 * 128 * (16 + 3) });
});

const published = suite('published models');

published('count as published', () => {
  const numbers: Record<string, { total: number; active: number }> = {
    'mixtral-8x7b': { total: 46_702_792_704, active: 12_879_925_248 },
    'deepseek-v2-lite': { total: 15_706_484_224, active: 2_661_150_208 },
    'mamba-130m': { total: 129_135_360, active: 129_135_360 },
    'hybrid-tiny': { total: 9_970_304, active: 9_970_304 },
    // hermes-llm counts the 27 rows that pad its vocabulary to 50304; here a count is of the vocabulary as it is.
    'retriever-100m': { total: 115_811_840 - 27 * 512, active: 115_811_840 - 27 * 512 },
    'retriever-200m-moe': { total: 200_795_648 - 27 * 512, active: 115_860_992 - 27 * 512 },
    'retriever-300m-moe': { total: 299_929_088 - 27 * 512, active: 115_904_000 - 27 * 512 },
  };
  for (const [name, expected] of Object.entries(numbers)) {
    const { total, active } = countParameters(readModel(name).model);
    assert.equal({ total, active }, expected, name);
  }
});

published('DeepSeek-V2-Lite stretches its positions as its paper says', () => {
  const { attention } = readModel('deepseek-v2-lite').model.blocks[1]!;
  const stretch = 0.0707 * Math.log(40) + 1;
  assert.ok(Math.abs(attention!.scale! - stretch ** 2 / Math.sqrt(192)) < 1e-15);
  assert.equal(readModel('deepseek-v2-lite').model.layers, [0, ...Array(26).fill(1)]);
  // The latent of 512 and the 64 elements of the shared key, in each of 27 layers.
  assert.is(cacheSize(readModel('deepseek-v2-lite').model).perToken, 27 * (512 + 64) * 4);
});

published('are laid out as malc fmt does', () => {
  for (const name of [
    'mixtral_8x7b',
    'deepseek_v2_lite',
    'mamba_130m',
    'hybrid_tiny',
    'retriever_100m',
    'retriever_200m_moe',
  ]) {
    const text = readFileSync(packagePath(`well-known/models/${name}.mal`), 'utf8');
    assert.is(format(text, name), text);
  }
});

published('info prints the parts that a model has', async () => {
  const { log } = console;
  const printed = async (model: string, json = false) => {
    const lines: string[] = [];
    console.log = (line: string) => lines.push(line);
    try {
      await info.run({ model, json, optimizer: 'adamw', recompute: 'block' });
    } finally {
      console.log = log;
    }
    return lines.join('\n');
  };
  const mixtral = await printed('mixtral-8x7b');
  assert.match(mixtral, /active +12,879,925,248 /);
  assert.match(mixtral, /experts +45,097,156,608 {2}2 of 8 for each token/);
  assert.not.match(mixtral, /state space|constant cache|feed-forward/);
  const hybrid = await printed('hybrid-tiny');
  assert.match(hybrid, '6 layers (4 mamba, 2 recall)');
  assert.match(hybrid, /constant cache +77,824 /);
  const { parameters, cache_bytes, training_state } = JSON.parse(await printed('deepseek-v2-lite', true));
  assert.is(parameters.active, 2_661_150_208);
  assert.is(parameters.experts, 26 * 64 * 3 * 2048 * 1408);
  assert.equal(cache_bytes, { per_token: 62_208, constant: 0 });
  assert.is(training_state.moments, 8 * 15_706_484_224);
});

counts.run();
published.run();
