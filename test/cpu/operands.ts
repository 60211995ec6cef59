// Random operands of matrix products, with the strides that kernels must take.

export interface Operand {
  readonly data: Float32Array;
  readonly rowStride: number;
  readonly columnStride: number;
}

export type Layout = 'rows' | 'columns' | 'neither';

/** A random matrix; its rows, its columns or neither are contiguous, with a gap after each. Gaps hold NaN. */
export function randomOperand(random: () => number, rows: number, columns: number, layout: Layout): Operand {
  const columnStride = layout === 'rows' ? 1 : layout === 'columns' ? rows + 3 : 2;
  const rowStride = layout === 'rows' ? columns + 5 : layout === 'columns' ? 1 : 2 * columns + 1;
  const data = new Float32Array((rows - 1) * rowStride + (columns - 1) * columnStride + 1).fill(NaN);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) data[i * rowStride + j * columnStride] = 2 * random() - 1;
  return { data, rowStride, columnStride };
}
