// The CUDA emulator: each emulated instruction against a plain computation, random schedules, and every fault that it is
// there to find, planted (simt/*.cu.cpp). Real nvcc compiles the same instructions, where it is installed.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('simt');
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'malc-simt-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** The output of a program; a failing one's too, whose exit status says no more than that. */
async function outputOf(program: string, names: readonly string[]): Promise<string> {
  return run(program, [...names]).then(
    result => result.stdout,
    error => `${error.stdout}${error.stderr}${error.signal ?? ''}`,
  );
}

const available = await emulatorAvailable();
if (!available) console.log('  no g++ 12 or newer on Linux: CUDA programs are not emulated');

for (const name of available ? ['language', 'matrices', 'hopper', 'host', 'faults', 'hopper-faults'] : []) {
  const program = join(folder, name);
  await buildEmulated({ sources: [packagePath(`test/simt/${name}.cu.cpp`)], output: program });
  const names = (await outputOf(program, [])).trim().split('\n');
  const lines = (await outputOf(program, names)).trim().split('\n');
  for (const [index, title] of names.entries())
    test(`${name}: ${title}`, () => {
      assert.is(lines[index]?.trim(), `ok ${title}`);
    });
}

test('a program without checks computes the same', async () => {
  if (!available) return;
  const program = join(folder, 'unchecked');
  const sources = [packagePath('test/simt/hopper.cu.cpp')];
  await buildEmulated({ sources, output: program, checked: false });
  const names = (await outputOf(program, [])).trim().split('\n');
  assert.is(
    (await outputOf(program, names)).trim(),
    names
      .map(name => `ok ${name} `)
      .join('\n')
      .trim(),
  );
});

test('float atomics are refused', async () => {
  if (!available) return;
  const source = join(folder, 'atomic.cu');
  writeFileSync(source, '#include "launch.h"\n__global__ void add(float *sum) { atomicAdd(sum, 1.0f); }\n');
  await buildEmulated({ sources: [source], output: join(folder, 'atomic') }).then(
    () => assert.unreachable(),
    error => assert.match(error.message, /use of deleted function .*atomicAdd/),
  );
});

const nvcc = await run('nvcc', ['--version']).then(
  () => true,
  () => false,
);
if (!nvcc) console.log('  no nvcc: the PTX of templates/cuda/instructions.h is not compiled');

for (const architecture of nvcc ? ['80', '90a'] : [])
  test(`nvcc compiles every instruction for sm_${architecture} without a warning`, async () => {
    const target = ['-gencode', `arch=compute_${architecture},code=sm_${architecture}`];
    const strict = ['-Werror', 'all-warnings', '-Xcompiler', '-Wall,-Wextra', '-Xptxas', '-v'];
    const source = packagePath('test/simt/instructions.cu');
    const output = join(folder, `instructions-${architecture}.o`);
    const words = [
      '-std=c++17',
      ...target,
      ...strict,
      `-I${packagePath('templates/cuda')}`,
      '-c',
      source,
      '-o',
      output,
    ];
    const { stdout, stderr } = await run('nvcc', words);
    const verdict = stdout + stderr;
    assert.not.match(verdict, /C75\d\d|[1-9]\d* bytes spill/, 'no performance verdict, no spill');
    assert.is(verdict.match(/Used \d+ registers/g)?.length, 12, 'every kernel was compiled');
  });

test.run();
