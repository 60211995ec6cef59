// Whole programs on instruction sets that this machine's compiler would not choose, each forced in turn: a reference of PyTorch's
// must come out the same. AMX runs on an emulation of its tiles; the others only where the machine is an x86-64 with AVX2.
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagePath } from '../compiler/package-files.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';

const test = suite('forced paths');
const run = promisify(execFile);
const reference = packagePath('test/fixtures/reference/gemma2');
const emulator = packagePath('test/cpu/amx-emulator.h');
const folder = mkdtempSync(join(tmpdir(), 'malc-forced-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** What the compiler is told besides, after everything else. */
const paths: Readonly<Record<string, { readonly flags: string; readonly dtypes: readonly string[] }>> = {
  'AMX, emulated': { flags: `-DMALC_BF16_PATH=2 -DMALC_AMX_EMULATOR='"${emulator}"'`, dtypes: ['bf16'] },
  'bfloat16 widened': { flags: '-DMALC_BF16_PATH=0', dtypes: ['bf16'] },
  AVX2: { flags: '-march=haswell', dtypes: ['f32', 'bf16'] },
  'x86-64 without vectors beyond SSE2': { flags: '-march=x86-64', dtypes: ['f32', 'bf16'] },
};

const runsAVX2 =
  process.platform === 'linux' && /\bavx2\b.*\bfma\b|\bfma\b.*\bavx2\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));

/** A compiler that adds flags. */
async function compilerWith(flags: string, name: string): Promise<string> {
  const { command, leadingArguments } = await findCompiler();
  const script = join(folder, `${name.replaceAll(/\W/g, '')}.sh`);
  writeFileSync(script, `#!/bin/sh\nexec ${[command, ...leadingArguments].join(' ')} "$@" ${flags}\n`);
  chmodSync(script, 0o755);
  return script;
}

for (const [name, { flags, dtypes }] of Object.entries(paths))
  for (const dtype of dtypes)
    test(`${dtype}: ${name}`, async () => {
      if (!runsAVX2) {
        console.log(`skipped: ${name} needs an x86-64 with AVX2`);
        return;
      }
      const environment = {
        ...process.env,
        CC: await compilerWith(flags, name),
        XDG_CACHE_HOME: join(folder, 'cache'),
      };
      const malc = ['--import', 'tsx', packagePath('cli.ts')];
      const options = { env: environment };
      const { stdout } = await run(
        process.execPath,
        [...malc, 'verify', reference, '--dtype', dtype, '--json'],
        options,
      );
      const report = JSON.parse(stdout);
      assert.ok(report.pass, stdout);
      assert.is(report.dtype, dtype);
    });

test.run();
