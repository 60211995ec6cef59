/* matmul_few.h - the float32 product of few rows, as in decoding: nothing is packed, since nothing would be read twice.
 *
 * The right operand is read where it lies, once for each MALC_FEW_TILE rows. Where its rows are contiguous, vectors
 * take their columns; where its columns and the left operand's rows are, vectors go along the inner dimension.
 * Everything else takes plain loops. No result depends on the number of threads, as tasks of columns are whole
 * panels. */
#ifndef MALC_MATMUL_FEW_H
#define MALC_MATMUL_FEW_H
#include "matmul.h"

/* Any rows and columns, any strides: what the vector code below leaves over. */
MALC_SEPARATE void malc_few_plain(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_matrix right,
                                  int64_t inner, int64_t columns, bool accumulate) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      float sum = accumulate ? tile[i * tile_stride + j] : 0.0f;
      const float *from = left.data + i * left.row_stride, *by = right.data + j * right.column_stride;
      for (int64_t k = 0; k < inner; k++) sum += from[k * left.column_stride] * by[k * right.row_stride];
      tile[i * tile_stride + j] = sum;
    }
}

/* Four columns of a right operand whose columns are contiguous, as the left operand's rows are: inner products, the
 * vectors' lanes along the inner dimension. `rows` is a compile-time number. */
MALC_INLINE void malc_few_products(float *tile, int64_t tile_stride, malc_matrix left, int rows, malc_matrix right,
                                   int64_t inner, bool accumulate) {
  malc_vector sum[MALC_FEW_TILE][4] = { 0 };
  int64_t k = 0;
  for (; k + MALC_WIDTH <= inner; k += MALC_WIDTH)
    MALC_UNROLL for (int i = 0; i < rows; i++) {
      const malc_vector from = *(const malc_unaligned *)(left.data + i * left.row_stride + k);
      MALC_UNROLL for (int j = 0; j < 4; j++)
        sum[i][j] += from * *(const malc_unaligned *)(right.data + j * right.column_stride + k);
    }
  MALC_UNROLL for (int i = 0; i < rows; i++) {
    malc_quad quads[4];
    MALC_UNROLL for (int j = 0; j < 4; j++) { /* each vector's quarters added up ... */
      const union { malc_vector vector; malc_quad quads[MALC_WIDTH / 4]; } parts = { .vector = sum[i][j] };
      quads[j] = parts.quads[0];
      MALC_UNROLL for (int n = 1; n < MALC_WIDTH / 4; n++) quads[j] += parts.quads[n];
    }
    malc_transpose_quads(quads); /* ... then the four partial sums of four columns at once */
    malc_quad total = (quads[0] + quads[1]) + (quads[2] + quads[3]);
    malc_unaligned_quad *to = (malc_unaligned_quad *)(tile + i * tile_stride);
    if (accumulate) total += *to;
    *to = total;
  }
  if (k == inner) return;
  left.data += k;
  right.data += k;
  malc_few_plain(tile, tile_stride, left, rows, right, inner - k, 4, true);
}

/* `vectors` vectors of columns of a right operand whose rows are contiguous; compile-time numbers, as `rows` is. */
MALC_INLINE void malc_few_columns(float *tile, int64_t tile_stride, malc_matrix left, int rows, malc_matrix right,
                                  int64_t inner, int vectors, bool accumulate) {
  malc_vector sum[MALC_FEW_TILE][4];
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < vectors; j++)
      if (accumulate) sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
      else sum[i][j] = (malc_vector){ 0 };
  for (int64_t k = 0; k < inner; k++)
    MALC_UNROLL for (int j = 0; j < vectors; j++) {
      const malc_vector by = *(const malc_unaligned *)(right.data + k * right.row_stride + j * MALC_WIDTH);
      MALC_UNROLL for (int i = 0; i < rows; i++)
        sum[i][j] += left.data[i * left.row_stride + k * left.column_stride] * by;
    }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < vectors; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

/* MALC_FEW_TILE rows or fewer, a compile-time number, and any columns. */
MALC_INLINE void malc_few_tile(float *tile, int64_t tile_stride, malc_matrix left, int rows, malc_matrix right,
                               int64_t inner, int64_t columns, bool accumulate) {
  int64_t j = 0;
  malc_matrix from = right;
  if (right.row_stride == 1 && left.column_stride == 1)
    for (; j + 4 <= columns; j += 4, from.data += 4 * right.column_stride)
      malc_few_products(tile + j, tile_stride, left, rows, from, inner, accumulate);
  else if (right.column_stride == 1) {
    for (; j + 4 * MALC_WIDTH <= columns; j += 4 * MALC_WIDTH, from.data += 4 * MALC_WIDTH)
      malc_few_columns(tile + j, tile_stride, left, rows, from, inner, 4, accumulate);
    for (; j + MALC_WIDTH <= columns; j += MALC_WIDTH, from.data += MALC_WIDTH)
      malc_few_columns(tile + j, tile_stride, left, rows, from, inner, 1, accumulate);
  }
  malc_few_plain(tile + j, tile_stride, left, rows, from, inner, columns - j, accumulate);
}

MALC_SEPARATE void malc_few_blocks(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_matrix right,
                                 int64_t inner, int64_t columns, bool accumulate) {
  for (int64_t i = 0; i < rows; i += MALC_FEW_TILE) {
    float *to = tile + i * tile_stride;
    const malc_matrix from = { left.data + i * left.row_stride, left.row_stride, left.column_stride };
    switch (malc_least(MALC_FEW_TILE, rows - i)) {
      case 1: malc_few_tile(to, tile_stride, from, 1, right, inner, columns, accumulate); break;
      case 2: malc_few_tile(to, tile_stride, from, 2, right, inner, columns, accumulate); break;
      case 3: malc_few_tile(to, tile_stride, from, 3, right, inner, columns, accumulate); break;
      default: malc_few_tile(to, tile_stride, from, 4, right, inner, columns, accumulate);
    }
  }
}

/* malc_multiply for rows <= MALC_FEW_ROWS, as in decoding: the right operand is read in place, once for each
 * MALC_FEW_TILE rows. Fast where its rows are contiguous, or its columns and the left operand's rows. */
MALC_STATIC void malc_multiply_few(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_matrix right,
                                   int64_t inner, int64_t column, int64_t columns) {
  right.data += column * right.column_stride;
  malc_few_blocks(tile, tile_stride, left, rows, right, inner, columns, false);
}

/* The same, added to what the tile holds. */
MALC_STATIC void malc_multiply_few_add(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                       malc_matrix right, int64_t inner, int64_t column, int64_t columns) {
  right.data += column * right.column_stride;
  malc_few_blocks(tile, tile_stride, left, rows, right, inner, columns, true);
}
#endif
