// What nvcc says of every kernel of every well-known model that the CUDA target compiles: no warning, no spill, nothing that
// slows a kernel down; and a table of what each kernel takes. Kernels that several models have are compiled once, and of those
// that differ in sizes of the model alone, one: tiles and heads decide what a kernel takes. Where MALC_TESTS_EVERY_KERNEL is
// set, all are.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readModel } from '../compiler/check/read-model.ts';
import { UserError } from '../compiler/diagnostic.ts';
import { type Compiled, compile } from '../compiler/index.ts';
import { packagePath } from '../compiler/package-files.ts';
import { usualArchitectures } from '../compiler/targets/cuda/architectures.ts';
import { inParallel } from '../compiler/targets/cuda/in-parallel.ts';
import { includedBy } from '../compiler/targets/cuda/included.ts';
import type { CudaProductType } from '../compiler/targets/cuda/kernel-source.ts';
import { compileDevice, nvccAvailable, type Resources } from './cuda/resources.ts';

/** Models that are compiled for float32 besides. */
const inFloat32 = ['gpt2_small', 'llama3_1b'];

const test = suite('cuda, nvcc');
const folder = mkdtempSync(join(tmpdir(), 'malc-nvcc-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** Sizes of models are larger; those of tiles, heads and schedules, which decide what a kernel takes, are not. */
const LARGEST_OF_TILES = 256;
const everyKernel = process.env.MALC_TESTS_EVERY_KERNEL !== undefined;

/** A kernel that no program before had, under a name of its own. */
interface Distinct {
  readonly name: string;
  readonly source: string;
}

/** Kernels of a group of units, and the headers that they need. */
interface Shared {
  readonly headers: Set<string>;
  readonly kernels: Distinct[];
}

/**
 * Files of about as much work each: the computations of one, of which a product takes a second. The headers of a file take
 * half of one.
 */
const mostOfFile: Readonly<Record<string, number>> = { rows: 80 };
const usuallyMost = 16;

const shared = new Map<string, Shared>();
const known = new Set<string>();
const refused: string[] = [];
let first: Compiled | null = null;

/** Adds what a program has that none before had. */
function collect(model: string, program: Compiled): void {
  const units = Object.entries(program.files).filter(([name]) => name.endsWith('.cu'));
  for (const { name, source } of program.kernels) {
    const unit = units.find(([, text]) => text.includes(source));
    if (!unit) throw new Error(`${model}: no unit has ${name}`);
    const text = source.replaceAll(name, '@').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
    const key = kindOf(text.replace(/\s+/g, ' '));
    if (known.has(key)) continue;
    known.add(key);
    const own = `${model}_${name}`;
    // Groups may be cut into several units.
    const group = unit[0].replace(/(_\d+)?\.cu$/, '');
    const all = shared.get(group) ?? { headers: new Set(), kernels: [] };
    shared.set(group, all);
    for (const header of includedBy(unit[1])) all.headers.add(header);
    all.kernels.push({ name: own, source: source.replaceAll(name, own) });
  }
}

/** Source without the sizes of a model. */
function kindOf(text: string): string {
  if (everyKernel) return text;
  return text.replace(/\b\d+\b/g, number => (Number(number) > LARGEST_OF_TILES ? 'size' : number));
}

function compiled(path: string, dtype: CudaProductType): Compiled | null {
  try {
    return compile(readModel(path).model, { target: 'cuda', dtype });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    refused.push(`${basename(path)}: ${error.message}`);
    return null;
  }
}

const models = packagePath('well-known/models');
for (const file of readdirSync(models).sort()) {
  const name = file.slice(0, -'.mal'.length);
  for (const dtype of inFloat32.includes(name) ? (['bf16', 'f32'] as const) : (['bf16'] as const)) {
    const program = compiled(join(models, file), dtype);
    if (program) collect(`${name.replace(/\W/g, '_')}_${dtype}`, program);
    first ??= program;
  }
}

/** The files to compile: the kernels that only model.cu has, and all others. */
function writeSources(): string[] {
  const program = join(folder, 'program');
  mkdirSync(program);
  for (const [name, text] of Object.entries(first!.files)) writeFileSync(join(program, name), text);
  const sources = [join(program, 'model.cu')];
  for (const [group, { headers, kernels }] of shared) {
    const included = [...headers].map(name => `#include "${name}"\n`).join('');
    const files = Math.ceil(kernels.length / (mostOfFile[group] ?? usuallyMost));
    for (let n = 0; n < files; n++) {
      const own = kernels.filter((_, number) => number % files === n);
      const source = join(folder, `${group}_${n}.cu`);
      writeFileSync(source, included + own.map(({ source: text }) => text).join('\n'));
      sources.push(source);
    }
  }
  return sources;
}

/** A line for each kernel: of each architecture registers, and bytes of shared memory, of stack frames and of spills. */
function printTable(verdicts: ReadonlyMap<string, readonly Resources[]>): void {
  const rows = new Map<string, string[]>();
  for (const kernels of verdicts.values())
    for (const { kernel, registers, shared: bytes, stack, stores, loads } of kernels)
      rows.set(kernel, [...(rows.get(kernel) ?? []), ...[registers, bytes, stack, stores + loads].map(String)]);
  const head = [...verdicts.keys()].flatMap(name => [name, 'shared', 'stack', 'spilled']);
  console.log(`\n${head.map(word => word.padStart(8)).join('')}  kernel`);
  for (const [kernel, numbers] of [...rows].sort(([a], [b]) => (a < b ? -1 : 1)))
    console.log(`${numbers.map(number => number.padStart(8)).join('')}  ${kernel}`);
}

for (const line of refused) console.log(`  not compiled: ${line}`);
if (await nvccAvailable()) {
  const sources = writeSources();
  const verdicts = new Map<string, readonly Resources[]>();
  for (const architecture of usualArchitectures)
    test(`${architecture}: no warning, no spill, nothing that slows a kernel down`, async () => {
      const results = await inParallel(sources, source => compileDevice(source, architecture, join(source, '..')));
      const kernels = results.flatMap(result => result.kernels);
      verdicts.set(architecture, kernels);
      const names = new Set(kernels.map(({ kernel }) => kernel));
      const missing = [...shared.values()].flatMap(unit => unit.kernels).filter(({ name }) => !names.has(name));
      assert.equal(
        missing.map(({ name }) => name),
        [],
        'nvcc compiles every kernel',
      );
      assert.equal(
        results.flatMap(({ slowdowns }) => slowdowns),
        [],
      );
      const spilling = kernels.filter(({ stores, loads }) => stores + loads > 0);
      assert.equal(
        spilling.map(({ kernel, stores, loads }) => `${kernel}: ${stores} bytes stored, ${loads} loaded`),
        [],
        'no kernel spills',
      );
    });
  test.after(() => printTable(verdicts));
} else console.log('  no nvcc: kernels are not compiled for GPUs');

test.run();
