// What the language's second part adds to a file: numbers by name and arithmetic, `extends`, `import`, lists of layers, and
// formulas of one's own, which a Model carries as text; and what all of it counts.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { countParameters } from '../compiler/check/count.ts';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { readModel, readModels } from '../compiler/check/read-model.ts';
import { formulaLibrary, standardLibrary } from '../compiler/check/standard-library.ts';
import { SourceError } from '../compiler/diagnostic.ts';
import { parse } from '../compiler/syntax/parse.ts';

function modelOf(text: string, name?: string): Model {
  const { syntax, diagnostics } = parse(text, 'test.mal');
  const checked = check(syntax, { model: name });
  const all = [...diagnostics, ...checked.diagnostics];
  assert.ok(checked.model, new SourceError(all, new Map([['test.mal', text]])).message);
  return checked.model!;
}

const messages = (text: string) =>
  check(parse(text, 'test.mal').syntax).diagnostics.map(({ severity, message }) => `${severity}: ${message}`);

/** A model without names of definitions, places and its own name. */
const bare = (model: Model) =>
  JSON.stringify(model, (key, value) => (key === 'origin' || key === 'name' || key === 'formulas' ? undefined : value));

const numbers = suite('numbers');

numbers('arithmetic is exact and stays whole', () => {
  const width = (text: string) => modelOf(`let d = 96 let third = d / 3 model m { vocab_size: ${text} }`).vocab_size;
  assert.is(width('d'), 96);
  assert.is(width('third'), 32);
  assert.is(width('d - third * 2'), 32);
  assert.is(width('(d - third) * 2'), 128);
  assert.is(width('-(third - d) / 4'), 16);
  assert.is(width('8 * d / 3'), 256);
  assert.is(width('d -1'), 95);
  const scale = (text: string) => modelOf(`let d = 96 model m { embeddings { scale: ${text} } }`).embeddings.scale;
  assert.is(scale('d / 5.0'), 19.2);
  assert.is(scale('1.0 / 3'), 1 / 3);
  assert.is(scale('d * 1e-2'), 0.96);
});

numbers('names stand wherever a number does, in any order, and one that nothing uses is a warning', () => {
  const text = `
    model m {
      hidden_size: 2 * d
      block {
        attention { num_heads: heads  position_encoding: rope { dims: d / heads  scaling: ntk { factor: f } } }
        norm: rmsnorm { eps: f * 1e-6 }
      }
    }
    let heads = d / 16
    let f = 2.5
    let d = 64`;
  const { attention, norm } = modelOf(text).blocks[0]!;
  assert.is(attention!.num_heads, 4);
  assert.equal(attention!.position_encoding, {
    kind: 'rope',
    theta: 10000,
    dims: 16,
    interleaved: false,
    scaling: { kind: 'ntk', factor: 2.5 },
  });
  assert.is(norm!.constants.eps, 2.5 * 1e-6);
  assert.equal(messages(text), []);
  assert.equal(messages('let a = 1 let b = a model m { }'), [
    'warning: let `a` is used by no model',
    'warning: let `b` is used by no model',
  ]);
  // What a used number is made of is used too, in whatever order they stand.
  assert.equal(messages('let c = b + 1 let a = 1 let b = a * 2 model m { num_layers: c }'), []);
});

numbers('work out the constants of a norm, which a Model carries as numbers', () => {
  const text = `let d = 64 let half = d / 128.0
    norm n(x) { a: learned -half  b: d - 1  c: learned d/ 4  e: 2 * -(1 - half) } = (a * x - b) * c * weight + e
    model m { hidden_size: d block { attention { num_heads: 4 } norm: n { b: half * 3 } } }`;
  const model = modelOf(text);
  assert.equal(model.blocks[0]!.norm, { name: 'n', constants: { b: 1.5, e: -1 } });
  assert.equal(model.formulas, [
    'norm n(x) { a: learned -0.5  b: 63  c: learned 16  e: -1 } = (a * x - b) * c * weight + e',
  ]);
  assert.equal(messages(text), []);
  assert.match(messages('norm n(x) { a: dd } = a * x * weight model m { block { norm: n } }')[0]!, '`dd`');
  assert.throws(
    () => formulaLibrary({ name: 'm', formulas: ['norm n(x) { a: 2 * 3 } = a * x * weight'] }),
    (error: Error) => error instanceof SourceError && error.message.includes('expected a number'),
  );
});

numbers('long chains end in a message', () => {
  const lets = Array.from({ length: 3000 }, (_, n) => `let a${n} = a${n + 1} + 1`).join('\n');
  assert.match(messages(`${lets}\nlet a3000 = 1 model m { vocab_size: a0 }`)[0]!, 'rests on more than 100 others');
  const definitions = Array.from({ length: 3000 }, (_, n) => `ffn f${n} extends f${n + 1} { }`).join('\n');
  assert.match(messages(`${definitions}\nffn f3000 { } model m { }`)[0]!, 'rests on more than 100 others');
});

const inheritance = suite('extends');

inheritance('copies, then overrides, under any name of a property', () => {
  const text = `
    attention local extends base { window_size: 8 kv_heads: 1 }
    attention base { n_heads: 4 num_kv_heads: 2 position_encoding: rope { theta: 1e6 dims: 8 } }
    attention bare extends base { position_encoding: none }
    block a { attention: local ffn { bias: true } norm_position: post }
    block b extends a { attention: bare }
    model m { hidden_size: 64 pattern: [a, b] }`;
  const [a, b] = modelOf(text).blocks;
  assert.is(a!.attention!.num_heads, 4);
  assert.is(a!.attention!.num_kv_heads, 1);
  assert.is(a!.attention!.window_size, 8);
  assert.is(a!.attention!.position_encoding.kind === 'rope' && a!.attention!.position_encoding.theta, 1e6);
  assert.is(a!.attention!.origin, 'test.mal:2');
  assert.is(b!.attention!.position_encoding.kind, 'none');
  assert.is(b!.attention!.num_kv_heads, 2);
  assert.ok(b!.ffn!.bias);
  assert.is(b!.norm_position, 'post');
  assert.equal(messages(text), []);
});

inheritance('merges the groups of a model, and a new list of layers replaces the old way to say them', () => {
  const base = `
    block a { } block b { norm: none }
    model small { num_layers: 3 pattern: [a, b] embeddings { tie_weights: true scale: 2 } output { bias: true } }
    model other extends small { embeddings { scale: 3 } output { softcap: 30 }`;
  const other = modelOf(`${base} layers: [2 * b, a, b] }`, 'other');
  assert.ok(other.embeddings.tie_weights);
  assert.is(other.embeddings.scale, 3);
  assert.ok(other.output.bias);
  assert.is(other.output.softcap, 30);
  assert.equal(other.layers, [0, 0, 1, 0]);
  assert.equal(modelOf(`${base} block: b }`, 'other').layers, [0, 0, 0]);
  assert.equal(modelOf(`${base} }`, 'other').layers, [0, 1, 0]);
});

const layers = suite('layers');

layers('repetitions are written out, and their number is the number of layers', () => {
  const text = (list: string) =>
    `let n = 2 block a { } block b { norm: none } block c { residual: false } model m { layers: ${list} }`;
  const names = (list: string) => {
    const model = modelOf(text(list));
    return model.layers.map(layer => model.blocks[layer]!.name).join('');
  };
  assert.is(names('[a, b, c]'), 'abc');
  assert.is(names('[2 * c, 2 * [a, n * b], a,]'), 'ccabbabba');
  assert.is(names('[(n + 1) * [a, b]]'), 'ababab');
  assert.is(names('[n * 2 * c, a, b]'), 'ccccab');
  const repeated = modelOf(text('[3 * [a, b], c]').replace('layers', 'num_layers: 7 layers'));
  assert.equal(repeated.layers, [0, 1, 0, 1, 0, 1, 2]);
  assert.equal(messages('block a { } model m { block: a layers: [a] }'), [
    'warning: `block` has no effect: `layers` says which blocks the layers are',
  ]);
});

const own = suite('formulas of a file');

const formulas = `
  let slope = -0.25
  activation bent(x) = max(x, 0)^2 + slope * soft(x)   # with a comment
  function soft(x) = log(1 + exp(twice(x)))
  function twice(x) = 2 * x
  function idle(x) = x
  norm dyt(x) { alpha: learned 0.5  weight: learned 0  shift: slope2 } = tanh(alpha * x + shift) * (1 + weight) + bias
  score cap(s, q, k, head) = 30 * tanh(s / 30)
  mask prefix(q, k) = k <= q || k < 8`.replace('slope2', '0.125');

own('are carried by the Model as text, with the functions that they call and numbers for names', () => {
  const text = `${formulas} model m { hidden_size: 64 block { ffn { activation: bent } attention { num_heads: 4 } } }`;
  const model = modelOf(text);
  assert.equal(model.formulas, [
    'activation bent(x) = max(x, 0)^2 + (-0.25) * soft(x)',
    'function soft(x) = log(1 + exp(twice(x)))',
    'function twice(x) = 2 * x',
  ]);
  assert.equal(messages(text), [
    'warning: function `idle` is used by no model',
    'warning: norm `dyt` is used by no model',
    'warning: score `cap` is used by no model',
    'warning: mask `prefix` is used by no model',
  ]);
  const library = formulaLibrary(JSON.parse(JSON.stringify(model)));
  assert.is(library.get('bent')!.text, model.formulas[0]);
  assert.is(library.get('silu'), standardLibrary().get('silu'));
  assert.is(formulaLibrary(modelOf('model m { }')), standardLibrary());
});

own('serve every place that takes a norm, a score or a mask', () => {
  const model = modelOf(`${formulas}
    block b { norm: dyt { shift: 2 } attention { num_heads: 4 qk_norm: dyt score: cap mask: prefix softcap: 50 } }
    model m { hidden_size: 64 block: b embeddings { norm: dyt } output { norm: norm_offset } }`);
  const { attention, norm } = model.blocks[0]!;
  assert.equal(norm, { name: 'dyt', constants: { shift: 2 } });
  assert.equal(attention!.qk_norm, { name: 'dyt', constants: { shift: 0.125 } });
  assert.equal([attention!.score, attention!.mask, attention!.softcap], ['cap', 'prefix', 50]);
  assert.is(model.embeddings.norm!.name, 'dyt');
  assert.equal(model.output.norm, { name: 'norm_offset', constants: { eps: 1e-6 } });
  assert.is(model.formulas.length, 3);
});

own('that are no right MAL, as in a config.json changed by hand, are refused', () => {
  const model = (formula: string) => ({ name: 'm', formulas: [formula] });
  for (const formula of ['activation a(x) = y', 'activation a(x', 'norm n(x) { c: 1 } = x'])
    assert.throws(
      () => formulaLibrary(model(formula)),
      (error: Error) => error instanceof SourceError,
    );
});

const counts = suite('counts');

const total = (block: string, rest = '') =>
  countParameters(
    modelOf(`${formulas} model m { hidden_size: 64 num_layers: 1 vocab_size: 10 block { ${block} } ${rest} }`),
  ).total;

counts('follow every choice', () => {
  const plain = total('attention { num_heads: 4 num_kv_heads: 2 }');
  const attention = (properties: string) => total(`attention { num_heads: 4 num_kv_heads: 2 ${properties} }`) - plain;
  assert.is(attention('bias: true'), 64 + 2 * 32 + 64);
  assert.is(attention('qkv_bias: true'), 64 + 2 * 32);
  assert.is(attention('bias: true qkv_bias: false'), 64);
  assert.is(attention('output_bias: true'), 64);
  assert.is(attention('qk_norm: true'), 2 * 16);
  assert.is(attention('qk_norm: layernorm qk_norm_over: all'), 2 * (64 + 32));
  assert.is(attention('qk_norm: dyt'), 2 * (2 * 16 + 1));
  assert.is(attention('output_gate: true'), 64 * 64);
  assert.is(attention('softcap: 5 score: cap mask: prefix position_encoding: sinusoidal'), 0);
  const block = (properties: string) => total(`attention { num_heads: 4 num_kv_heads: 2 } ${properties}`) - plain;
  assert.is(block('norm_position: output'), 0);
  assert.is(block('norm_position: sandwich'), 2 * 64);
  assert.is(block('parallel: true residual_scale: 0.5'), 0);
  assert.is(block('norm: norm_offset'), 0);
  assert.is(block('norm: dyt'), 2 * (64 + 1) + 64 + 1);
  assert.is(total('attention { num_heads: 4 num_kv_heads: 2 }', 'embeddings { norm: layernorm }') - plain, 2 * 64);
});

const imports = suite('imports');

/** Writes files into a new folder and does something with it. */
function withFiles(files: Record<string, string>, work: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'malc-import-'));
  try {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The whole text of the error, without the folder. */
function errorOf(files: Record<string, string>): string {
  let message = '';
  withFiles(files, folder => {
    try {
      readModels(join(folder, 'main.mal'));
    } catch (error) {
      assert.instance(error, SourceError);
      message = (error as Error).message.replaceAll(`${folder}/`, '');
    }
  });
  return message;
}

imports('bring definitions, from where the file that names them lies', () => {
  const files = {
    'main.mal': 'import "parts/blocks.mal" import "numbers.mal"\nmodel m extends frame { hidden_size: d block: layer }',
    'parts/blocks.mal': '\nimport "../numbers.mal"\nblock layer { ffn { hidden_dim: 3 * d activation: bent } }',
    'numbers.mal': 'let d = 96 activation bent(x) = max(x, 0) * d model frame { num_layers: 2 } ffn unused { }',
  };
  withFiles(files, folder => {
    const { models, warnings, path } = readModels(join(folder, 'main.mal'));
    assert.is(path, join(folder, 'main.mal'));
    assert.equal(warnings, []);
    assert.equal(
      models.map(({ name }) => name),
      ['m'],
    );
    const [model] = models as [Model];
    assert.is(model.blocks[0]!.ffn!.hidden_dim, 288);
    assert.is(model.blocks[0]!.ffn!.origin, 'blocks.mal:3');
    assert.is(model.layers.length, 2);
    assert.equal(model.formulas, ['activation bent(x) = max(x, 0) * 96']);
    assert.is(readModel(join(folder, 'main.mal')).model.name, 'm');
    // By another name it is the same file, read once.
    symlinkSync(join(folder, 'numbers.mal'), join(folder, 'linked.mal'));
    writeFileSync(join(folder, 'main.mal'), `import "linked.mal" ${files['main.mal']}`);
    assert.is(bare(readModel(join(folder, 'main.mal')).model), bare(model));
  });
});

imports('that fail are shown where they are written', () => {
  assert.is(
    errorOf({ 'main.mal': '# first\nimport "a.mal"\nmodel m { }', 'a.mal': 'import "none.mal" import "/etc/hosts"' }),
    `error: there is no file \`none.mal\`
 --> a.mal:1:8
1 | import "none.mal" import "/etc/hosts"
  |        ^^^^^^^^^^
help: the path is relative to the folder of the file that imports it

error: \`/etc/hosts\` is an absolute path
 --> a.mal:1:26
1 | import "none.mal" import "/etc/hosts"
  |                          ^^^^^^^^^^^^
help: write it relative to the folder of the file that imports it`,
  );
  assert.is(
    errorOf({ 'main.mal': 'import "a.mal"', 'a.mal': 'import "b.mal"', 'b.mal': 'import "a.mal"' }),
    `error: files cannot import each other: \`a.mal\` imports \`b.mal\` imports \`a.mal\`
 --> b.mal:1:8
1 | import "a.mal"
  |        ^^^^^^^`,
  );
  assert.match(errorOf({ 'main.mal': 'import "main.mal"' }), 'files cannot import each other');
  assert.match(errorOf({ 'main.mal': 'import "sub"', 'sub/a.mal': '' }), 'cannot be read: it is a folder');
  assert.match(errorOf({ 'main.mal': 'import "a\0b"' }), 'cannot be read');
});

imports('keep every message in the file that it is about', () => {
  assert.is(
    errorOf({
      'main.mal': 'import "a.mal"\nffn f { hidden_dim: width }\nmodel m { block { ffn: f } }\nffn g { bias: 3 }',
      'a.mal': '\nlet width = 0\nffn f { }\nffn h { gate: 1 }',
    }),
    `error: \`hidden_dim\` must be at least 1, not 0
 --> main.mal:2:21
1 | import "a.mal"
2 | ffn f { hidden_dim: width }
  |                     ^^^^^

error: \`bias\` takes true or false, not 3
 --> main.mal:4:15
3 | model m { block { ffn: f } }
4 | ffn g { bias: 3 }
  |               ^

error: ffn \`f\` is defined twice
 --> a.mal:3:5
2 | let width = 0
3 | ffn f { }
  |     ^
note: first defined here
 --> main.mal:2:5
2 | ffn f { hidden_dim: width }
  |     ^
help: give one of them another name

error: \`gate\` takes true or false, not 1
 --> a.mal:4:15
3 | ffn f { }
4 | ffn h { gate: 1 }
  |               ^
help: write \`true\``,
  );
});

for (const each of [numbers, inheritance, layers, own, counts, imports]) each.run();
