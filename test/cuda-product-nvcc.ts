// Compiles CUDA source with the real nvcc, where it is installed, and reads what ptxas says of each kernel.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { deviceArchitecture } from './cuda/device.ts';

const run = promisify(execFile);

/**
 * The architectures that source is compiled for; none, and a line says so, where there is no nvcc. None either where the
 * tests run on a GPU, whose minutes are for what needs one.
 */
export async function architectures(): Promise<readonly string[]> {
  if (deviceArchitecture !== null) return [];
  try {
    await run('nvcc', ['--version']);
    return ['80', '90a'];
  } catch {
    console.log('  no nvcc: CUDA source is not compiled for GPUs');
    return [];
  }
}

/**
 * Compiles for one architecture; resolves to the registers of each kernel.
 *
 * @throws where there is a warning, a spill, a stack frame or a performance verdict.
 */
export async function registersOf(
  source: string,
  architecture: string,
): Promise<{ name: string; registers: number }[]> {
  const words = ['-std=c++17', '-gencode', `arch=compute_${architecture},code=sm_${architecture}`];
  const strict = ['-Werror', 'all-warnings', '-Xcompiler', '-Wall,-Wextra', '-Xptxas', '-v'];
  const { stdout, stderr } = await run(
    'nvcc',
    [...words, ...strict, `-I${packagePath('templates/cuda')}`, '-c', source, '-o', `${source}.${architecture}.o`],
    { maxBuffer: 2 ** 26 },
  );
  const verdict = stdout + stderr;
  assert.not.match(verdict, /C75\d\d/, 'no performance verdict');
  return verdict
    .split("Compiling entry function '")
    .slice(1)
    .map(text => {
      const name = text.slice(0, text.indexOf("'"));
      const [stack, stores, loads] = [...text.matchAll(/(\d+) bytes (?:stack|spill)/g)].map(match => Number(match[1]));
      assert.equal([stack, stores, loads], [0, 0, 0], `${name}: bytes of stack, spill stores, spill loads`);
      return { name, registers: Number(/Used (\d+) registers/.exec(text)![1]) };
    });
}
