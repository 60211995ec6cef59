// The checker: every rule of the language's first part, the whole text of each error, and the well-known models' exact
// counts.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { cacheSize, flopsPerToken } from '../compiler/check/cost.ts';
import { countParameters } from '../compiler/check/count.ts';
import { checkFormula } from '../compiler/check/formula.ts';
import { check, checkFile } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { readModel, wellKnownModels } from '../compiler/check/read-model.ts';
import { standardFiles, standardLibrary } from '../compiler/check/standard-library.ts';
import { nearest, SourceError, UserError } from '../compiler/diagnostic.ts';
import { packagePath, readPackageFile } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { check as checkCommand } from '../runtime/commands/check.ts';
import { info } from '../runtime/commands/info.ts';

const errorFolder = join(dirname(fileURLToPath(import.meta.url)), 'errors');

/** The diagnostics of a text as readModel reports them: those of the syntax, or where it is right those of the check. */
function diagnose(text: string, file: string) {
  const { syntax, diagnostics } = parse(text, file);
  return diagnostics.length > 0 ? diagnostics : check(syntax).diagnostics;
}

function modelOf(text: string, name?: string): Model {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  const checked = check(syntax, name === undefined ? {} : { model: name });
  const all = [...diagnostics, ...checked.diagnostics];
  assert.ok(checked.model, new SourceError(all, new Map([['test.mal', text]])).message);
  return checked.model!;
}

const messages = (text: string) => diagnose(text, 'test.mal').map(({ severity, message }) => `${severity}: ${message}`);

const models = suite('models');

models('a model without properties is all defaults', () => {
  const model = modelOf('model m { }');
  assert.equal(model, {
    name: 'm',
    description: '',
    vocab_size: 32000,
    max_seq_len: 2048,
    hidden_size: 768,
    embeddings: {
      tie_weights: false,
      scale: null,
      dropout: 0,
      untrained_token: null,
      role_embeddings: null,
      learned_positions: null,
      sinusoidal_positions: false,
      norm: null,
    },
    blocks: [
      {
        name: 'block',
        attention: {
          num_heads: 12,
          num_kv_heads: 12,
          head_dim: 64,
          value_head_dim: 64,
          latent: null,
          qkv_bias: false,
          output_bias: false,
          causal: true,
          window_size: null,
          dropout: 0,
          sinks: false,
          scale: null,
          qk_norm: null,
          qk_norm_over: 'head',
          output_gate: false,
          position_encoding: { kind: 'rope', theta: 10000, dims: 64, interleaved: false, scaling: null },
          softcap: null,
          score: null,
          mask: null,
          origin: '',
        },
        ssm: null,
        ffn: {
          hidden_dim: 3072,
          activation: 'silu',
          gate: true,
          bias: false,
          dropout: 0,
          moe: null,
          origin: '',
        },
        norm: { name: 'rmsnorm', constants: { eps: 1e-5 } },
        norm_position: 'pre',
        residual: true,
        residual_scale: null,
        parallel: false,
        dropout: 0,
        origin: '',
      },
    ],
    layers: Array(12).fill(0),
    output: { bias: false, norm: { name: 'rmsnorm', constants: { eps: 1e-5 } }, softcap: null, scale: null },
    init: { std: 0.02, residual_scale: true },
    mtp: null,
    formulas: [],
  });
});

models('every property reaches the model, under every one of its names', () => {
  const canonical = modelOf(`
    model m {
      description: "all of it"
      vocab_size: 100 max_seq_len: 64 hidden_size: 32 num_layers: 3
      embeddings { tie_weights: true dropout: 0.1 scale: 2.5 }
      output { bias: true norm: none }
      block: b
    }
    block b { attention: a ffn: f norm: layernorm { eps: 1e-6 } norm_position: post residual: false dropout: 0.2 }
    ffn f { hidden_dim: 48 activation: gelu_tanh gate: false bias: true dropout: 0.3 }
    attention a {
      num_heads: 4 num_kv_heads: 2 head_dim: 16 bias: true dropout: 4e-1 causal: true window_size: 8 qk_norm: true
      position_encoding: rope { rope_theta: 500000 rope_scaling: 4 }
    }`);
  assert.equal(canonical.blocks[0], {
    name: 'b',
    attention: {
      num_heads: 4,
      num_kv_heads: 2,
      head_dim: 16,
      value_head_dim: 16,
      latent: null,
      qkv_bias: true,
      output_bias: true,
      causal: true,
      window_size: 8,
      dropout: 0.4,
      sinks: false,
      scale: null,
      qk_norm: { name: 'rmsnorm', constants: { eps: 1e-5 } },
      qk_norm_over: 'head',
      output_gate: false,
      position_encoding: {
        kind: 'rope',
        theta: 500000,
        dims: 16,
        interleaved: false,
        scaling: { kind: 'linear', factor: 4 },
      },
      softcap: null,
      score: null,
      mask: null,
      origin: 'test.mal:11',
    },
    ssm: null,
    ffn: {
      hidden_dim: 48,
      activation: 'gelu_tanh',
      gate: false,
      bias: true,
      dropout: 0.3,
      moe: null,
      origin: 'test.mal:10',
    },
    norm: { name: 'layernorm', constants: { eps: 1e-6 } },
    norm_position: 'post',
    residual: false,
    residual_scale: null,
    parallel: false,
    dropout: 0.2,
    origin: 'test.mal:9',
  });
  assert.equal(canonical.embeddings, {
    tie_weights: true,
    scale: 2.5,
    dropout: 0.1,
    untrained_token: null,
    role_embeddings: null,
    learned_positions: null,
    sinusoidal_positions: false,
    norm: null,
  });
  assert.equal(canonical.output, { bias: true, norm: null, softcap: null, scale: null });
  const aliases = (names: readonly string[]) => `
    model m {
      description: "all of it"
      vocab_size: 100 ${names[0]}: 64 ${names[1]}: 32 ${names[2]}: 3
      embeddings { tie_weights: true dropout: 0.1 scale: 2.5 }
      output { bias: true norm: none }
      block: b
    }
    block b { attention: a ffn: f norm: layernorm { norm_eps: 1e-6 } norm_position: post residual: false dropout: 0.2 }
    ffn f { intermediate_size: 48 activation: gelu_new gate: false bias: true dropout: 0.3 }
    attention a {
      ${names[3]}: 4 kv_heads: 2 head_dim: 16 bias: true dropout: 4e-1 causal: true window_size: 8 qk_norm: true
      position_encoding: rope { ${names[4]}: 5e5 rope_scaling: 4 }
    }`;
  assert.equal(modelOf(aliases(['context_length', 'd_model', 'n_layers', 'n_heads', 'theta'])), canonical);
  assert.equal(modelOf(aliases(['seq_len', 'embed_dim', 'depth', 'attention_heads', 'base'])), canonical);
});

models('groups in place mean what named definitions mean', () => {
  const named = modelOf(
    'attention a { num_heads: 4 } ffn f { gate: false } block block { attention: a ffn: f } model m { hidden_size: 64 block: block }',
  );
  const withColons = modelOf('model m { hidden_size: 64 block: { attention: { num_heads: 4 } ffn: { gate: false } } }');
  const without = modelOf('model m { hidden_size: 64 block { attention { num_heads: 4 } ffn { gate: false } } }');
  const bare = (model: Model) => JSON.stringify(model, (key, value) => (key === 'origin' ? undefined : value));
  assert.is(bare(withColons), bare(named));
  assert.is(bare(without), bare(named));
});

models('a pattern is repeated over the layers and comes before a block', () => {
  const text = `
    model m { num_layers: 5 pattern: [wide, narrow, wide,] }
    block narrow { attention { window_size: 16 } }
    block wide { norm: layernorm }`;
  const model = modelOf(text);
  assert.equal(model.layers, [0, 1, 0, 0, 1]);
  assert.equal(
    model.blocks.map(block => block.name),
    ['wide', 'narrow'],
  );
  assert.is(model.output.norm!.name, 'layernorm');
  assert.equal(messages(text.replace('pattern', 'block: narrow pattern')), [
    'warning: `block` has no effect: `pattern` says which blocks the layers are',
  ]);
  assert.equal(messages(text.replace('5', '1')), [
    "warning: `narrow` has no effect: num_layers is 1, less than the pattern's 3 blocks",
  ]);
});

models('activations go by the names of the field, with and without a gate', () => {
  const activation = (word: string) =>
    modelOf(`model m { block { ffn { activation: ${word} gate: false } } }`).blocks[0]!.ffn;
  for (const [word, name] of [
    ['swiglu', 'silu'],
    ['silu', 'silu'],
    ['gelu', 'gelu'],
    ['gelu_new', 'gelu_tanh'],
    ['gelu_tanh', 'gelu_tanh'],
    ['relu', 'relu'],
    ['geglu', 'gelu'],
    ['relu2', 'relu2'],
  ] as const)
    assert.equal(activation(word), {
      hidden_dim: 3072,
      activation: name,
      gate: false,
      bias: false,
      dropout: 0,
      moe: null,
      origin: 'test.mal:1',
    });
});

models('learned positions are one table, as long as the longest text by default', () => {
  const text = 'block b { attention { position_encoding: learned } } model m { block: b max_seq_len: 77 }';
  assert.is(modelOf(text).embeddings.learned_positions, 77);
  assert.is(modelOf(text.replace('learned', 'learned { max_positions: 100 }')).embeddings.learned_positions, 100);
});

models('definitions that no model uses are warnings', () => {
  assert.equal(messages('ffn f { } block b { ffn: f } activation a(x) = x model m { }'), [
    'warning: ffn `f` is used by no model',
    'warning: block `b` is used by no model',
    'warning: activation `a` is used by no model',
  ]);
});

models('one of several models is chosen by name', () => {
  const text = 'model one { } model other { hidden_size: 1536 }';
  assert.is(modelOf(text, 'other').hidden_size, 1536);
  const { syntax } = parse(text, 'test.mal');
  assert.is(checkFile(syntax).models.length, 2);
  assert.match(check(syntax, { model: 'othr' }).diagnostics[0]!.help!, 'did you mean `other`?');
});

models('the well-known models have exactly the published numbers of parameters', () => {
  const totals: Record<string, number> = {
    'gpt2-small': 124_439_808,
    'gpt2-medium': 354_823_168,
    'gpt2-large': 774_030_080,
    'gpt2-xl': 1_557_611_200,
    'llama-7b': 6_738_415_616,
    'mistral-7b': 7_241_732_096,
    'llama3-1b': 1_235_814_400,
    'llama3-8b': 8_030_261_248,
    'qwen2.5-0.5b': 494_032_768,
    'qwen3-0.6b': 596_049_920,
    'olmo2-1b': 1_484_916_736,
    'mixtral-8x7b': 46_702_792_704,
    'deepseek-v2-lite': 15_706_484_224,
    'mamba-130m': 129_135_360,
  };
  for (const [name, total] of Object.entries(totals))
    assert.is(countParameters(readModel(name).model).total, total, name);
  for (const name of wellKnownModels()) {
    const { model, warnings } = readModel(name);
    assert.equal(warnings, [], name);
    // A name in the language has no point.
    assert.is(model.name.replaceAll('_', '.'), name);
  }
});

models('the parts of a count add up', () => {
  for (const name of wellKnownModels()) {
    const { model } = readModel(name);
    const { total, active, perLayer, ...parts } = countParameters(model);
    const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
    assert.is(sum(Object.values(parts)), total, name);
    const { embedding, positions, head } = parts;
    const outputNorm = (model.output.norm!.name === 'layernorm' ? 2 : 1) * model.hidden_size;
    assert.is(sum(perLayer) + embedding + positions + head + outputNorm, total, name);
    assert.is(active < total, parts.experts > 0, name);
  }
});

models('operations follow 6 N + 12 L H Q T, and a window shortens T', () => {
  const { model } = readModel('gpt2-small');
  const weights = 12 * (4 * 768 * 768 + 2 * 768 * 3072) + 50257 * 768;
  assert.is(flopsPerToken(model, 1024), 6 * weights + 12 * 12 * 768 * 1024);
  const { model: windowed } = readModel('mistral-7b');
  assert.is(flopsPerToken(windowed, 32768), flopsPerToken(windowed, 4096));
  assert.equal(cacheSize(model), { perToken: 12 * 2 * 768 * 4, constant: 0 });
  assert.equal(cacheSize(windowed), { perToken: 0, constant: 32 * 2 * 1024 * 4096 * 4 });
});

models('a well-known model goes by several names, and an unknown one is met with the nearest', () => {
  for (const name of ['gpt2-small', 'gpt2_small', 'well-known/gpt2_small.mal', 'well-known/models/gpt2-small.mal'])
    assert.is(readModel(name).model.name, 'gpt2-small');
  for (const name of ['qwen2.5-0.5b', 'qwen2_5_0_5b', 'qwen2-5-0-5b.mal', 'well-known/qwen2.5_0.5b'])
    assert.is(readModel(name).model.name, 'qwen2_5-0_5b');
  assert.throws(
    () => readModel('gpt2-smal'),
    (error: Error) => error instanceof UserError && error.message.includes('gpt2-small'),
  );
});

models('the examples are right', () => {
  const folder = packagePath('mal/examples');
  for (const file of readdirSync(folder)) assert.equal(readModel(join(folder, file)).warnings, [], file);
});

models('every standard formula has a name of its own and is right', () => {
  const library = standardLibrary();
  for (const name of ['silu', 'gelu', 'gelu_tanh', 'relu', 'rmsnorm', 'layernorm', 'softmax', 'cross_entropy'])
    assert.ok(library.has(name), name);
  for (const [name, formula] of library) {
    assert.is(formula.name, name);
    assert.equal(checkFormula(formula, library), [], name);
  }
  const definitions = standardFiles.flatMap(file => parse(readPackageFile(file), file).syntax.definitions);
  assert.equal([...library.values()], definitions);
});

models('the nearest name is near', () => {
  assert.is(nearest('windw_size', ['window_size', 'num_heads']), 'window_size');
  assert.is(nearest('gleu', ['relu', 'gelu']), 'gelu');
  assert.is(nearest('a', ['b']), null);
  assert.is(nearest('activation', ['norm']), null);
});

const golden = suite('errors, whole texts');
const standardSources = standardFiles.map(file => [file, readPackageFile(file)] as const);

for (const file of readdirSync(errorFolder).filter(name => name.endsWith('.mal'))) {
  golden(file, () => {
    const text = readFileSync(join(errorFolder, file), 'utf8');
    const diagnostics = diagnose(text, file);
    assert.ok(
      diagnostics.some(({ severity }) => severity === 'error'),
      'the file is wrong',
    );
    const sources = new Map([...standardSources, [file, text] as const]);
    const message = `${new SourceError(diagnostics, sources).message}\n`;
    const expected = join(errorFolder, file.replace(/\.mal$/, '.txt'));
    if (process.env.UPDATE) writeFileSync(expected, message);
    assert.fixture(message, readFileSync(expected, 'utf8'));
  });
}

const commands = suite('commands');

/** What a command prints on stdout. */
async function printed(work: () => Promise<void>): Promise<string> {
  const { log } = console;
  const lines: string[] = [];
  console.log = (line: string) => lines.push(line);
  try {
    await work();
  } finally {
    console.log = log;
  }
  return lines.join('\n');
}

commands('check says how large a right file is, and as data what is wrong with another', async () => {
  const right = await printed(() => checkCommand.run({ file: 'nano' }));
  assert.match(right, /nano\.mal: ok, model nano: 2 layers, 4,227,392 parameters, 2,048,000 of them the embedding$/);
  let thrown: unknown = null;
  const wrong = await printed(() =>
    checkCommand.run({ file: join(errorFolder, 'unknown-words.mal'), json: true }).catch(error => {
      thrown = error;
    }),
  );
  assert.instance(thrown, SourceError);
  const { ok, diagnostics } = JSON.parse(wrong);
  assert.is(ok, false);
  assert.is(diagnostics[0].line, 1);
  assert.is(diagnostics[0].help, 'did you mean `window_size`?');
});

commands('info prints the counts, and what training keeps with an optimizer and with recompute', async () => {
  const usual = { optimizer: 'adamw', recompute: 'block' };
  const text = await printed(() => info.run({ model: 'gpt2-small', ...usual }));
  assert.match(text, /parameters +124,439,808 +124\.4M\n/);
  // A count's billions and a memory's gigabytes are not to be taken for each other.
  const large = await printed(() => info.run({ model: 'llama3_8b', ...usual }));
  assert.match(large, /parameters +8,030,261,248 +8\.03B\n/);
  assert.match(large, /weights +32,121,044,992 +29\.9GiB\n/);
  const told = async (more = {}) =>
    JSON.parse(await printed(() => info.run({ model: 'nano', json: true, ...usual, ...more })));
  const { parameters, training_state_bytes, training_state, kept_bytes } = await told();
  const weights = 4 * 4_227_392;
  assert.is(parameters.total, 4_227_392);
  assert.is(training_state_bytes, 4 * weights);
  assert.equal(training_state, { optimizer: 'adamw', weights, gradients: weights, moments: 2 * weights });
  const lion = await told({ optimizer: 'lion', recompute: 'none' });
  assert.is(lion.training_state.moments, weights);
  assert.equal(lion.kept_bytes, { recompute: 'none', none: kept_bytes.none, recomputed: kept_bytes.none });
  assert.ok(kept_bytes.recompute === 'block' && kept_bytes.recomputed < kept_bytes.none);
});

models.run();
golden.run();
commands.run();
