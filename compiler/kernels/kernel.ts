// What a kernel is: a group of nodes that one launch computes, in one of a few forms. A target emits each form.
import type { Dimension } from '../graph/dimension.ts';
import type { Node } from '../graph/graph.ts';
import type { RowStatistics } from '../ops/statistics.ts';

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
  /** Sums over all rows of values that the epilogue makes and stores: gradients of biases. */
  readonly totals: readonly Node[];
  /** What is known of each row of a value that the epilogue makes and stores, once all its columns are made. */
  readonly statistics: RowStatistics | null;
  readonly outputs: readonly Node[];
}

/** Attention and its by-products, which share their inputs. */
export interface AttentionKernel extends KernelCommon {
  readonly kind: 'attention' | 'attention-gradient';
}

/** A selective scan and its by-products, which share their inputs. */
export interface ScanKernel extends KernelCommon {
  readonly kind: 'scan' | 'scan-gradient';
}

/** One node alone. */
export interface SingleKernel extends KernelCommon {
  readonly kind: 'gather' | 'scatter' | 'append' | 'recent' | 'top-k' | 'within-capacity';
}

/** One product alone that is none of the matmul kernel's: each expert's rows, each head's matrix, each channel's filter. */
export interface ProductKernel extends KernelCommon {
  readonly kind: 'grouped' | 'grouped-gradient' | 'contract-each' | 'convolution' | 'convolution-gradient';
}

export type Kernel = RowKernel | MatmulKernel | AttentionKernel | ScanKernel | SingleKernel | ProductKernel;

/** What a kernel reads from memory for an input of one of its members: for what is inline, what that is made of. */
export const stored = (node: Node): readonly Node[] =>
  node.primitive?.kernel === 'inline' ? node.inputs.flatMap(stored) : [node];

/** A graph as launches, in order. */
export interface Schedule {
  readonly kernels: readonly Kernel[];
}
