// Products on Hopper GPUs: emitted kernels in the emulator, which is a Hopper GPU here, against the float64 evaluation of their
// graphs, in several orders of threads; and real nvcc, which compiles them without a spill.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Node } from '../compiler/graph/graph.ts';
import type { HopperSchedule } from '../compiler/targets/cuda/hopper-schedule.ts';
import { emitCase, libraryOf, openCases } from './cuda-product-calls.ts';
import { largeCases, type ProductCase, productCases } from './cuda-product-cases.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda products on Hopper GPUs');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-hopper-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

process.env.MALC_SIMT_CAPABILITY = '9.0';

/** The case with all that is multiplied in bfloat16, and rows for both blocks of a cluster, of which one has few. */
function narrowed(each: ProductCase): ProductCase {
  const multiplied = (node: Node) => (node.primitive?.name === 'contract' ? node.inputs : []);
  const operands = each.graph.nodes.flatMap(multiplied).map(({ label }) => label);
  return { ...each, narrow: [...each.narrow, ...operands], calls: [{ batch: 2, time: 70 }] };
}

const all = [...productCases.map(narrowed), ...largeCases].map(each => emitCase(each, 'bf16'));
/** Schedules that are the best of no case here, each with the cases that have something to tell in it. */
const narrower = [
  { suffix: 'by_192', takes: (schedule: HopperSchedule) => schedule.columns === 192 && schedule.cluster === 2 },
  { suffix: 'alone', takes: (schedule: HopperSchedule) => schedule.cluster === 1 && schedule.band === 4 },
].flatMap(schedules => largeCases.map(each => emitCase(narrowed(each), 'bf16', { schedules })));
const scheduled = narrower.filter(({ name }) => /_(by_192|alone)$/.test(name));
const onHopper = [...all.filter(({ source }) => source.hopper), ...scheduled];
const others = all.filter(({ source }) => !source.hopper);
const source = join(folder, 'kernels.cu');
writeFileSync(source, libraryOf(onHopper));

test('what a warp cannot finish alone, and exact products, keep the kernels that all GPUs have', () => {
  assert.equal(
    others.map(({ case: { name } }) => name),
    ['heads_of_160', 'exact'],
  );
});

if (await emulatorAvailable()) {
  const library = join(folder, 'kernels.so');
  await buildEmulated({ sources: [source], output: library, library: true });
  const check = openCases(library, onHopper, { onHopper: true });
  for (const order of [0, 1, 2])
    for (const each of onHopper) test(`${each.name}, order ${order}`, () => check(each, order));
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

if ((await architectures()).length > 0)
  test('nvcc compiles all kernels for sm_90a without a warning or a spill', async () => {
    const kernels = await registersOf(source, '90a');
    const launched = onHopper.flatMap(({ source: { hopper } }) => hopper!.launches);
    assert.is(kernels.filter(({ name }) => name.includes('on_hopper')).length, launched.length);
  });

test.run();
