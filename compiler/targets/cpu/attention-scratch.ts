// The blocks of the CPU's attention kernels, and the scratch memory that they need for each thread.
import { UserError } from '../../diagnostic.ts';

/** Query positions in one block: a multiple of every machine's tile columns, and enough to pay for packing the keys. */
export const queryBlock = 64;
/** Key positions in one block: MALC_ROWS of templates/cpu/matmul.h. */
export const keyBlock = 96;
/** MALC_SCRATCH and MALC_PANEL of templates/cpu/matmul.h; test/cpu/kernels.c asserts that they agree. */
export const matmulScratch = 49152;
export const panelColumns = 32;
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
