// What a kernel is: a group of nodes that one launch computes, in one of a few forms. A target emits each form.
import type { Dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';

interface KernelCommon {
  /** Every node that the kernel computes, in an order in which it can be computed. */
  readonly members: readonly Node[];
  /** Values that it reads, in the order of first use. */
  readonly inputs: readonly Node[];
  /** Members that other kernels or the caller read. */
  readonly outputs: readonly Node[];
}

/**
 * Maps and reductions that visit the same rows. Each member is an element (rows and columns), a row value (rows only,
 * often a reduction over the columns) or a total (a reduction over the rows).
 */
export interface RowKernel extends KernelCommon {
  readonly kind: 'row';
  readonly rows: readonly Dimension[];
  readonly columns: readonly Dimension[];
}

/** Products that are launched together. Groups are independent of one another. */
export interface MatmulKernel extends KernelCommon {
  readonly kind: 'matmul';
  readonly groups: readonly MatmulGroup[];
}

/** Products with the same rows and columns, and the maps that finish each element while it is at hand. */
export interface MatmulGroup {
  readonly rows: readonly Dimension[];
  readonly columns: readonly Dimension[];
  readonly products: readonly Node[];
  readonly epilogue: readonly Node[];
  readonly outputs: readonly Node[];
}

/** Attention and its by-products, which share their inputs. */
export interface AttentionKernel extends KernelCommon {
  readonly kind: 'attention' | 'attention-gradient';
}

/** One node alone: gather, scatter-add, append. */
export interface SingleKernel extends KernelCommon {
  readonly kind: 'gather' | 'scatter' | 'append';
}

export type Kernel = RowKernel | MatmulKernel | AttentionKernel | SingleKernel;

/** A graph as launches, in order. */
export interface Schedule {
  readonly kernels: readonly Kernel[];
}
