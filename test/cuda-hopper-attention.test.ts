// Attention on Hopper GPUs: the generated kernels for sm_90a in the emulator, against float64 loops, and what nvcc says of
// them. Models with them are held against PyTorch in cuda-references.test.ts and cuda-experts-references.test.ts.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type AttentionSource, backwardSource, forwardSource } from '../compiler/targets/cuda/attention-source.ts';
import { attentionSchedules, type QueryGradient } from '../compiler/targets/cuda/hopper-attention.ts';
import { type Case, cutToBf16, outputsOf, randomCase, randomFloats, training } from './cpu/attention-calls.ts';
import type { AttentionShape } from './cpu/attention-reference.ts';
import { compiledShape, shapes } from './cpu/attention-shapes.ts';
import { type Bounds, holdBackward, holdForward, holdOrders } from './cuda-attention-calls.ts';
import { buildShapes, type Compiled } from './cuda-attention-shapes.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';
import { randomNumbers } from './random-numbers.ts';
import { emulatorAvailable } from './simt/build.ts';

// What device the emulator is, where there is no GPU to run the tests on: a launcher asks when it is first called.
process.env.MALC_SIMT_CAPABILITY = '9.0';

const shaped = (name: string, base: number, more: Partial<AttentionShape>): Compiled => {
  const sized = more.dim ? { valueDim: more.dim, valueWidth: more.dim } : {};
  return { name, shape: { ...shapes[base]!, ...sized, ...more }, program: 'narrow' };
};
const scheduled = (
  queryGradient: QueryGradient,
  name: string,
  base: number,
  more: Partial<AttentionShape>,
): Compiled => ({ ...shaped(name, base, more), schedule: { queryGradient } });

/** Of every width that has block sizes of its own, and of each kind; and the times of texts, ragged ends among them. */
const compiled: readonly (readonly [Compiled, ...times: number[]])[] = [
  // 12 tiles of queries, for the 4 multiprocessors that the emulator says it has.
  [shaped('grouped', 0, { heads: 6, kvHeads: 2, dim: 64 }), 9, 200],
  [shaped('window', 3, { heads: 1, kvHeads: 1, dim: 64, window: 70 }), 290],
  [shaped('medium', 1, { heads: 2, kvHeads: 2, dim: 96, causal: false, window: 0 }), 140],
  [shaped('usual', 0, { heads: 1, kvHeads: 1, dim: 128 }), 192],
  [shaped('narrow', 4, { heads: 2, kvHeads: 1, dim: 24, valueDim: 40, valueWidth: 40, window: 90 }), 290],
  [shaped('latent', 8, { heads: 1, kvHeads: 1 }), 150],
  [shaped('mask', 6, { heads: 2, kvHeads: 1, dim: 24, valueDim: 40, valueWidth: 40 }), 70],
  // The ways to sum the gradient of queries that are not the usual ones.
  [scheduled('second-pass', 'twice', 0, { heads: 2, kvHeads: 1, dim: 64 }), 200],
  [scheduled('as-they-come', 'unordered', 0, { heads: 1, kvHeads: 1, dim: 64 }), 290],
  [shaped('documents', 0, { heads: 4, kvHeads: 2, dim: 64, documents: true }), 9, 290],
  [shaped('wide_documents', 0, { heads: 1, kvHeads: 1, dim: 128, window: 100, documents: true }), 200],
  [shaped('documents_ahead', 18, { heads: 2, kvHeads: 1, dim: 64 }), 140],
  [scheduled('second-pass', 'documents_twice', 0, { heads: 1, kvHeads: 1, dim: 64, documents: true }), 200],
  [shaped('slopes', 10, { heads: 2, kvHeads: 1, dim: 64, window: 50, dropout: 0.25 }), 70],
];

/** As those of cuda-attention-bf16.test.ts, and for the same reasons. */
const bounds: Bounds = { output: 4e-3, logSumExp: 1e-6, gradient: 1e-2, slopes: 3e-2 };

const test = suite('cuda attention on Hopper GPUs');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-attention-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const narrowed = (given: Case): Case => {
  const { query, key, value } = given;
  return { ...given, query: cutToBf16(query), key: cutToBf16(key), value: cutToBf16(value) };
};

test('what stays with the kernels for sm_80: long vectors, those of odd sizes, and those stored as float32', () => {
  const element = '__nv_bfloat16';
  const isHopper = (more: Partial<AttentionShape>, value = element) => {
    const { shape } = shaped('one', 0, more);
    const sizes = { heads: shape.heads, kvHeads: shape.kvHeads, headDim: shape.dim, valueWidth: shape.valueWidth };
    const storage = { query: element, key: element, value, output: element };
    return forwardSource('one', 'one', sizes, compiledShape(shape), 'bf16', storage).hopper !== undefined;
  };
  assert.ok(isHopper({ dim: 192, valueDim: 128, valueWidth: 128 }));
  assert.not(isHopper({ dim: 256 }));
  assert.not(isHopper({ dim: 64, valueDim: 136, valueWidth: 136 }));
  assert.not(isHopper({ dim: 64, valueDim: 64, valueWidth: 72 }));
  assert.not(isHopper({ dim: 12 }));
  assert.not(isHopper({ dim: 64 }, 'float'));
});

if (await emulatorAvailable()) {
  const library = await buildShapes(
    folder,
    compiled.map(([each]) => each),
  );
  test('these are the kernels for sm_90a', () => {
    assert.is(library.on_hopper!(), 1);
  });

  for (const [each, ...times] of compiled)
    test(each.name, () => {
      const random = randomNumbers(61);
      const { shape } = each;
      for (const time of times) {
        const given = narrowed(randomCase(shape, training(time < 100 ? 2 : 1, time), random));
        holdForward(library, each, given, bounds);
        holdBackward(library, each, given, cutToBf16(randomFloats(random, outputsOf(shape, given))), bounds);
      }
    });

  test('the same bits in any order of threads and copies', () => {
    const left = ['latent', 'unordered', 'wide_documents', 'documents_ahead', 'documents_twice'];
    for (const [each] of compiled.filter(([{ name }]) => !left.includes(name))) {
      const random = randomNumbers(66);
      const given = narrowed(randomCase(each.shape, training(1, 200), random));
      const seed = cutToBf16(randomFloats(random, outputsOf(each.shape, given)));
      holdOrders(library, each, given, seed, [7, 8, 9]);
    }
  });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

test('gradients are computed at once, in the same order whenever, where registers allow', () => {
  const schedulesOf = (base: number, more: Partial<AttentionShape>) => {
    const { shape } = shaped('one', base, more);
    const sizes = { heads: shape.heads, kvHeads: shape.kvHeads, headDim: shape.dim, valueWidth: shape.valueWidth };
    return attentionSchedules(sizes, compiledShape(shape)).map(({ queryGradient }) => queryGradient);
  };
  for (const dim of [24, 64, 96, 128]) assert.equal(schedulesOf(0, { dim, window: 9 }), ['in-turn', 'second-pass']);
  assert.equal(schedulesOf(8, {}), ['second-pass']);
  for (const formula of [6, 10, 11]) assert.equal(schedulesOf(formula, { dim: 64 }), ['second-pass']);
});

/** Kernels that nvcc is to compile, beside the plain ones of cuda-attention-nvcc.test.ts. */
const rich: readonly AttentionShape[] = [
  shaped('window', 3, { dim: 64, window: 256 }).shape,
  shaped('wide window', 3, { dim: 128, window: 4096 }).shape,
  shaped('medium', 0, { dim: 96 }).shape,
  shaped('latent', 8, {}).shape,
  ...[6, 10, 11].map(base => shaped('formulas', base, { dim: 64 }).shape),
];
function sourcesOf(shape: AttentionShape, number: number) {
  const { heads, kvHeads, dim, valueWidth } = shape;
  const sizes = { heads, kvHeads, headDim: dim, valueWidth };
  const compiled = compiledShape(shape);
  const gradient = { ...compiled, extras: compiled.extras.filter(extra => extra !== 'sinks') };
  const element = '__nv_bfloat16';
  const given = { query: element, key: element, value: element };
  const gradients = { output_gradient: element, query_gradient: element, key_gradient: element };
  const all = { ...given, ...gradients, value_gradient: element };
  const name = `rich_${number}`;
  return [
    forwardSource(name, name, sizes, compiled, 'bf16', { ...given, output: element }),
    backwardSource(`${name}_gradient`, name, sizes, gradient, compiled.extras.includes('slopes'), 'bf16', all),
  ];
}

const hopperKernels = ({ hopper }: AttentionSource) =>
  hopper!.launches.map(({ kernel }) => kernel).filter(kernel => kernel.includes('sm90'));

if ((await architectures()).includes('90a'))
  test('nvcc has nothing to say of them, and nothing spills', async () => {
    const all = rich.flatMap(sourcesOf);
    const names = all.flatMap(hopperKernels);
    const headers = ['launch', 'scalars', 'attention_bf16_backward', 'attention_bf16_forward'];
    const hopper = ['attention_sm90_backward', 'attention_sm90_forward', 'attention_sm90_gradient'];
    const source = join(folder, 'rich.cu');
    writeFileSync(
      source,
      `#define MALC_HOPPER
${[...headers, ...hopper].map(header => `#include "${header}.h"\n`).join('')}
#pragma nv_diag_suppress 177
${all.map(({ text }) => text).join('\n')}
const void *const kernels[] = {${names.map(name => `reinterpret_cast<const void *>(${name})`).join(', ')}};
const void *kernel(int n) { return kernels[n]; }
`,
    );
    const kernels = await registersOf(source, '90a');
    assert.is(kernels.filter(({ name }) => name.includes('sm90')).length, all.flatMap(hopperKernels).length);
  });

test.run();
