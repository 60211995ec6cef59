// Generated source as its reader meets it: short lines, comments, names, no warnings; and a compiler without OpenMP.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { optimizers } from '../compiler/emission/optimizer.ts';
import { type CompileOptions, compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { productTypes } from '../compiler/targets/cpu/kernel-source.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { randomModel } from './random-models.ts';

const test = suite('generated source');
const folder = mkdtempSync(join(tmpdir(), 'malc-source-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const compiler = await findCompiler();

function modelOf(path: string): Model {
  const { model } = check(parse(readFileSync(packagePath(path), 'utf8'), path.split('/').at(-1)!).syntax);
  if (!model) throw new Error(`${path} does not compile`);
  return model;
}

const models: readonly (readonly [string, Model])[] = [
  ['stories', modelOf('mal/examples/01-stories.mal')],
  ['experts', modelOf('mal/examples/03-experts.mal')],
  ['hybrid', modelOf('mal/examples/04-hybrid.mal')],
  ['llama_7b', modelOf('well-known/models/llama_7b.mal')],
  ['gpt2_small', modelOf('well-known/models/gpt2_small.mal')],
  ['deepseek_v2_lite', modelOf('well-known/models/deepseek_v2_lite.mal')],
  ...fc.sample(randomModel, { seed: 4, numRuns: 6 }).map((model, n) => [`random ${n}`, model] as const),
];

/** Loops of one, what is added to 0 or multiplied by 1, double brackets. */
const needless = /i < 1; i\+\+| \+ 0(?![.\w])|(?<![.\d])1 \* |\* 1(?![.\w])|(?<!__attribute__)\(\(\w+\)\)/;

const frozen = ['model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight'];
const programs = [
  ['stories, partly frozen', models[0]![1], { frozen }] as const,
  ...models.flatMap(([name, model]) => productTypes.map(dtype => [`${name}, ${dtype}`, model, { dtype }] as const)),
  ...optimizers.map(optimizer => [`experts, ${optimizer}`, models[1]![1], { optimizer }] as const),
];

for (const [name, model, options] of programs)
  test(`${name}: as a person would write it`, () => {
    const { files } = compile(model, options);
    const lines = files['model.c']!.split('\n');
    const long = Object.values(files).flatMap(text => text.split('\n').filter(line => line.length > 120));
    assert.is(long.join('\n'), '', 'no line over 120 columns');
    assert.not(
      lines.some(line => /\s$/.test(line)),
      'no space at the end of a line',
    );
    assert.not(
      lines.some((line, n) => line === '' && lines[n - 1] === ''),
      'no two empty lines',
    );
    assert.is(lines.filter(line => needless.test(line)).join('\n'), '', 'nothing needless');
    // A kernel is a static function between these two headings; what belongs to attention has helpers of its own.
    const [from, to] = ['/* ---- Kernels ---- */', '/* ---- Stages ---- */'].map(heading => lines.indexOf(heading));
    lines.slice(from, to).forEach((line, n, all) => {
      if (/^static void /.test(line)) assert.match(all[n - 1]!, / \*\/$/, `a comment above ${line}`);
    });
    const functions = lines.flatMap(line => /^\w[\w ]*[ *](\w+)\([^;]*$/.exec(line)?.[1] ?? []);
    assert.is(new Set(functions).size, functions.length, 'each function is defined once');
    lines.forEach((line, n) => {
      if (line === '}') assert.is(lines[n + 1], '', 'an empty line after each function');
    });
  });

for (const [name, model] of models)
  for (const dtype of ['f32', 'bf16'] as const)
    test(`${name}, ${dtype}, for CUDA: every file as a person would write it`, () => {
      const { files } = compile(model, { target: 'cuda', dtype });
      for (const [file, text] of Object.entries(files)) {
        const lines = text.split('\n');
        assert.match(lines[0]!, /^\/[/*] \S/, `${file} says what it is`);
        assert.is(lines.filter(line => line.length > 120).join('\n'), '', `${file}: no line over 120 columns`);
        const quotes = (line: string) => line.replace(/'"'|\/\/.*/g, '').split('"').length - 1;
        assert.is(lines.filter(line => quotes(line) % 2 === 1).join('\n'), '', `${file}: no string is broken`);
        assert.is(lines.filter(line => /\s$/.test(line)).join('\n'), '', `${file}: no space at the end of a line`);
        assert.not.match(text, /\n\n\n|\n\n$|[^\n]$/, `${file}: no two empty lines, and none at the end`);
      }
      // Models of the usual sizes: in the random ones a dimension may be 1.
      if (name.startsWith('random')) return;
      const own = Object.entries(files).filter(([file]) => file.endsWith('.cu'));
      const found = own.flatMap(([, text]) => text.split('\n').filter(line => needless.test(line)));
      assert.is(found.join('\n'), '', 'nothing needless');
    });

test('a kernel says in a formula what each of its outputs is, however long the formula', () => {
  for (const [name, model] of models)
    for (const kernel of compile(model).kernels) {
      const defining = /^ *(\w+)(?:\[t\])? (?:=|holds|is) /;
      const from = kernel.explanation.findIndex(line => defining.test(line));
      const head = kernel.explanation.slice(0, from).join('').split(':')[0]!;
      const defined = kernel.explanation.slice(from).flatMap(line => defining.exec(line)?.[1] ?? []);
      for (const output of head.split(','))
        assert.ok(defined.includes(output.trim()), `${name}: ${kernel.name}: ${output}`);
      assert.ok(
        kernel.explanation.every(line => line.length <= 112),
        `${name}: ${kernel.name}: a long line`,
      );
    }
});

test('an activated gate that backward computes again has a name of its own', () => {
  const hybrid = models.find(([name]) => name === 'hybrid')![1];
  const lines = compile(hybrid).kernels.flatMap(({ explanation }) => explanation);
  assert.ok(lines.includes('  ssm_opened_gate = ssm_gate * sigmoid(ssm_gate)'));
  const products = lines.filter(line => /^ {2}ssm_gated = /.test(line));
  assert.ok(products.length > 0 && products.every(line => line.includes('ssm_scan')));
});

async function compileWith(
  name: string,
  model: Model,
  options: CompileOptions,
  flags: readonly string[],
): Promise<void> {
  const home = join(folder, name);
  mkdirSync(home);
  for (const [file, text] of Object.entries(compile(model, options).files)) writeFileSync(join(home, file), text);
  const words = [...flags, '-std=gnu11', '-Wall', '-Wextra', '-Werror', `-I${home}`, join(home, 'model.c'), '-lm'];
  await promisify(execFile)(compiler.command, [...compiler.leadingArguments, ...words]);
}

test('no warnings', async () => {
  const strict = ['-Wshadow', '-Wstrict-prototypes', '-Wvla', '-Wundef'];
  for (const [name, model, options] of [
    ...programs.slice(0, 5 * productTypes.length),
    ...programs.slice(-optimizers.length),
  ])
    await compileWith(name, model, options, ['-fsyntax-only', '-fopenmp', ...strict]);
});

test('a compiler without OpenMP builds the whole program', async () => {
  const linked = ['-O0', '-fPIC', '-shared', '-Wno-unknown-pragmas', '-o', join(folder, 'plain.so')];
  const complete = process.platform === 'linux' ? ['-Wl,--no-undefined'] : [];
  await compileWith('plain', models[0]![1], {}, [...linked, ...complete]);
});

test.run();
