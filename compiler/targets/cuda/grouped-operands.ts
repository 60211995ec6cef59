// How the operands of products with one of several matrices lie in memory, and the text that declares them for the device
// code: templates/cuda/grouped.h, and grouped_sm90.h for Hopper GPUs.
import type { Writer } from '../../emission/writer.ts';
import { constantCount, type Dimension } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import { type ElementStorage, storedDimensions } from '../../plan/storage.ts';
import type { Surroundings, TensorMap } from './kernel-source.ts';

/** How the runs of an operand lie in memory. */
export interface Runs {
  readonly storage: ElementStorage;
  /** Elements from run to run, and the largest power of two up to 8 that divides them. */
  readonly stride: number;
  readonly aligned: number;
}

/** Which positions of an operand are its runs. */
export type Side = 'inner' | 'outer';

/** The runs of a tensor whose last dimensions these are. */
export function runsOf(node: Node, run: readonly Dimension[], { storageOf }: Surroundings): Runs {
  const storage = storageOf(node);
  const stride = constantCount(storedDimensions(node, storage).slice(-run.length));
  return { storage, stride, aligned: [8, 4, 2].find(count => stride % count === 0) ?? 1 };
}

/** What declares operands of these runs: the elements' type, which positions are runs, alignment. */
export const operandText = ({ storage, aligned }: Runs, run: Side): string =>
  [storage === 'bf16' ? '__nv_bfloat16' : 'float', `malc_side::${run}`, aligned].join(', ');

/** The rows that slots read: `sharing` of them the same one, of which `width` elements count. */
export interface SlotRows extends Runs {
  readonly run: Side;
  readonly sharing: number;
  readonly width: number;
}

/** Declares them as an operand. */
export function slotRows(writer: Writer, variable: string, data: string, rows: SlotRows): void {
  const type = `${operandText(rows, rows.run)}, ${rows.sharing}`;
  writer.line(`const malc_slot_rows<${type}> ${variable}{${data}, slots.order, ${rows.stride}, slots.count - 1};`);
}

/** The same for Hopper GPUs, whose producers gather them. */
export function gatheredRows(writer: Writer, variable: string, data: string, rows: SlotRows): void {
  const { run, sharing, stride, width } = rows;
  const values = [data, 'slots.order', stride, width, 'slots.count'].join(', ');
  writer.line(`const malc_gathered_rows<malc_side::${run}, ${sharing}> ${variable}{${values}};`);
}

/** Declares the first of the matrices as an operand. */
export function firstMatrix(writer: Writer, data: string, run: Side, runs: Runs): void {
  writer.line(`const malc_operand<${operandText(runs, run)}> right{{${data}}, ${runs.stride}};`);
}

/** Columns, and rows or inner positions, of the boxes that TMA brings. */
const side = 64;

/** The map of all matrices, `count` of so many runs of so many elements, where TMA brings them. */
export const matricesMap = (
  name: string,
  base: string,
  { stride }: Runs,
  [count, runs, elements]: readonly [number, number, number],
): TensorMap => ({
  name,
  base,
  sizes: [String(elements), String(runs), String(count)],
  strides: [String(stride), String(stride * runs)],
  box: { columns: side, rows: side },
});
