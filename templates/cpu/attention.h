/* attention.h - the products of attention: of a block of keys and a block of MALC_QUERIES queries.
 *
 * Scores are held transposed, [keys][queries], so that every lane is a query: the softmax needs no reduction across
 * lanes. Every product is then one of a left operand, which gives rows, and a right one, whose panels of MALC_PANEL
 * columns are read along the inner dimension:
 *
 *   forward   S = K Q^T,   O^T = V^T P
 *   backward  S = K Q^T,   dP = V dO^T,   dV = P dO,   dK = dS Q,   dQ^T = K^T dS
 *
 * Operands are made of rows in memory, of float32 or bfloat16, and stay in the caches while they are used many times:
 *
 *   floats  in float32 programs, and in those of bfloat16 products where the machine has no faster ones: copies side by
 *           side. Weights are operands as they are
 *   blocks  in those of bfloat16 products: the tiles of matmul_bf16.h, for AMX and AVX512-BF16. Operands are rounded to
 *           bfloat16; scores, weights and sums are float32
 *
 * A function that takes `blocks` does either. Operands and results have room for whole multiples of MALC_PANEL rows and
 * columns, of floats: products write a few rows more than there are. */
#ifndef MALC_ATTENTION_H
#define MALC_ATTENTION_H
#include "matmul_few.h"

#if defined(MALC_MATMUL_BF16_H) && MALC_BF16_PATH != MALC_WIDENED
#define MALC_ATTENTION_BLOCKS 1
#else
#define MALC_ATTENTION_BLOCKS 0
#endif

enum {
  MALC_QUERIES = 32, /* lanes: a multiple of MALC_TILE_COLUMNS */
  /* Rows of tiles at the lower edge: with them, no more rows are written than the next multiple of four. */
  MALC_THIRD = MALC_TILE_ROWS % 3 == 0 ? MALC_TILE_ROWS / 3 : 4,
  MALC_TWO_THIRDS = MALC_TILE_ROWS == 4 ? 4 : 2 * MALC_THIRD,
};

/* Vectors in memory, `stride` elements apart, of malc_bf16 where narrow, else of float. */
typedef struct {
  void *data;
  int64_t stride;
  bool narrow;
} malc_vectors;

#define MALC_VECTORS(pointer, stride) \
  ((malc_vectors){ (void *)(pointer), stride, sizeof *(pointer) == sizeof(malc_bf16) })

MALC_INLINE int64_t malc_whole(int64_t count) { return (count + MALC_PANEL - 1) / MALC_PANEL * MALC_PANEL; }

/* A block of queries of one head, while keys pass. */
typedef struct {
  malc_matrix query_columns;  /* right operand, [dim][MALC_QUERIES] */
  float *sum;                 /* [value_dim][MALC_QUERIES], the weighted values */
  float *maximum, *total;     /* [MALC_QUERIES], of scores as powers of 2, and of their weights */
  int64_t position, queries;  /* of the first query, and how many there are */
  int64_t head, first, last;  /* keys [first, last) are seen by some of them */
} malc_query_block;

/* The same of the backward pass. */
typedef struct {
  malc_matrix query_columns, output_columns; /* right operands, [dim][MALC_QUERIES], [value_dim][MALC_QUERIES] of dO */
  malc_matrix query_rows, output_rows;       /* right operands, [MALC_QUERIES][dim], [MALC_QUERIES][value_dim] */
  float *sum;                                /* [dim][MALC_QUERIES], dQ */
  float *normalizer, *shift;                 /* [MALC_QUERIES], the log-sum-exp as powers of 2, and delta */
  int64_t position, queries;
  int64_t head, first, last;
} malc_gradient_block;

/* Blocks of queries in one task, of `all` blocks of each of `heads` key heads: `most`, or so few that every thread has
 * several tasks. */
MALC_INLINE int64_t malc_blocks_at_once(int64_t all, int64_t heads, int64_t most) {
  const int64_t wanted = 4 * omp_get_num_threads(), even = all * heads / wanted;
  return malc_least(even > 1 ? even : 1, most);
}

/* ---- Operands ---- */

/* to[count][width], rows to_stride apart, as floats. */
MALC_SEPARATE void malc_load_vectors(float *restrict to, int64_t to_stride, malc_vectors from, int64_t count,
                                     int64_t width) {
  for (int64_t i = 0; i < count; i++, to += to_stride) {
    if (from.narrow) {
      const malc_bf16 *restrict row = (const malc_bf16 *)from.data + i * from.stride;
#pragma omp simd
      for (int64_t d = 0; d < width; d++) to[d] = malc_widen(row[d]);
    } else {
      const float *restrict row = (const float *)from.data + i * from.stride;
      int64_t d = 0;
      for (; d + MALC_WIDTH <= width; d += MALC_WIDTH) *(malc_unaligned *)(to + d) = *(const malc_unaligned *)(row + d);
      for (; d < width; d++) to[d] = row[d];
    }
  }
}

/* The first `count` vectors of `width` become from[count][width]. */
MALC_SEPARATE void malc_store_rows(malc_vectors to, const float *from, int64_t from_stride, int64_t count,
                                   int64_t width) {
  for (int64_t i = 0; i < count; i++, from += from_stride) {
    if (to.narrow) {
      malc_bf16 *row = (malc_bf16 *)to.data + i * to.stride;
#pragma omp simd
      for (int64_t d = 0; d < width; d++) row[d] = malc_narrow(from[d]);
    } else {
      memcpy((float *)to.data + i * to.stride, from, (size_t)width * sizeof *from);
    }
  }
}

/* The first `count` vectors of `width` become the columns of from[width][MALC_QUERIES]. */
MALC_SEPARATE void malc_store_columns(malc_vectors to, const float *from, int64_t count, int64_t width) {
  if (!to.narrow) malc_transpose(to.data, to.stride, from, MALC_QUERIES, width, count);
  else
    for (int64_t d = 0; d < width; d += MALC_PANEL) {
      float rows[MALC_QUERIES * MALC_PANEL];
      const int64_t wide = malc_least(MALC_PANEL, width - d);
      malc_transpose(rows, MALC_PANEL, from + d * MALC_QUERIES, MALC_QUERIES, wide, count);
      malc_store_rows((malc_vectors){ (malc_bf16 *)to.data + d, to.stride, true }, rows, MALC_PANEL, count, wide);
    }
}

/* to[count][width] = from[count][width], which is added to the first `old` rows. */
MALC_SEPARATE void malc_add_rows(float *restrict to, int64_t to_stride, const float *restrict from, int64_t from_stride,
                                 int64_t count, int64_t old, int64_t width) {
  for (int64_t i = 0; i < old; i++)
#pragma omp simd
    for (int64_t d = 0; d < width; d++) to[i * to_stride + d] += from[i * from_stride + d];
  for (int64_t i = old; i < count; i++)
    memcpy(to + i * to_stride, from + i * from_stride, (size_t)width * sizeof *to);
}

#if MALC_ATTENTION_BLOCKS

MALC_INLINE malc_operand malc_vectors_operand(malc_vectors from) {
  return (malc_operand){ from.data, from.stride, 1, from.narrow };
}

/* Strips of the left operand that from[rows][inner] is, or panels of the right one that its transpose is; row_stride is
 * from each to the next. */
MALC_STATIC malc_matrix malc_pack_operand(float *to, malc_operand from, int64_t rows, int64_t inner, bool is_left) {
  const int64_t steps = malc_steps(inner);
  for (int64_t i = 0; i < rows; i += MALC_STEP)
    malc_pack_steps((malc_pair *)to + i / MALC_STEP * steps * MALC_STEP_PAIRS, malc_operand_from(from, i, 0), rows - i,
                    inner, is_left);
  return (malc_matrix){ to, steps * MALC_STEP_PAIRS, 0 };
}

/* The product of packed operands, of which the inner dimension may be less than was packed. */
MALC_STATIC void malc_multiply_packed(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                      malc_matrix right, int64_t inner, int64_t columns, bool accumulate) {
  const int64_t steps = malc_steps(inner);
  for (int64_t j = 0; j < columns; j += MALC_STEP, right.data += right.row_stride) {
    const float *strip = left.data;
    for (int64_t i = 0; i < rows; i += MALC_STEP, strip += left.row_stride)
      malc_multiply_block(tile + i * tile_stride + j, tile_stride, malc_least(MALC_STEP, rows - i),
                          (const malc_pair *)strip, (const malc_pair *)right.data, steps, accumulate);
  }
}
#endif

/* The left operand of [count][width] that the vectors are. */
MALC_STATIC malc_matrix malc_left_rows(float *to, malc_vectors from, int64_t count, int64_t width, bool blocks) {
  (void)blocks;
#if MALC_ATTENTION_BLOCKS
  if (blocks) return malc_pack_operand(to, malc_vectors_operand(from), count, width, true);
#endif
  const int64_t stride = malc_whole(width);
  malc_load_vectors(to, stride, from, count, width);
  return (malc_matrix){ to, stride, 1 };
}

/* The left operand of [width][count], their transpose. */
MALC_STATIC malc_matrix malc_left_columns(float *to, malc_vectors from, int64_t count, int64_t width, bool blocks) {
  (void)blocks;
#if MALC_ATTENTION_BLOCKS
  if (blocks) return malc_pack_operand(to, malc_transposed(malc_vectors_operand(from)), width, count, true);
#endif
  const int64_t stride = malc_whole(width);
  malc_load_vectors(to, stride, from, count, width);
  return (malc_matrix){ to, 1, stride };
}

/* The same, where the vectors are the left operand `rows` already. */
MALC_STATIC malc_matrix malc_left_transposed(float *to, malc_matrix rows, malc_vectors from, int64_t count,
                                             int64_t width, bool blocks) {
  if (blocks) return malc_left_columns(to, from, count, width, blocks);
  return (malc_matrix){ rows.data, 1, rows.row_stride };
}

/* The right operand of [MALC_QUERIES][width] that `count` vectors are; zeros follow them. */
MALC_STATIC malc_matrix malc_right_rows(float *to, malc_vectors from, int64_t count, int64_t width, bool blocks) {
  (void)blocks;
#if MALC_ATTENTION_BLOCKS
  if (blocks) return malc_pack_operand(to, malc_transposed(malc_vectors_operand(from)), width, count, false);
#endif
  const int64_t stride = malc_whole(width);
  if (count < MALC_QUERIES || width < stride) memset(to, 0, (size_t)(MALC_QUERIES * stride) * sizeof *to);
  malc_load_vectors(to, stride, from, count, width);
  return (malc_matrix){ to, stride, 1 };
}

/* The right operand of [width][MALC_QUERIES] that is the transpose of `count` vectors; zeros follow them. */
MALC_STATIC malc_matrix malc_right_columns(float *to, malc_vectors from, int64_t count, int64_t width, bool blocks) {
  (void)blocks;
#if MALC_ATTENTION_BLOCKS
  if (blocks) return malc_pack_operand(to, malc_vectors_operand(from), count, width, false);
#endif
  if (count < MALC_QUERIES) memset(to, 0, (size_t)(width * MALC_QUERIES) * sizeof *to);
  if (!from.narrow) malc_transpose(to, MALC_QUERIES, from.data, from.stride, count, width);
  else
    for (int64_t d = 0; d < width; d += MALC_PANEL) {
      float wide[MALC_QUERIES * MALC_PANEL];
      const int64_t some = malc_least(MALC_PANEL, width - d);
      malc_load_vectors(wide, MALC_PANEL, (malc_vectors){ (malc_bf16 *)from.data + d, from.stride, true }, count, some);
      malc_transpose(to + d * MALC_QUERIES, MALC_QUERIES, wide, MALC_PANEL, count, some);
    }
  return (malc_matrix){ to, MALC_QUERIES, 1 };
}

/* Weights [keys][MALC_QUERIES], or their gradients, as the left operand that they are. */
MALC_STATIC malc_matrix malc_left_weights(float *to, const float *weights, int64_t keys, bool blocks) {
  (void)to, (void)keys, (void)blocks;
#if MALC_ATTENTION_BLOCKS
  if (blocks) return malc_pack_operand(to, (malc_operand){ weights, MALC_QUERIES, 1, false }, keys, MALC_QUERIES, true);
#endif
  return (malc_matrix){ weights, MALC_QUERIES, 1 };
}

/* The same as the right operand. */
MALC_STATIC malc_matrix malc_right_weights(float *to, const float *weights, int64_t keys, bool blocks) {
  (void)to, (void)keys, (void)blocks;
#if MALC_ATTENTION_BLOCKS
  const malc_operand lanes = { weights, 1, MALC_QUERIES, false };
  if (blocks) return malc_pack_operand(to, lanes, MALC_QUERIES, keys, false);
#endif
  return (malc_matrix){ weights, MALC_QUERIES, 1 };
}

/* ---- Products ---- */

/* `rows`, a compile-time number, x MALC_TILE_COLUMNS elements. */
MALC_INLINE void malc_attention_tile(float *tile, int64_t tile_stride, malc_matrix left, int rows, const float *right,
                                     int64_t right_stride, int64_t inner, bool accumulate) {
  malc_vector sum[MALC_TILE_ROWS][MALC_TILE_VECTORS];
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      if (accumulate) sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
      else sum[i][j] = (malc_vector){ 0 };
  const int64_t apart = left.row_stride;
  const float *from[4]; /* of three rows each, which one register tells apart */
  MALC_UNROLL for (int n = 0; n < 4; n++) from[n] = left.data + 3 * n * apart;
  for (int64_t k = 0; k < inner; k++, right += right_stride) {
    malc_vector panel[MALC_TILE_VECTORS];
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      panel[j] = *(const malc_unaligned *)(right + j * MALC_WIDTH);
    MALC_UNROLL for (int i = 0; i < rows; i++)
      MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) sum[i][j] += from[i / 3][i % 3 * apart] * panel[j];
    MALC_UNROLL for (int n = 0; n < 4; n++) from[n] += left.column_stride;
  }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

/* tile[rows][columns] = left[rows][inner] x right[inner][columns], columns a multiple of MALC_PANEL; with `accumulate`,
 * that is added to the tile. */
MALC_SEPARATE void malc_attention_product(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                          malc_matrix right, int64_t inner, int64_t columns, bool accumulate,
                                          bool blocks) {
  (void)blocks;
#if MALC_ATTENTION_BLOCKS
  if (blocks) {
    malc_multiply_packed(tile, tile_stride, left, rows, right, inner, columns, accumulate);
    return;
  }
#endif
  for (int64_t j = 0; j < columns; j += MALC_TILE_COLUMNS) {
    malc_matrix from = left;
    float *to = tile + j;
    const float *panel = right.data + j;
    int64_t i = 0;
    for (; i + MALC_TILE_ROWS <= rows; i += MALC_TILE_ROWS) {
      malc_attention_tile(to, tile_stride, from, MALC_TILE_ROWS, panel, right.row_stride, inner, accumulate);
      to += MALC_TILE_ROWS * tile_stride;
      from.data += MALC_TILE_ROWS * left.row_stride;
    }
    if (i + MALC_TWO_THIRDS < rows)
      malc_attention_tile(to, tile_stride, from, MALC_TILE_ROWS, panel, right.row_stride, inner, accumulate);
    else if (i + MALC_THIRD < rows)
      malc_attention_tile(to, tile_stride, from, MALC_TWO_THIRDS, panel, right.row_stride, inner, accumulate);
    else if (i < rows)
      malc_attention_tile(to, tile_stride, from, MALC_THIRD, panel, right.row_stride, inner, accumulate);
  }
}
#endif
