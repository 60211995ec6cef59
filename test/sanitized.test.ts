// Generated programs under the address and undefined-behaviour sanitizers, as executables without Node: no access out of
// bounds, no undefined arithmetic, nothing leaked, and the same bits for any number of threads (cpu/sanitized.c). Those of
// bfloat16 products multiply as the compiler does it where no machine is named, and by AMX, which is emulated.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Model } from '../compiler/check/model.ts';
import { optimizers } from '../compiler/emission/optimizer.ts';
import { type CompileOptions, compile } from '../compiler/index.ts';
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

/**
 * Compiles sources, `files` of them by name, to an executable.
 * @param defined macros, as the compiler takes them
 */
async function build(
  name: string,
  sources: Readonly<Record<string, string>>,
  files: readonly string[],
  defined: readonly string[] = [],
): Promise<string> {
  const home = join(folder, name);
  mkdirSync(home);
  for (const [file, text] of Object.entries(sources)) writeFileSync(join(home, file), text);
  const program = join(home, 'program');
  const words = [
    ...flags,
    ...defined,
    ...(openmp ? ['-fopenmp'] : []),
    `-I${home}`,
    ...files.map(file => join(home, file)),
  ];
  await run(command, [...leadingArguments, ...words, '-o', program, '-lm']);
  return program;
}

const available = await build('probe', { 'probe.c': 'int main(void) { return 0; }\n' }, ['probe.c']).then(
  () => true,
  () => false,
);
if (!available) console.log('  the C compiler has no sanitizers: generated programs are not run under them');
const source = (path: string) => readFileSync(packagePath(`test/cpu/${path}`), 'utf8');
const beside = { 'driver.c': source('sanitized.c'), 'amx-emulator.h': source('amx-emulator.h') };

type NamedModel = readonly [name: string, model: Model];
const random = fc.sample(randomModel, { seed: 6, numRuns: 8 }).map((model, n): NamedModel => [`random-${n}`, model]);
const edges = ['alike', 'further'].map((name): NamedModel => [name, edgeModel(name)]);
const tiles = ['-DMALC_BF16_PATH=2', '-DMALC_AMX_EMULATOR="amx-emulator.h"'];

function held(name: string, model: Model, options: CompileOptions, defined: readonly string[] = []): void {
  test(name, async () => {
    if (!available) return;
    const trains = `-DTRAINS=${options.dtype === 'int8' ? 0 : 1}`;
    const files = { ...compile(model, options).files, ...beside };
    const program = await build(name, files, ['model.c', 'driver.c'], [...defined, trains]);
    // Waiting threads sleep: there may be more of them than cores.
    const { stdout } = await run(program, { env: { ...process.env, OMP_WAIT_POLICY: 'passive' } });
    assert.is(stdout, '');
  });
}

// The optimizers by turns.
for (const [n, [name, model]] of [...random, ...edges].entries())
  held(name, model, { optimizer: optimizers[n % optimizers.length]! });
for (const [name, model] of edges) held(`${name}-int8`, model, { dtype: 'int8' });
const [alike, further] = edges as [NamedModel, NamedModel];
held('further-bf16', further[1], { dtype: 'bf16', optimizer: 'muon' });
held('alike-tiles', alike[1], { dtype: 'bf16' }, tiles);

test.run();
