// Products of experts on Hopper GPUs: emitted kernels in the emulator, which is a Hopper GPU here, against the float64
// evaluation of their graphs, in several widths of tiles and orders of threads; and real nvcc, which compiles them without a
// spill. cuda-experts-references.test.ts has what PyTorch computed.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { check } from '../compiler/check/index.ts';
import type { Model } from '../compiler/check/model.ts';
import { parse } from '../compiler/syntax/parse.ts';
import type { HopperSchedule } from '../compiler/targets/cuda/hopper-schedule.ts';
import { openEmulated } from './cuda/build.ts';
import { expertCases, expertOperands } from './cuda-expert-cases.ts';
import { type EmittedCase, emitCase, libraryOf, openCases } from './cuda-product-calls.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';
import { holdStep } from './held-against-oracle.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda experts on Hopper GPUs');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-hopper-experts-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

process.env.MALC_SIMT_CAPABILITY = '9.0';

const cases = [
  // Some experts have rows for several clusters, and no number of anything is a multiple of a tile's.
  expertCases('many', { experts: 4, chosen: 2, inner: 72, outer: 264, outerFirst: true, shared: true }, 140),
  // The matrices are read across, and one slice has 8 inner positions.
  expertCases('across', { experts: 3, chosen: 1, inner: 136, outer: 88, outerFirst: false, shared: false }, 75, [
    ...expertOperands,
    'product',
  ]),
  // More experts than a warp has lanes, of which most have a few slots or none.
  expertCases('few', { experts: 40, chosen: 3, inner: 16, outer: 8, outerFirst: true, shared: false }, 11),
  expertCases('alone', { experts: 1, chosen: 1, inner: 64, outer: 128, outerFirst: false, shared: true }, 65),
].flat();

/** Schedules of three widths. Clusters share the slices of a matrix, and nothing where both operands are gathered. */
const widths: readonly Pick<HopperSchedule, 'columns' | 'cluster'>[] = [
  { columns: 256, cluster: 2 },
  { columns: 128, cluster: 1 },
  { columns: 192, cluster: 2 },
];
const emitted: readonly (readonly EmittedCase[])[] = widths.map(({ columns, cluster }) =>
  cases.map(each => {
    const shared = each.name.endsWith('weights') ? 1 : cluster;
    const takes = (schedule: HopperSchedule) => schedule.columns === columns && schedule.cluster === shared;
    return emitCase(each, 'bf16', { schedules: { suffix: `by_${columns}`, takes } });
  }),
);
const source = join(folder, 'kernels.cu');
writeFileSync(source, libraryOf(emitted.flat()));

test('what can be gathered in pieces of 16 bytes has kernels for Hopper GPUs, and nothing else', () => {
  for (const each of cases) assert.ok(emitCase(each, 'bf16').source.hopper, each.name);
  for (const each of cases) assert.is(emitCase(each, 'f32').source.hopper, undefined);
  const odd = expertCases('odd', { experts: 2, chosen: 2, inner: 12, outer: 20, outerFirst: true, shared: false }, 5);
  for (const each of odd) assert.is(emitCase(each, 'bf16').source.hopper, undefined);
});

/** All of its products of experts run on Hopper GPUs' kernels. */
const mixture = modelOf(`model mixture {
  vocab_size: 24
  max_seq_len: 16
  hidden_size: 16
  num_layers: 1
  block {
    attention { num_heads: 2 }
    ffn {
      hidden_dim: 24
      activation: swiglu
      moe { experts: 5  top_k: 2 }
    }
  }
}`);

function modelOf(text: string): Model {
  const { model } = check(parse(text, 'mixture.mal').syntax);
  assert.ok(model);
  return model!;
}

if (await emulatorAvailable()) {
  const library = join(folder, 'kernels.so');
  await buildEmulated({ sources: [source], output: library, library: true });
  const check = openCases(library, emitted.flat(), { onHopper: true, limit: 1e-6 });
  for (const order of [0, 1, 2, 3])
    for (const each of emitted[order % emitted.length]!) test(`${each.name}, order ${order}`, () => check(each, order));

  test('a model whose experts have whole pieces of 16 bytes: logits, loss and gradients', async () => {
    const native = await openEmulated(mixture, { dtype: 'bf16' }, { batch: 2, time: 9 });
    await holdStep(native, mixture, 2, 9, 3, 'bf16');
    native.close();
  });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

if ((await architectures()).length > 0)
  test('nvcc compiles all kernels for sm_90a without a warning or a spill', async () => {
    const kernels = await registersOf(source, '90a');
    assert.is(kernels.filter(({ name }) => name.includes('on_hopper')).length, emitted.flat().length);
  });

test.run();
