// The blocks of the CPU's attention kernels, and the scratch memory that they give each thread.

/** Query positions in one block: a multiple of every machine's tile columns, and enough to pay for packing the keys. */
export const queryBlock = 64;
/** Key positions in one block: MALC_ROWS of templates/cpu/matmul.h. */
export const keyBlock = 96;
/** MALC_SCRATCH and MALC_PANEL of templates/cpu/matmul.h; the generated program asserts that they agree. */
export const matmulScratch = 49152;
export const panelColumns = 32;

/** Floats of scratch that attention needs for each thread, forward or backward, with heads of `headDim` elements. */
export function attentionScratch(headDim: number): number {
  const padded = Math.ceil(headDim / panelColumns) * panelColumns;
  const scores = 2 * keyBlock * queryBlock;
  const operands = 5 * padded * queryBlock;
  const statistics = 3 * queryBlock;
  return matmulScratch + operands + scores + statistics;
}
