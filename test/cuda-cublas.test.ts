// Products by cuBLASLt: what launchers tell it, against the float64 evaluation of their graphs, with a stand-in that emulated
// programs find as programs find the real one; and what runs where it is not, has no algorithm, or is left aside.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Node } from '../compiler/graph/graph.ts';
import { loadLibrary } from '../runtime/ffi.ts';
import { buildStandIn } from './cuda/stand-in.ts';
import { emitCase, libraryOf, openCases } from './cuda-product-calls.ts';
import { largeCases, type ProductCase, productCases } from './cuda-product-cases.ts';
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

test('it has products of bfloat16 in rows of whole pieces of 16 bytes', () => {
  const others = all.filter(({ source }) => !source.library).map(({ case: { name } }) => name);
  assert.equal(others, ['weights_of_odd_rows', 'exact']);
});

/** All ways in which operands lie; plain results, padded, added to gradients; sums that are finished, added up, totalled. */
const several = [
  'heads_of_16_interleaved',
  'gradient_of_three_narrow_inputs',
  'gradients_of_odd_columns',
  'gradients_of_weights',
  'odd_columns',
  'streams_and_what_norms_ask_of_them',
];
const totalled = largeCases.filter(({ name }) => name === 'gradient_of_an_activation_and_its_bias');
const cases = [
  ...all.filter(({ case: { name } }) => several.includes(name)),
  ...totalled.map(each => emitCase({ ...each, calls: each.calls.slice(1) }, 'bf16', { library: true })),
];

if (await emulatorAvailable()) {
  const source = join(folder, 'kernels.cu');
  writeFileSync(source, libraryOf(cases));
  const library = join(folder, 'kernels.so');
  await buildEmulated({ sources: [source], output: library, library: true });
  const standIn = await buildStandIn(folder);
  const { stand_in_products: products } = loadLibrary(standIn, { stand_in_products: 'int stand_in_products()' });

  /** Runs the cases in an environment, which a program asks once. Returns how many products the stand-in had. */
  const run = (name: string, environment: Readonly<Record<string, string>>): number => {
    const copy = join(folder, `${name}.so`);
    copyFileSync(library, copy);
    Object.assign(process.env, environment);
    const before = products();
    try {
      const check = openCases(copy, cases);
      cases.forEach(check);
    } finally {
      for (const variable of Object.keys(environment)) delete process.env[variable];
    }
    return products() - before;
  };

  test('it multiplies, and what it leaves is finished', () => {
    const calls = cases.flatMap(({ case: { calls }, source }) =>
      calls.map(() => source.library!.products.length * (source.arguments.some(({ kind }) => kind === 'adds') ? 2 : 1)),
    );
    assert.is(
      run('found', { MALC_CUBLAS: standIn }),
      calls.reduce((a, b) => a + b),
    );
  });

  test('without an algorithm of its, and with MALC_CUBLAS=0, kernels of our own run', () => {
    assert.is(run('none', { MALC_CUBLAS: standIn, STAND_IN_HAS_NONE: '1' }), 0);
    assert.is(run('off', { MALC_CUBLAS: '0' }), 0);
  });

  test('a library that is named and not there is an error', () => {
    let said: unknown;
    try {
      run('missing', { MALC_CUBLAS: join(folder, 'none.so') });
    } catch (error) {
      said = (error as { actual?: unknown }).actual; // of the assertion that a launch has no error
    }
    assert.is(said, 'shared object initialization failed');
  });
} else console.log('no g++ that the emulator can use: nothing is multiplied');

test.run();
