// How products of float32 and of bfloat16 are divided into tasks: a schedule is data, chosen by a model of what a task costs.
// Threads and rows are known when the program runs: malc_divide of templates/cpu/runtime.h, malc_divide_blocks of
// matmul_bf16.h for products of bfloat16, then divide evenly within these bounds.
import type { Extent } from '../../plan/extent.ts';
import type { ElementStorage } from '../../plan/storage.ts';
import { panelColumns } from './block-sizes.ts';

/** What bounds a task of a product, whose result no schedule changes: every element is one chain of multiply-adds. */
export interface ProductSchedule {
  /** Most rows: a multiple of every machine's tile rows. */
  readonly rows: number;
  /** Most columns. */
  readonly columns: number;
  /** Most of the inner dimension at once: a multiple of 16; 0 for products of bfloat16, which take all of it. */
  readonly depth: number;
}

/** What a schedule depends on. */
export interface ProductShape {
  readonly rows: Extent;
  readonly columns: number;
  readonly inner: Extent;
  /** A task's columns are a multiple of this. */
  readonly step: number;
  /** Products whose tiles are kept in scratch until an epilogue has read them; 0 where one goes right where it belongs. */
  readonly tiles: number;
  /** True where an operand lies with its columns contiguous. */
  readonly leftTransposed: boolean;
  readonly rightTransposed: boolean;
  /** Of a product of bfloat16, how its rows lie in memory; null where it is of float32. */
  readonly rounds: ElementStorage | null;
}

/** A core's own caches, in bytes. */
export interface Caches {
  readonly first: number;
  readonly second: number;
}

/** What every processor of the last years with vectors of 8 or 16 floats has, or more. */
export const usualCaches: Caches = { first: 32 * 1024, second: 1024 * 1024 };

export type ScheduleOf = (shape: ProductShape) => ProductSchedule;

/** Floats of a thread's scratch that malc_multiply_packing needs: a strip and the panels. */
export const packingScratch = (columns: number, depth: number): number => depth * (stripRows + padded(columns));

/** MALC_STRIP_MOST of templates/cpu/matmul.h. */
export const stripRows = 12;
/** A multiple of every machine's tile rows. */
export const rowStep = 24;
const mostRows = 1056;
const depths = [256, 384, 512];
const widths = [128, 256, 384, 512, 768, 1024];

/** What malc_divide of templates/cpu/runtime.h counts too, in multiply-adds: packing an element of each operand. */
const packLeft = 16;
const packRight = 32;
/** Reading and writing an element of the result, once for each depth. */
const visit = 16;

const padded = (columns: number) => Math.ceil(columns / panelColumns) * panelColumns;

/** Bounds of bfloat16 products' tasks, the usual ones first. Columns of more panels than the cache holds are never taken. */
const blockRowCounts = [256, 512, 128];
const blockColumnCounts = [1024, 256];

/** The schedules that fit the caches, the most promising first. */
export const rankSchedules = (shape: ProductShape, caches: Caches = usualCaches): ProductSchedule[] =>
  shape.rounds === null ? rankPacking(shape, caches) : rankBlocks(shape);

/** Of products whose right operand is packed beforehand. */
function rankBlocks({ columns, step }: ProductShape): ProductSchedule[] {
  const distinct = new Map<string, ProductSchedule>();
  for (const rows of blockRowCounts)
    for (const width of blockColumnCounts) {
      // Few columns more are no task of their own.
      const atOnce = columns <= 1.5 * width ? columns : Math.max(step, Math.floor(width / step) * step);
      const schedule = { rows, columns: Math.min(columns, atOnce), depth: 0 };
      distinct.set(describeSchedule(schedule), schedule);
    }
  return [...distinct.values()];
}

/** Of products whose tasks pack what they read, the one with the least cost for each multiply-add first. */
function rankPacking(shape: ProductShape, caches: Caches): ProductSchedule[] {
  const { columns, inner, step, tiles } = shape;
  const longest = inner.runtime.length > 0 ? Infinity : Math.ceil(inner.count / 16) * 16;
  const distinct = new Map<string, ProductSchedule>();
  for (const wanted of depths)
    for (const width of widths) {
      const depth = Math.min(wanted, longest);
      // A single step cannot be divided, whatever its size.
      const atOnce = Math.min(columns, Math.max(step, Math.floor(width / step) * step));
      const room = caches.second / 2 / Float32Array.BYTES_PER_ELEMENT;
      const fits = depth * padded(atOnce) <= room || atOnce <= step;
      if (!fits || depth * stripRows * Float32Array.BYTES_PER_ELEMENT > 0.75 * caches.first) continue;
      const rows = tiles === 0 ? mostRows : Math.floor(room / (tiles * atOnce) / rowStep) * rowStep;
      const schedule = { rows: Math.max(rowStep, Math.min(mostRows, rows)), columns: atOnce, depth };
      distinct.set(describeSchedule(schedule), schedule);
    }
  return [...distinct.values()].sort((a, b) => costOf(shape, a) - costOf(shape, b) || b.columns - a.columns);
}

/** What packing and visiting the result cost for each multiply-add. */
function costOf({ rows: given, columns, inner }: ProductShape, schedule: ProductSchedule): number {
  const rows = given.runtime.length > 0 ? schedule.rows : Math.min(schedule.rows, given.count);
  const visits = inner.runtime.length > 0 ? 1 / schedule.depth : Math.ceil(inner.count / schedule.depth) / inner.count;
  return packLeft / Math.min(schedule.columns, columns) + packRight / rows + visit * visits;
}

/** The cost model's choice. */
export const chooseSchedule: ScheduleOf = shape => rankSchedules(shape)[0]!;

/** Schedules that were measured, by shapeKey; the cost model's where there is none. */
export const schedulesFrom =
  (measured: ReadonlyMap<string, ProductSchedule>): ScheduleOf =>
  shape =>
    measured.get(shapeKey(shape)) ?? chooseSchedule(shape);

export const describeSchedule = ({ rows, columns, depth }: ProductSchedule): string =>
  `tasks of at most ${rows} rows and ${columns} columns, ${depth} of the inner dimension at a time`;

/** The same text for the same shape. */
export function shapeKey(shape: ProductShape): string {
  const { rows, columns, inner, step, tiles, leftTransposed, rightTransposed, rounds } = shape;
  const extent = ({ runtime, count }: Extent) => [...runtime, count].join('*');
  const layout = `${leftTransposed ? 't' : 'n'}${rightTransposed ? 't' : 'n'}`;
  const numbers = rounds === null ? 'f32' : `bf16 of ${rounds}`;
  return [extent(rows), extent(inner), columns, layout, `step ${step}`, `tiles ${tiles}`, numbers].join(' ');
}
