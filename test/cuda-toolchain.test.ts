// How programs for CUDA are built: which architectures, which units are compiled again, what nvcc says; with a stand-in for
// nvcc that writes down how it is called.
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { Builder } from '../compiler/graph/builder.ts';
import { time } from '../compiler/graph/dimension.ts';
import { compile } from '../compiler/index.ts';
import { storedAsFloat } from '../compiler/plan/storage.ts';
import { parse } from '../compiler/syntax/parse.ts';
import { architectureFlags, parseArchitectures } from '../compiler/targets/cuda/architectures.ts';
import { emitLauncher } from '../compiler/targets/cuda/launcher.ts';
import { buildFiles } from '../runtime/build.ts';

const test = suite('cuda toolchain');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-toolchain-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const calls = join(folder, 'calls');
const nvcc = join(folder, 'nvcc');
writeFileSync(
  nvcc,
  `#!/bin/sh
case "$1" in
  --version) echo 'Cuda compilation tools, release 13.0, V13.0.88'; exit ;;
  --list-gpu-code) printf 'sm_75\\nsm_80\\nsm_90\\nsm_100\\n'; exit ;;
esac
echo "$*" >> '${calls}'
case "$*" in *products.cu*) echo 'ptxas info : (C7510) Potential Performance Loss' ;; esac
while [ "$1" != -o ]; do shift; done
echo compiled > "$2"
`,
);
chmodSync(nvcc, 0o755);
process.env.NVCC = nvcc;
process.env.MALC_CACHE = join(folder, 'cache');

/** A small model as CUDA C++. */
function programOf(feedForward: string): Readonly<Record<string, string>> {
  const text = `model small { vocab_size: 300 hidden_size: 16 num_layers: 1 max_seq_len: 16
    block { attention { num_heads: 2 } ffn { ${feedForward} } } }`;
  return compile(check(parse(text, 'small.mal').syntax).model!, { target: 'cuda' }).files;
}

/** The files that are compiled or linked while `run` runs. */
async function callsOf<Result>(run: () => Promise<Result>): Promise<{ result: Result; calls: string[] }> {
  writeFileSync(calls, '');
  const result = await run();
  return { result, calls: readFileSync(calls, 'utf8').trim().split('\n') };
}

const unitsIn = (lines: readonly string[]) =>
  lines
    .filter(line => line.startsWith('-c '))
    .map(line => basename(/\S+\.cu\b/.exec(line)![0]))
    .sort();

test('a program leaves the default stream alone, for which its own, which does not block, does not wait', () => {
  const { 'model.cu': text = '', 'program.h': header = '', 'launch.h': launches = '' } = programOf('activation: silu');
  assert.match(text, 'cudaStreamNonBlocking');
  assert.not.match(`${text}${header}${launches}`, /\bcuda(Memcpy|Memset|MemcpyToSymbol)\(/);
});

test('architectures: a list is checked name by name', () => {
  const known = ['sm_75', 'sm_80', 'sm_90']; // nvcc 13 does not list sm_90a, and older ones do
  assert.equal(parseArchitectures('sm_90a', [...known, 'sm_90a']), ['sm_90a']);
  assert.equal(parseArchitectures('sm_90a, sm_80,sm_90a', known), ['sm_90a', 'sm_80']);
  const refused = (list: string, message: string) =>
    assert.throws(
      () => parseArchitectures(list, known),
      (error: unknown) => error instanceof UserError && error.message === message,
    );
  refused('sm_80,sm_75', '--arch sm_75: kernels need sm_80 (Ampere) or newer');
  for (const unknown of ['sm_81', 'sm_80a', 'sm_100a', '80', 'compute_80', ''])
    refused(unknown, `--arch ${unknown}: there is no such architecture; this nvcc knows sm_80, sm_90, sm_90a`);
});

test('architectures: code for newer GPUs is kept of the highest generic one', () => {
  const codes = (...names: string[]) => architectureFlags(names).filter(word => word !== '-gencode');
  assert.equal(codes('sm_80', 'sm_90a'), [
    'arch=compute_80,code=[sm_80,compute_80]',
    'arch=compute_90a,code=sm_90a',
    '-DMALC_HOPPER',
  ]);
  assert.equal(codes('sm_100', 'sm_90'), ['arch=compute_100,code=[sm_100,compute_100]', 'arch=compute_90,code=sm_90']);
  assert.equal(codes('sm_90a'), ['arch=compute_90a,code=sm_90a', '-DMALC_HOPPER']);
});

test('a unit that is as it was is not compiled again', async () => {
  const silu = programOf('hidden_dim: 24');
  const all = ['attention.cu', 'model.cu', 'products.cu', 'rows.cu'];
  const fresh = await callsOf(() => buildFiles('cuda', silu));
  assert.equal(unitsIn(fresh.calls), all);
  assert.is(fresh.calls.length, all.length + 1, 'and they are linked');
  assert.not(fresh.result.cached);
  assert.match(fresh.result.warnings, /^ptxas info : \(C7510\)/);

  const again = await callsOf(() => buildFiles('cuda', silu));
  assert.equal(again.calls, ['']);
  assert.ok(again.result.cached);

  const wider = await callsOf(() => buildFiles('cuda', programOf('hidden_dim: 40')));
  assert.not(unitsIn(wider.calls).includes('attention.cu'));
  assert.ok(unitsIn(wider.calls).includes('products.cu'));

  const header = await callsOf(() => buildFiles('cuda', { ...silu, 'attention.h': `${silu['attention.h']}\n` }));
  assert.equal(unitsIn(header.calls), ['attention.cu'], 'a header is a part of the units that include it');

  const other = await callsOf(() => buildFiles('cuda', silu, { architectures: 'sm_90a' }));
  assert.equal(unitsIn(other.calls), all);
  for (const line of other.calls.slice(0, all.length)) assert.match(line, ' arch=compute_90a,code=sm_90a ');
});

test('a launcher takes values of any name beside its own stream and the sizes', () => {
  const builder = new Builder();
  const value = (name: string) => ({ kind: 'input', node: builder.input(name, [time]), name }) as const;
  const { text, declaration } = emitLauncher(
    {
      arguments: [
        { kind: 'size', name: 'time' },
        ...['queue', 'mixer.norm', 'time', 'queue'].map(value),
        { kind: 'adds' },
      ],
      launches: [
        { kernel: '@NAME@', grid: 'batch * time', block: '32', shared: '0' },
        { kernel: '@NAME@_second', grid: '1', block: '64', shared: '0' },
      ],
    },
    storedAsFloat,
  );
  assert.is(
    declaration,
    'cudaError_t launch_@NAME@(cudaStream_t queue_3, int64_t batch, int64_t time, const float *queue, const float *mixer_norm, ' +
      'const float *time_2, const float *queue_2, bool adds);',
  );
  const given = 'queue_3, time, queue, mixer_norm, time_2, queue_2, adds';
  assert.match(text, `  cudaError_t error = malc_launch(@NAME@, batch * time, 32, 0, ${given});\n`);
  assert.match(
    text,
    `  if (error == cudaSuccess) error = malc_launch(@NAME@_second, 1, 64, 0, ${given});\n  return error;`,
  );
});

test('a launcher chooses the launches for Hopper GPUs when it runs, and describes tensors to TMA first', () => {
  const builder = new Builder();
  const { text, declaration } = emitLauncher(
    {
      arguments: [{ kind: 'input', node: builder.input('x', [time]), name: 'x_map' }],
      launches: [{ kernel: '@NAME@', grid: '1', block: '32', shared: '0' }],
      hopper: {
        maps: [
          {
            ...{ name: 'x_map', base: 'x_map', sizes: ['64', 'batch * time'], strides: ['72'] },
            box: { columns: 64, rows: 128 },
          },
        ],
        launches: [{ kernel: '@NAME@_hopper', grid: '2', block: '384', shared: '1024', maps: ['x_map'] }],
      },
    },
    storedAsFloat,
  );
  assert.is(
    declaration,
    'cudaError_t launch_@NAME@(cudaStream_t queue, int64_t batch, int64_t time, const float *x_map_2);',
  );
  const lines = [
    'if (malc_on_hopper()) {',
    '  CUtensorMap x_map;',
    '  cudaError_t error = encode_tensor_map(&x_map, x_map_2, 2, {64, static_cast<uint64_t>(batch * time)}, ' +
      '{72}, 64, 128);',
    '  if (error == cudaSuccess) error = malc_launch(@NAME@_hopper, 2, 384, 1024, queue, x_map, x_map_2);',
    '  return error;',
    '}',
    'return malc_launch(@NAME@, 1, 32, 0, queue, x_map_2);',
  ];
  const folded = (long: string) => long.replaceAll(/\s+/g, ' ');
  assert.ok(folded(text).includes(folded(lines.join('\n'))), text);
});

test('units do not know the model', () => {
  const [a, b] = [programOf('hidden_dim: 24'), programOf('hidden_dim: 40')] as const;
  assert.is(a['attention.cu'], b['attention.cu']);
  assert.is.not(a['kernels.h'], undefined);
  for (const name of Object.keys(a).filter(file => file.endsWith('.cu') && file !== 'model.cu')) {
    assert.not.match(a[name]!, /#include "kernels\.h"/);
    assert.match(a[name]!, new RegExp(`^/\\* ${name.replace('.', '\\.')}: `));
  }
});

test('a group with many kernels is cut into files of about as many', () => {
  const blocks = Array.from(
    { length: 6 },
    (_, n) => `block b${n} { attention { num_heads: 2 } ffn { hidden_dim: ${n + 8} } }`,
  );
  const layers = Array.from({ length: 6 }, (_, n) => `b${n}`).join(', ');
  const text = `${blocks.join('\n')}
    model several { vocab_size: 300 hidden_size: 16 num_layers: 6 max_seq_len: 16 layers: [${layers}] }`;
  const { files, kernels } = compile(check(parse(text, 'several.mal').syntax).model!, { target: 'cuda' });
  const names = Object.keys(files).filter(name => /^products.*\.cu$/.test(name));
  assert.ok(names.length > 1 && names.includes('products_1.cu') && names.includes('products_2.cu'), names.join());
  const counts = names.map(name => kernels.filter(({ source }) => files[name]!.includes(source)).length);
  assert.is(
    counts.reduce((sum, count) => sum + count),
    kernels.filter(({ kind }) => kind === 'matmul').length,
  );
  assert.ok(Math.max(...counts) - Math.min(...counts) < names.length, counts.join());
  for (const { declaration, name } of kernels) {
    assert.match(declaration!, `cudaError_t launch_${name}(`);
    assert.match(files['kernels.h']!, declaration!);
  }
});

test.run();
