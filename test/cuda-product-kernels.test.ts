// Emitted matmul kernels for CUDA, in the emulator, against the float64 evaluation of their graphs: all kinds of groups,
// float32 and bfloat16, few rows and many, stored and added. Real nvcc compiles the same source, without a spill.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { emitCase, libraryOf, openCases } from './cuda-product-calls.ts';
import { productCases } from './cuda-product-cases.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda matmul kernels');
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-matmul-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const all = productCases.flatMap(each => (['f32', 'bf16'] as const).map(dtype => emitCase(each, dtype)));
const source = join(folder, 'kernels.cu');
writeFileSync(source, libraryOf(all));

if (await emulatorAvailable()) {
  const library = join(folder, 'kernels.so');
  await buildEmulated({ sources: [source], output: library, library: true });
  const check = openCases(library, all);
  for (const each of all)
    test(each.name, () => {
      const isMeasured = each.kernel.kind === 'matmul' && each.kernel.groups.some(({ statistics }) => statistics);
      assert.is(each.source.launches.length, each.case.later || isMeasured ? 2 : 1);
      check(each);
    });
} else console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

for (const architecture of await architectures())
  test(`nvcc compiles all kernels for sm_${architecture} without a warning or a spill`, async () => {
    const kernels = await registersOf(source, architecture);
    assert.is(
      kernels.length,
      all.flatMap(({ source: { launches, hopper } }) => [...launches, ...(hopper?.launches ?? [])]).length,
    );
  });

test.run();
