// Schedules of Hopper's products: what the cost model ranks, and why.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rankSchedules } from '../compiler/targets/cuda/hopper-schedule.ts';
import type { ProductWork } from '../compiler/targets/cuda/product-tiles.ts';

const test = suite('schedules of products on Hopper GPUs');
const slots = { least: 2, best: 2 };
const circumstances = { tokens: 65_536, multiprocessors: 132 };

/** A product of a training step; null stands for its tokens. */
const work = (rows: number | null, columns: number, inner: number | null, more: Partial<ProductWork> = {}) => ({
  ...{ kind: 'bf16' as const, rows, columns, inner, results: 1, beside: 1, step: 1 },
  isDivisible: rows !== null && inner === null,
  ...more,
});
const best = (...works: ProductWork[]) => rankSchedules(works, slots, circumstances)[0]!.schedule;

test('many tiles are as large as can be, in clusters of two', () => {
  const { columns, cluster, stages, parts } = best(work(null, 2304, 768));
  assert.equal({ columns, cluster, stages, parts }, { columns: 256, cluster: 2, stages: 4, parts: [1] });
});

test('all schedules are ranked, each with what shared memory holds', () => {
  const ranked = rankSchedules([work(null, 768, 768)], { least: 2, best: 4 }, circumstances);
  assert.is(ranked.length, 18);
  assert.ok(ranked.every(({ cycles }, n) => n === 0 || cycles >= ranked[n - 1]!.cycles));
  for (const { schedule } of ranked) {
    const bytes = schedule.stages * (128 + schedule.columns) * 128 + 2 * schedule.boxes * 8192;
    assert.ok(bytes <= 232_448 - 512 && schedule.boxes === 4, JSON.stringify(schedule));
  }
});

test('a gradient of few tiles is divided, so that hardly a multiprocessor waits', () => {
  const { columns, parts } = best(work(768, 768, null));
  const tiles = 3 * Math.ceil(768 / columns);
  const rounds = (tiles * parts[0]!) / 66;
  assert.ok(parts[0]! > 4 && rounds / Math.ceil(rounds) > 0.9, `${parts[0]} parts of ${tiles} tiles`);
});

test('parts of a launch are chosen together: what one product leaves idle, another fills', () => {
  const works = [work(768, 768, null), work(768, 768, null), work(2304, 768, null)];
  const { columns, parts } = best(...works);
  const tiles = works.map(({ rows }) => (rows! / 256) * Math.ceil(768 / columns));
  const rounds = tiles.reduce((sum, count, n) => sum + count * parts[n]!, 0) / 66;
  assert.ok(rounds / Math.ceil(rounds) > 0.9, `${parts} parts of ${tiles} tiles`);
});

test('products side by side share whole boxes, and no tile cuts what it may not', () => {
  const beside = rankSchedules([work(null, 8192, 2048, { beside: 2 })], slots, circumstances);
  assert.equal([...new Set(beside.map(({ schedule }) => schedule.columns))], [256, 128]);
  assert.equal(rankSchedules([work(null, 1152, 768, { step: 288 })], slots, circumstances), []);
});

test.run();
