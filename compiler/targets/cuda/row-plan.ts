// How a row kernel is done: what threads have in registers and in shared memory, and whether each has columns of its own.
import { constantCount, type Dimension, hasDimension, sameDimensions } from '../../graph/dimension.ts';
import type { Node } from '../../graph/graph.ts';
import type { RowKernel } from '../../kernels/kernel.ts';
import type { Storage } from '../../plan/storage.ts';
import { type Share, shareOf } from './columns.ts';

/** A large GPU's multiprocessors, about. */
export const multiprocessors = 128;
/** Of a multiprocessor: its registers, and threads that keep its memory busy. */
const [allRegisters, busyThreads] = [65536, 1024];
/** Registers are given to blocks for so many threads at a time: four warps. */
const allocatedThreads = 128;
/** Registers of a thread besides what it has of a row and of totals. */
const otherRegisters = 32;
/** Floats of a row and of totals that a thread has in registers at most, in blocks of up to 256 threads and in larger. */
const [mostFloats, mostFloatsOfLarge] = [96, 64];
/** Totals of more floats are summed in global memory: several blocks must fit into a multiprocessor's shared memory. */
const mostSharedFloats = 10240;

export interface RowPlan {
  readonly share: Share;
  /** What each thread has in registers: of the row at hand, of what is the same for all rows, and of totals. */
  readonly ofRow: readonly Node[];
  readonly ofAllRows: readonly Node[];
  readonly ofTotals: readonly Node[];
  /** Floats of totals in shared memory; 0 where they are in registers, or in global memory. */
  readonly sharedFloats: number;
  /** The row that is kept in shared memory, as far as there is room. */
  readonly kept: Node | null;
  /** Whether each thread has columns of its own, of all rows: where these are many, and nothing else is asked of a row. */
  readonly isAcross: boolean;
}

/** Of totals over the rows, those that have columns. */
export const vectorsOf = (totals: readonly Node[]): Node[] => totals.filter(({ dimensions }) => dimensions.length > 0);

/** @param totals the kernel's sums over its rows */
export function planRow(kernel: RowKernel, totals: readonly Node[], storageOf: Storage): RowPlan {
  const wanted = shareOf(kernel, totals, storageOf);
  const vectors = vectorsOf(totals);
  const isFixed = kernel.columns.every(dim => dim.size !== null);
  const reduces = kernel.members.some(node => node.primitive?.name === 'reduce' && !totals.includes(node));
  const isAcross = !isFixed && !reduces && wanted.some > 1 && totals.length > 0 && vectors.length === totals.length;
  if (isAcross) return { ...nothing, share: wanted, ofTotals: vectors, isAcross };

  const registers = registersOf(kernel, vectors, wanted);
  const most = wanted.lanes > 256 ? mostFloatsOfLarge : mostFloats;
  const fits = wanted.turns !== null && floatsOf(registers, wanted) <= most;
  const share = fits ? wanted : { ...wanted, turns: null };
  const { ofRow, ofAllRows, ofTotals } = fits ? registers : nothing;
  const floats =
    isFixed && ofTotals.length === 0 ? vectors.reduce((sum, node) => sum + constantCount(node.dimensions), 0) : 0;
  const isKept = isFixed && reduces && vectors.length === 0 && !fits && share.some > 1 && share.lanes >= 32;
  return {
    share,
    ofRow,
    ofAllRows,
    ofTotals,
    sharedFloats: floats <= mostSharedFloats ? floats : 0,
    kept: isKept ? onlyRow(kernel) : null,
    isAcross,
  };
}

/** Blocks of so many threads that a multiprocessor should run at once. ptxas spills registers for more of them. */
export function blocksOfMultiprocessor(plan: RowPlan, threads: number): number {
  const registers = otherRegisters + floatsOf(plan, plan.share);
  const allocated = Math.ceil(threads / allocatedThreads) * allocatedThreads * registers;
  return Math.max(1, Math.min(Math.floor(busyThreads / threads), Math.floor(allRegisters / allocated)));
}

type Registers = Pick<RowPlan, 'ofRow' | 'ofAllRows' | 'ofTotals'>;

const nothing = { ofRow: [], ofAllRows: [], ofTotals: [], sharedFloats: 0, kept: null };

const floatsOf = ({ ofRow, ofAllRows, ofTotals }: Registers, { turns, some }: Share): number =>
  (ofRow.length + ofAllRows.length + ofTotals.length) * (turns ?? 1) * some;

/** What could be in registers: tensors whose columns lie as the row's, and are read at no other column. */
function registersOf(kernel: RowKernel, vectors: readonly Node[], { turns }: Share): Registers {
  if (turns === null) return nothing;
  const isOfRows = ({ dimensions }: Node) => kernel.rows.some(dim => hasDimension(dimensions, dim.name));
  const rows = pairs(kernel)
    ? []
    : kernel.inputs.filter(node => node.dtype === 'f32' && endsWith(node, kernel.columns));
  return { ofRow: rows.filter(isOfRows), ofAllRows: rows.filter(node => !isOfRows(node)), ofTotals: vectors };
}

/** The only input with an element for each row and column; null where there are others, or none. */
function onlyRow(kernel: RowKernel): Node | null {
  const whole = [...kernel.rows, ...kernel.columns];
  const rows = kernel.inputs.filter(node => node.dtype === 'f32' && sameDimensions(node.dimensions, whole));
  return rows.length === 1 && !pairs(kernel) ? rows[0]! : null;
}

const pairs = ({ members }: RowKernel): boolean => members.some(node => node.primitive?.name === 'pair');

const endsWith = ({ dimensions }: Node, last: readonly Dimension[]): boolean =>
  sameDimensions(dimensions.slice(-last.length), last);
