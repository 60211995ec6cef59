// Products of matrices on CUDA: the device code in the emulator (cuda-product.cu.cpp), what nvcc says of it.
import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { architectures, registersOf } from './cuda-product-nvcc.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('cuda products');
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'malc-cuda-product-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const available = await emulatorAvailable();
if (!available) console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

if (available) {
  const program = join(folder, 'products');
  await buildEmulated({
    sources: [packagePath('test/cuda-product.cu.cpp')],
    output: program,
    include: [packagePath('test')],
  });
  const names = (await run(program)).stdout.trim().split('\n');
  for (const name of names)
    test(`in the emulator: ${name}`, async () => {
      const output = await run(program, [name]).then(
        result => result.stdout,
        error => `${error.stdout}${error.stderr}${error.signal ?? ''}`,
      );
      assert.is(output.trim(), `ok ${name}`);
    });
}

for (const architecture of await architectures())
  test(`nvcc compiles every tile for sm_${architecture} without a warning or a spill`, async () => {
    const source = join(folder, 'shapes.cu');
    copyFileSync(packagePath('test/cuda-product-shapes.cu'), source);
    const kernels = await registersOf(source, architecture);
    assert.is(kernels.length, 25);
    assert.ok(
      kernels.every(({ registers }) => registers > 0),
      'ptxas says how many registers each has',
    );
  });

test.run();
