// Generated programs under the address and undefined-behaviour sanitizers, as executables without Node: no access out of
// bounds, no undefined arithmetic, nothing leaked, and the same bits for any number of threads (cpu/sanitized.c).
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { edgeModel } from './edge-models.ts';
import { randomModel } from './random-models.ts';

const test = suite('sanitized');
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'malc-sanitized-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const { command, leadingArguments, openmp } = await findCompiler();
// Not optimised: that is compiled fastest, and hides nothing.
const flags = ['-O0', '-std=gnu11', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-Wall', '-Wextra'];

/** Compiles sources, `files` of them by name, to an executable. */
async function build(
  name: string,
  sources: Readonly<Record<string, string>>,
  files: readonly string[],
): Promise<string> {
  const home = join(folder, name);
  mkdirSync(home);
  for (const [file, text] of Object.entries(sources)) writeFileSync(join(home, file), text);
  const program = join(home, 'program');
  const words = [...flags, ...(openmp ? ['-fopenmp'] : []), `-I${home}`, ...files.map(file => join(home, file))];
  await run(command, [...leadingArguments, ...words, '-o', program, '-lm']);
  return program;
}

const available = await build('probe', { 'probe.c': 'int main(void) { return 0; }\n' }, ['probe.c']).then(
  () => true,
  () => false,
);
if (!available) console.log('  the C compiler has no sanitizers: generated programs are not run under them');
const driver = readFileSync(packagePath('test/cpu/sanitized.c'), 'utf8');

const models: readonly (readonly [string, Model])[] = [
  ...fc.sample(randomModel, { seed: 6, numRuns: 8 }).map((model, n) => [`random-${n}`, model] as const),
  ...['alike', 'further'].map(name => [name, edgeModel(name)] as const),
];
for (const [name, model] of models)
  test(name, async () => {
    if (!available) return;
    const files = { ...compile(model).files, 'driver.c': driver };
    const program = await build(name, files, ['model.c', 'driver.c']);
    const { stdout } = await run(program);
    assert.is(stdout, '');
  });

test.run();
