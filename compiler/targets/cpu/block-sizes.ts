// Block sizes of the CPU's products and attention, and the scratch memory that attention needs for each thread.
import { UserError } from '../../diagnostic.ts';

/** Query positions in one block: a multiple of every machine's tile columns, and enough to pay for packing the keys. */
export const queryBlock = 64;
/** MALC_ROWS, MALC_SCRATCH and MALC_PANEL of templates/cpu/matmul.h; test/cpu/kernels.c asserts that they agree. */
export const blockRows = 96;
export const matmulScratch = 49152;
export const panelColumns = 32;
/** Key positions in one block of attention: the rows of its products. */
export const keyBlock = blockRows;
/** With more, the strips of a transposed block of values would not fit in MALC_SCRATCH. */
const largestHeadDim = 384;

/**
 * Floats of scratch that attention_forward.c.hbs and attention_backward.c.hbs need for each thread.
 *
 * @throws UserError where heads of `headDim` elements are too large for these kernels.
 */
export function attentionScratch(headDim: number): number {
  if (headDim > largestHeadDim)
    throw new UserError(
      `attention heads of ${headDim} elements are not supported on the CPU: use more heads, of at most ${largestHeadDim}`,
    );
  const padded = Math.ceil(headDim / panelColumns) * panelColumns;
  const operands = 5 * padded * queryBlock;
  const scores = 2 * keyBlock * queryBlock;
  const statistics = 3 * queryBlock;
  return matmulScratch + operands + scores + statistics;
}
