/* matmul_streamed.h - products of few rows with packed right operands, as in decoding.
 *
 * The weights stream past once, panel by panel in the order of memory, and the time is the memory's: what few rows read
 * is the packed form of bf16_packing.h, half the bytes of float32. The left operand stays float32, unrounded: rounding
 * it would save nothing here. Every element is one chain of multiply-adds in the order of the inner dimension, whatever
 * the number of threads and the columns of a task. */
#ifndef MALC_MATMUL_STREAMED_H
#define MALC_MATMUL_STREAMED_H
#include "bf16_packing.h"

/* Two functions for each form: one copies up to MALC_FEW_TILE rows of a left operand, `given` of the inner dimension,
 * as the other wants them, as if zeros followed up to `depth`, a multiple of the rows that lie together in a panel. The
 * other multiplies them by that part of a panel and adds the columns from `column` on, MALC_TILE_COLUMNS of them, to
 * the tile. */
typedef void malc_few_copy(float *to, malc_matrix left, int64_t rows, int64_t given, int64_t depth);
typedef void malc_few_kernel(float *tile, int64_t tile_stride, const float *left, int64_t rows, const malc_pair *panel,
                             int64_t column, int64_t depth);

/* to[rows][depth] = the first `given` of the inner dimension of left[rows][inner], and zeros. */
MALC_STATIC void malc_few_left(float *to, malc_matrix left, int64_t rows, int64_t given, int64_t depth) {
  for (int64_t i = 0; i < rows; i++, to += depth) {
    const float *from = left.data + i * left.row_stride;
    for (int64_t k = 0; k < given; k++) to[k] = from[k * left.column_stride];
    for (int64_t k = given; k < depth; k++) to[k] = 0.0f;
  }
}

enum { MALC_FEW_DEPTH = 8192 }; /* of the inner dimension at once: all of it, most often */

/* tile[rows][columns] = left[rows][inner] x right[inner][columns], the right operand in panels of MALC_PANEL columns,
 * of which `multiple` rows, as `words` words, lie together. Each panel is read once for MALC_FEW_TILE rows. */
MALC_INLINE void malc_multiply_streamed(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                        const malc_pair *panels, int64_t multiple, int64_t words, int64_t inner,
                                        int64_t columns, float *scratch, malc_few_copy *copy,
                                        malc_few_kernel *kernel) {
  const int64_t panel_words = (inner + multiple - 1) / multiple * words;
  for (int64_t i = 0; i < rows; i++) memset(tile + i * tile_stride, 0, (size_t)columns * sizeof *tile);
  for (int64_t k = 0; k < inner; k += MALC_FEW_DEPTH)
    for (int64_t i = 0; i < rows; i += MALC_FEW_TILE) {
      const int64_t given = malc_least(MALC_FEW_DEPTH, inner - k), depth = (given + multiple - 1) / multiple * multiple;
      const int64_t height = malc_least(MALC_FEW_TILE, rows - i);
      const malc_matrix part = { left.data + i * left.row_stride + k * left.column_stride, left.row_stride,
                                 left.column_stride };
      copy(scratch, part, height, given, depth);
      for (int64_t j = 0; j < columns; j += MALC_TILE_COLUMNS) {
        const malc_pair *panel = panels + j / MALC_PANEL * panel_words + k / multiple * words;
        const int64_t width = malc_least(MALC_TILE_COLUMNS, columns - j);
        float *to = tile + i * tile_stride + j;
        if (width == MALC_TILE_COLUMNS) {
          kernel(to, tile_stride, scratch, height, panel, j % MALC_PANEL, depth);
          continue;
        }
        float whole[MALC_FEW_TILE * MALC_TILE_COLUMNS] = { 0 };
        malc_copy_block(whole, MALC_TILE_COLUMNS, to, tile_stride, height, width);
        kernel(whole, MALC_TILE_COLUMNS, scratch, height, panel, j % MALC_PANEL, depth);
        malc_copy_block(to, tile_stride, whole, MALC_TILE_COLUMNS, height, width);
      }
    }
}

/* So many words ahead memory is asked for: the processor alone, busy with widening, does not look far enough. */
enum { MALC_FEW_AHEAD = 1024 };

/* `rows` is known when this is compiled: the sums stay in registers. */
MALC_INLINE void malc_few_pairs(float *tile, int64_t tile_stride, const float *left, int rows, const malc_pair *panel,
                                int64_t column, int64_t depth) {
  malc_vector sum[MALC_FEW_TILE][MALC_TILE_VECTORS];
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
  for (int64_t k = 0; k < depth; k += MALC_STEP, panel += MALC_STEP_PAIRS)
    for (int pair = 0; pair < MALC_LANES; pair++)
      MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) {
        const int64_t lane = column + j * MALC_WIDTH, from = lane / MALC_LANES * MALC_TILE_PAIRS + lane % MALC_LANES;
        const malc_pair *words = panel + from + pair * MALC_LANES;
        const malc_words pairs = *(const malc_unaligned_words *)words;
        const malc_vector even = (malc_vector)(pairs << 16), odd = (malc_vector)(pairs & 0xffff0000u);
        __builtin_prefetch(words + MALC_FEW_AHEAD);
        MALC_UNROLL for (int i = 0; i < rows; i++) {
          const float *by = left + i * depth + k + 2 * pair;
          sum[i][j] += by[0] * even;
          sum[i][j] += by[1] * odd;
        }
      }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

MALC_SEPARATE void malc_few_kernel_bf16(float *tile, int64_t tile_stride, const float *left, int64_t rows,
                                        const malc_pair *panel, int64_t column, int64_t depth) {
  switch (rows) {
    case 1: malc_few_pairs(tile, tile_stride, left, 1, panel, column, depth); break;
    case 2: malc_few_pairs(tile, tile_stride, left, 2, panel, column, depth); break;
    case 3: malc_few_pairs(tile, tile_stride, left, 3, panel, column, depth); break;
    default: malc_few_pairs(tile, tile_stride, left, 4, panel, column, depth);
  }
}

/* malc_multiply_bf16 for rows <= MALC_FEW_ROWS, the left operand unrounded. */
MALC_STATIC void malc_multiply_few_bf16(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                        const float *packed, int64_t inner, int64_t column, int64_t columns,
                                        float *scratch) {
  const malc_pair *panels = (const malc_pair *)packed + column / MALC_STEP * malc_steps(inner) * MALC_STEP_PAIRS;
  malc_multiply_streamed(tile, tile_stride, left, rows, panels, MALC_STEP, MALC_STEP_PAIRS, inner, columns,
                         scratch, malc_few_left, malc_few_kernel_bf16);
}
#endif
