// Block sizes of the CPU's products and attention, and the scratch memory that they need for each thread.

/** Query positions in one block: MALC_QUERIES of templates/cpu/attention.h. More would be computed where causality hides. */
export const queryBlock = 32;
/** MALC_ROWS, MALC_DEPTH, MALC_SCRATCH and MALC_PANEL of templates/cpu/matmul.h; test/cpu/kernels.c asserts that they agree. */
export const blockRows = 96;
export const blockDepth = 384;
export const matmulScratch = 49152;
export const panelColumns = 32;
/** Key positions in one block of attention. */
export const keyBlock = blockRows;

/** Room for a row of an operand or of a product of attention. */
export const wholePanels = (elements: number): number => Math.ceil(elements / panelColumns) * panelColumns;

/** What a task of attention holds in scratch: floats for itself, and for each block of queries that it has at once. */
export interface AttentionRoom {
  readonly floats: number;
  readonly blocks: number;
}

/** Blocks of queries for which a block of keys is made ready, and the floats they may take: some of the second cache. */
const mostBlocks = 8;
const mostBlockFloats = 2 ** 17;

const roomOf = (own: number, block: number): AttentionRoom => {
  const blocks = Math.min(mostBlocks, Math.max(1, Math.floor(mostBlockFloats / block)));
  return { floats: own + blocks * block, blocks };
};

/** [keys][queries] that the backward pass needs: weights, their gradients, an operand, and the factors of dropout. */
export const attentionScores = (drops: boolean): number => (drops ? 4 : 3);

/**
 * Scratch of attention_forward.c.hbs, for each thread.
 * @param headDim elements of a query and of a key
 * @param valueDim elements of a value that are used
 */
export function attentionRoom(headDim: number, valueDim: number): AttentionRoom {
  const width = wholePanels(headDim) + wholePanels(valueDim);
  return roomOf(keyBlock * (width + 2 * queryBlock), queryBlock * (width + 2));
}

/**
 * Scratch of attention_backward.c.hbs, for each thread.
 * @param drops whether there is dropout, whose factors are kept
 */
export function attentionGradientRoom(headDim: number, valueDim: number, drops: boolean): AttentionRoom {
  const [key, value] = [wholePanels(headDim), wholePanels(valueDim)];
  const own = keyBlock * (3 * key + 2 * value + attentionScores(drops) * queryBlock);
  return roomOf(own, queryBlock * (3 * key + 2 * value + 2));
}

/**
 * Floats that hold a packed right operand of bfloat16 numbers: `each` for every row, and `padding` besides, which fills
 * the last tile. malc_packed_size_bf16 of templates/cpu/bf16_packing.h is never more.
 */
export function packedBf16(columns: number): { readonly each: number; readonly padding: number } {
  const each = (Math.ceil(columns / panelColumns) * panelColumns) / 2;
  return { each, padding: (tileDepth - 1) * each };
}

/** Rows of the right operand in a tile: MALC_STEP of templates/cpu/bf16_packing.h. */
const tileDepth = 32;
