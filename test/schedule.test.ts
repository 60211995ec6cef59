// Schedules of products: they fit the caches and the scratch that is planned for them, and what is tuned is kept.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readModel } from '../compiler/check/read-model.ts';
import { compile } from '../compiler/index.ts';
import { trainingTypes } from '../compiler/targets/cpu/kernel-source.ts';
import {
  chooseSchedule,
  type ProductShape,
  packingScratch,
  rankSchedules,
  rowStep,
  shapeKey,
  usualCaches,
} from '../compiler/targets/cpu/schedule.ts';
import { findCompiler } from '../compiler/targets/cpu/toolchain.ts';
import { autotune } from '../runtime/autotune.ts';
import { requireTunable } from '../runtime/autotune-option.ts';
import { buildModel } from '../runtime/build.ts';
import { NativeModel } from '../runtime/native.ts';

fc.configureGlobal({ includeErrorInReport: true });

const test = suite('schedules');

const extent = fc.record({
  runtime: fc.constantFrom<readonly string[]>([], ['batch', 'time']),
  count: fc.integer({ min: 1, max: 5000 }),
});
const shape: fc.Arbitrary<ProductShape> = fc.record({
  rows: extent,
  columns: fc.integer({ min: 1, max: 60_000 }),
  inner: extent,
  step: fc.integer({ min: 1, max: 12 }).map(heads => 32 * heads),
  tiles: fc.integer({ min: 0, max: 3 }),
  leftTransposed: fc.boolean(),
  rightTransposed: fc.boolean(),
  rounds: fc.constant(null),
});

test('every schedule fits the second cache and is made of whole tiles, steps and lines', () => {
  fc.assert(
    fc.property(shape, shape => {
      const ranked = rankSchedules(shape);
      assert.ok(ranked.length > 0);
      assert.equal(chooseSchedule(shape), ranked[0]);
      for (const { rows, columns, depth } of ranked) {
        assert.is(rows % rowStep, 0);
        assert.is(depth % 16, 0);
        assert.ok(columns === shape.columns || columns % shape.step === 0, `${columns} columns`);
        const bytes = 4 * (packingScratch(columns, depth) + shape.tiles * rows * columns);
        const smallest = rows === rowStep || columns <= shape.step;
        assert.ok(smallest || bytes <= 1.1 * usualCaches.second, `${bytes} bytes`);
      }
    }),
    { seed: 4 },
  );
});

test('bounds of bfloat16 products are blocks of rows and whole steps', () => {
  fc.assert(
    fc.property(shape, fc.constantFrom('f32' as const, 'bf16' as const), (shape, rounds) => {
      const ranked = rankSchedules({ ...shape, rounds });
      assert.is(new Set(ranked.map(schedule => JSON.stringify(schedule))).size, ranked.length);
      for (const { rows, columns } of ranked) {
        assert.is(rows % 32, 0);
        assert.ok(columns === shape.columns || columns % shape.step === 0, `${columns} columns`);
      }
    }),
    { seed: 5 },
  );
});

test('many columns and a deep inner dimension divide, small products stay whole', () => {
  const base = { step: 32, tiles: 0, leftTransposed: false, rightTransposed: true, rounds: null };
  const fixed = (count: number) => ({ runtime: [], count });
  const large = chooseSchedule({ ...base, rows: fixed(2048), inner: fixed(2048), columns: 2048 });
  assert.ok(large.columns >= 256 && large.columns < 2048 && large.depth < 2048, JSON.stringify(large));
  const small = chooseSchedule({ ...base, rows: fixed(64), inner: fixed(64), columns: 64 });
  assert.equal([small.columns, small.depth], [64, 64]);
});

const { model } = readModel('nano');

/** The loss and the gradients' norm of one step. */
async function stepOf(libraryPath: string) {
  const [batch, time] = [2, 24];
  const native = NativeModel.open(libraryPath, {
    maxBatch: batch,
    maxTime: time,
    maxContext: 0,
    training: true,
    seed: 1,
  });
  try {
    await native.initialize(1);
    const tokens = Int32Array.from({ length: batch * time }, (_, n) => (n * 7) % native.vocabularySize);
    return await native.step(tokens, tokens, { microBatches: 1, batch, time, update: null });
  } finally {
    native.close();
  }
}

for (const dtype of trainingTypes)
  test(`a schedule does not change a bit of a step in ${dtype}`, async () => {
    const kinds = new Set(compile(model, { dtype }).products.map(shapeKey));
    assert.ok(kinds.size > 3, `${kinds.size} products`);
    const usual = await buildModel(model, { dtype });
    const unusual = await buildModel(model, {
      dtype,
      tune: async () => ({ options: { scheduleOf: shape => rankSchedules(shape).at(-1)! }, findings: [] }),
    });
    assert.is.not(usual.libraryPath, unusual.libraryPath);
    assert.equal(await stepOf(unusual.libraryPath), await stepOf(usual.libraryPath));
  });

for (const dtype of trainingTypes)
  test(`what was tuned in ${dtype} is kept, and not measured again`, async () => {
    const before = process.env.MALC_CACHE;
    const folder = mkdtempSync(join(tmpdir(), 'malc-tuned-'));
    process.env.MALC_CACHE = folder;
    try {
      const compiler = await findCompiler();
      const started: number[] = [];
      const request = {
        model,
        dtype,
        batch: 1,
        time: 8,
        threads: 1,
        onStart: (products: number) => void started.push(products),
      };
      const first = await autotune(request, compiler);
      const second = await autotune(request, compiler);
      assert.is(started.length, 1);
      const [library] = readdirSync(folder);
      const files = readdirSync(join(folder, library!)).filter(name => name.startsWith('schedule-'));
      assert.is(files.length, started[0]);
      for (const shape of compile(model, { dtype }).products) assert.equal(second(shape), first(shape));
    } finally {
      if (before === undefined) delete process.env.MALC_CACHE;
      else process.env.MALC_CACHE = before;
      rmSync(folder, { recursive: true, force: true });
    }
  });

test('products that cannot be tuned are refused', () => {
  for (const dtype of trainingTypes) requireTunable(dtype, 'cpu');
  assert.throws(
    () => requireTunable('int8', 'cpu'),
    /those of --dtype int8 stream weights past few rows, and have one way/,
  );
});

test.run();
