// Products by cuBLASLt: what the launchers tell it, against the float64 evaluation of their graphs, with a stand-in library that
// the emulated program finds as a program finds the real one; and what runs where it is not, has no algorithm, or is left aside.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Node } from '../compiler/graph/graph.ts';
import { packagePath } from '../compiler/package-files.ts';
import { buildStandIn } from './cuda/stand-in.ts';
import { emitCase, libraryOf, openCases } from './cuda-product-calls.ts';
import { type ProductCase, productCases } from './cuda-product-cases.ts';
import { buildEmulated, emulatorAvailable } from './simt/build.ts';

const test = suite('products by cuBLASLt');
const folder = mkdtempSync(join(tmpdir(), 'malc-cublas-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** The case with all that is multiplied in bfloat16. */
function narrowed(each: ProductCase): ProductCase {
  const multiplied = (node: Node) => (node.primitive?.name === 'contract' ? node.inputs : []);
  const operands = each.graph.nodes.flatMap(multiplied).map(({ label }) => label);
  return { ...each, narrow: [...each.narrow, ...operands] };
}

const all = productCases.map(each => emitCase(narrowed(each), 'bf16', { library: true }));
const served = all.filter(({ source }) => source.library);

test('exact products, and rows that begin at odd places, are none for the library', () => {
  for (const each of all.filter(({ source }) => !source.library)) console.log(each.case.name);
});

if (await emulatorAvailable()) {
  const source = join(folder, 'kernels.cu');
  writeFileSync(source, libraryOf(served));
  const library = join(folder, 'kernels.so');
  await buildEmulated({ sources: [source], output: library, library: true });
  const standIn = await buildStandIn(folder);
  const found = { stood: standIn, none: '0' };
  for (const [way, path] of Object.entries(found)) {
    const copy = join(folder, `${way}.so`); // a program looks for the library once
    copyFileSync(library, copy);
    process.env.MALC_CUBLAS = path;
    const check = openCases(copy, served);
    for (const each of served) test(`${each.case.name}, ${way}`, () => check(each));
  }
}

test.run();
