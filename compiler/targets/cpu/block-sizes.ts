// Block sizes of the CPU's products and attention, and the scratch memory that they need for each thread.

/** Query positions in one block: a multiple of every machine's tile columns, and enough to pay for packing the keys. */
export const queryBlock = 64;
/** MALC_ROWS, MALC_DEPTH, MALC_SCRATCH and MALC_PANEL of templates/cpu/matmul.h; test/cpu/kernels.c asserts that they agree. */
export const blockRows = 96;
export const blockDepth = 384;
export const matmulScratch = 49152;
export const panelColumns = 32;
/** Key positions in one block of attention: the rows of its products. */
export const keyBlock = blockRows;

/**
 * Floats of scratch that attention_forward.c.hbs and attention_backward.c.hbs need for each thread.
 * @param headDim elements of a query and of a key
 * @param valueDim elements of a value that are used
 * @param drops whether there is dropout, whose factors the backward pass keeps
 */
export function attentionScratch(headDim: number, valueDim: number, drops: boolean): number {
  const padded = (elements: number) => Math.ceil(elements / panelColumns) * panelColumns;
  // Backward: the queries, their packed form and their gradient; the output's gradient and its packed form.
  const operands = (3 * padded(headDim) + 2 * padded(valueDim)) * queryBlock;
  const scores = (drops ? 3 : 2) * keyBlock * queryBlock;
  const statistics = 3 * queryBlock;
  return matmulScratch + operands + scores + statistics;
}

/**
 * Floats that hold a packed right operand of bfloat16 numbers: `each` for every row, and `padding` besides, which fills
 * the last tile. malc_packed_size_bf16 of templates/cpu/matmul_bf16.h is never more.
 */
export function packedBf16(columns: number): { readonly each: number; readonly padding: number } {
  const each = (Math.ceil(columns / panelColumns) * panelColumns) / 2;
  return { each, padding: (tileDepth - 1) * each };
}

/** Rows of the right operand in a tile: MALC_STEP of templates/cpu/matmul_bf16.h. */
const tileDepth = 32;
