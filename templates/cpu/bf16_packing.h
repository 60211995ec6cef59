/* bf16_packing.h - operands of bfloat16 products, and the tiles that they are packed into.
 *
 * An operand lies in memory as bfloat16, or as float32 that is rounded while it is packed. A step of a packed
 * operand is 32 lanes (columns of the right operand, rows of the left one) by 32 of the inner dimension: two tiles
 * of 16 lanes each, two numbers to a word, as AMX's TDPBF16PS multiplies them (Intel, Software Developer's Manual,
 * volume 2). A tile of the left operand holds its lanes one after the other, one of the right operand its pairs of
 * the inner dimension. Lanes and inner dimension are padded with zeros. */
#ifndef MALC_BF16_PACKING_H
#define MALC_BF16_PACKING_H
#include "matmul.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum {
  MALC_LANES = 16,       /* of a tile */
  MALC_STEP = 32,        /* of the inner dimension in a tile; lanes of the two tiles of a step */
  MALC_TILE_PAIRS = 256, /* words of a tile */
  MALC_STEP_PAIRS = 2 * MALC_TILE_PAIRS,
};

/* Element (i, j) is number i * row_stride + j * column_stride; one of the strides should be 1. */
typedef struct {
  const void *data; /* malc_bf16 if narrow, else float */
  int64_t row_stride, column_stride;
  bool narrow;
} malc_operand;

/* Two bfloat16 numbers, the first in the lower half, in memory that is otherwise used as floats. */
typedef uint32_t malc_pair __attribute__((may_alias));

/* Words beside a vector of floats. */
typedef uint32_t malc_words __attribute__((vector_size(4 * MALC_WIDTH)));
typedef uint32_t malc_unaligned_words __attribute__((vector_size(4 * MALC_WIDTH), aligned(4), may_alias));

MALC_INLINE int64_t malc_steps(int64_t inner) { return (inner + MALC_STEP - 1) / MALC_STEP; }

/* The inner dimension goes by in parts of about the same size, each of `most` steps or less. */
MALC_INLINE int64_t malc_steps_at_once(int64_t steps, int64_t most) {
  const int64_t parts = (steps + most - 1) / most;
  return (steps + parts - 1) / parts;
}

MALC_INLINE int64_t malc_number_bytes(bool narrow) { return narrow ? sizeof(malc_bf16) : sizeof(float); }

/* The operand from element (row, column) on. */
MALC_INLINE malc_operand malc_operand_from(malc_operand operand, int64_t row, int64_t column) {
  const int64_t place = row * operand.row_stride + column * operand.column_stride;
  operand.data = (const char *)operand.data + place * malc_number_bytes(operand.narrow);
  return operand;
}

/* A matrix of floats as an operand. */
MALC_INLINE malc_operand malc_floats(malc_matrix matrix) {
  return (malc_operand){ matrix.data, matrix.row_stride, matrix.column_stride, false };
}

MALC_INLINE malc_operand malc_transposed(malc_operand operand) {
  return (malc_operand){ operand.data, operand.column_stride, operand.row_stride, operand.narrow };
}

/* Copies a block of results, most often one at an edge. */
MALC_INLINE void malc_copy_block(float *to, int64_t to_stride, const float *from, int64_t from_stride, int64_t rows,
                                 int64_t columns) {
  for (int64_t i = 0; i < rows; i++) memcpy(to + i * to_stride, from + i * from_stride, (size_t)columns * sizeof *to);
}

/* Number `i` of an operand's data. */
MALC_INLINE malc_bf16 malc_number(const void *data, int64_t i, bool narrow) {
  return narrow ? ((const malc_bf16 *)data)[i] : malc_narrow(((const float *)data)[i]);
}

/* ---- One step ---- */

#ifdef __AVX512BF16__

/* A 16 x 16 transpose in registers: each turn exchanges the halves off the diagonal of all blocks of 2 * bit lanes. */
MALC_INLINE void malc_transpose_words(__m512i rows[MALC_LANES]) {
  typedef uint32_t words __attribute__((vector_size(64)));
  const words lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  MALC_UNROLL for (uint32_t turn = 0; turn < 4; turn++) {
    const uint32_t bit = 1u << turn;
    const words upper = lane + (lane >> turn & 1u) * (MALC_LANES - bit), lower = upper + bit;
    MALC_UNROLL for (uint32_t i = 0; i < MALC_LANES; i++) {
      if (i & bit) continue;
      const __m512i a = rows[i], b = rows[i | bit];
      rows[i] = _mm512_permutex2var_epi32(a, (__m512i)upper, b);
      rows[i | bit] = _mm512_permutex2var_epi32(a, (__m512i)lower, b);
    }
  }
}

/* A tile's rows. */
MALC_INLINE void malc_store_tile(malc_pair *to, __m512i rows[MALC_LANES], bool transposed) {
  if (transposed) malc_transpose_words(rows);
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) _mm512_storeu_si512(to + i * MALC_LANES, rows[i]);
}

/* Numbers [i, i + 32) of an operand's data. */
MALC_INLINE __m512i malc_load_numbers(const void *data, int64_t i, bool narrow) {
  if (narrow) return _mm512_loadu_si512((const malc_bf16 *)data + i);
  const float *from = (const float *)data + i;
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + MALC_LANES), _mm512_loadu_ps(from));
}

/* A whole step of a source whose lanes lie `stride` apart, each contiguous along the inner dimension. `transposed`:
 * pair by pair, as the right operand's tiles are. */
MALC_INLINE void malc_pack_deep(malc_pair *to, const void *data, int64_t stride, bool narrow, bool transposed) {
  for (int64_t lane = 0; lane < MALC_STEP; lane += MALC_LANES) {
    __m512i rows[MALC_LANES];
    MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) rows[i] = malc_load_numbers(data, (lane + i) * stride, narrow);
    malc_store_tile(to + lane * MALC_LANES, rows, transposed);
  }
}

/* A whole step of a source whose rows along the inner dimension lie `stride` apart, each holding its lanes
 * contiguously. `transposed`: lane by lane, as the left operand's tiles are. */
MALC_INLINE void malc_pack_wide(malc_pair *to, const void *data, int64_t stride, bool narrow, bool transposed) {
  typedef uint32_t words __attribute__((vector_size(64)));
  const words lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  const words first = lane * 0x10001u + 0x200000u; /* 0, 32, 1, 33 ... in 16 bits each: lanes of two rows in turn */
  const words second = first + 0x100010u;
  malc_pair *below = to + MALC_TILE_PAIRS;
  __m512i upper[MALC_LANES], lower[MALC_LANES];
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) {
    const __m512i even = malc_load_numbers(data, 2 * i * stride, narrow);
    const __m512i odd = malc_load_numbers(data, (2 * i + 1) * stride, narrow);
    upper[i] = _mm512_permutex2var_epi16(even, (__m512i)first, odd);
    lower[i] = _mm512_permutex2var_epi16(even, (__m512i)second, odd);
    if (transposed) continue;
    _mm512_storeu_si512(to + i * MALC_LANES, upper[i]);
    _mm512_storeu_si512(below + i * MALC_LANES, lower[i]);
  }
  if (!transposed) return;
  malc_store_tile(to, upper, true);
  malc_store_tile(below, lower, true);
}

#else

/* The same in plain C: from word to word of a tile, before it is transposed, numbers are `next` apart and a word's
 * two `apart`. */
MALC_INLINE void malc_pack_plain(malc_pair *to, const void *data, int64_t stride, int64_t next, int64_t apart,
                                 int64_t tile, bool narrow, bool transposed) {
  malc_pair words[MALC_TILE_PAIRS];
  for (int half = 0; half < 2; half++, to += MALC_TILE_PAIRS) {
    malc_pair *rows = transposed ? words : to;
    for (int i = 0; i < MALC_LANES; i++)
      for (int n = 0; n < MALC_LANES; n++) {
        const int64_t place = half * tile + i * stride + n * next;
        rows[i * MALC_LANES + n] =
            malc_number(data, place, narrow) | (uint32_t)malc_number(data, place + apart, narrow) << 16;
      }
    if (transposed) malc_transpose((float *)to, MALC_LANES, (const float *)words, MALC_LANES, MALC_LANES, MALC_LANES);
  }
}
MALC_INLINE void malc_pack_deep(malc_pair *to, const void *data, int64_t stride, bool narrow, bool transposed) {
  malc_pack_plain(to, data, stride, 2, 1, MALC_LANES * stride, narrow, transposed);
}
MALC_INLINE void malc_pack_wide(malc_pair *to, const void *data, int64_t stride, bool narrow, bool transposed) {
  malc_pack_plain(to, data, 2 * stride, 1, stride, MALC_LANES, narrow, transposed);
}
#endif

/* `narrow` is a compile-time number, as packing a whole step has no time for questions. */
MALC_INLINE void malc_pack_whole(malc_pair *to, malc_operand from, bool narrow, bool by_lane) {
  if (from.column_stride == 1 && by_lane) malc_pack_deep(to, from.data, from.row_stride, narrow, false);
  else if (from.column_stride == 1) malc_pack_deep(to, from.data, from.row_stride, narrow, true);
  else if (by_lane) malc_pack_wide(to, from.data, from.column_stride, narrow, true);
  else malc_pack_wide(to, from.data, from.column_stride, narrow, false);
}

/* One step of from[lane][inner]. Zeros follow the first `lanes` lanes and the first `depth` of the inner dimension, and
 * not a byte beyond those is read. by_lane: as the left operand's tiles are. */
MALC_SEPARATE void malc_pack_step(malc_pair *to, malc_operand from, int64_t lanes, int64_t depth, bool by_lane) {
  malc_bf16 whole[MALC_STEP * MALC_STEP] __attribute__((aligned(64)));
  if (lanes < MALC_STEP || depth < MALC_STEP || (from.row_stride != 1 && from.column_stride != 1)) {
    const bool wide = from.row_stride == 1;
    const malc_operand source = wide ? malc_transposed(from) : from; /* its rows are contiguous, most often */
    const int64_t rows = malc_least(wide ? depth : lanes, MALC_STEP);
    const int64_t columns = malc_least(wide ? lanes : depth, MALC_STEP);
    memset(whole, 0, sizeof whole);
    for (int64_t i = 0; i < rows; i++) {
      const void *data = malc_operand_from(source, i, 0).data;
      malc_bf16 *copy = whole + i * MALC_STEP;
      if (source.narrow && source.column_stride == 1) memcpy(copy, data, (size_t)columns * sizeof *copy);
      else
        for (int64_t j = 0; j < columns; j++) copy[j] = malc_number(data, j * source.column_stride, source.narrow);
    }
    from = (malc_operand){ whole, wide ? 1 : MALC_STEP, wide ? MALC_STEP : 1, true };
  }
  if (from.narrow) malc_pack_whole(to, from, true, by_lane);
  else malc_pack_whole(to, from, false, by_lane);
}

/* ---- Strips and panels ---- */

/* All steps of a strip or of a panel, or a run of them: from[lane][inner]. */
MALC_STATIC void malc_pack_steps(malc_pair *to, malc_operand from, int64_t lanes, int64_t depth, bool by_lane) {
  for (int64_t k = 0; k < depth; k += MALC_STEP, to += MALC_STEP_PAIRS)
    malc_pack_step(to, malc_operand_from(from, 0, k), lanes, depth - k, by_lane);
}

/* Floats, each with room for two numbers, of a packed right operand of [inner][columns]. */
MALC_INLINE int64_t malc_packed_size_bf16(int64_t inner, int64_t columns) {
  return malc_steps(inner) * malc_steps(columns) * MALC_STEP_PAIRS;
}

/* Packs inner rows [begin, end) of the panel that starts at `column`; `begin` is a multiple of MALC_STEP. */
MALC_STATIC void malc_pack_panel_bf16(float *packed, malc_operand right, int64_t inner, int64_t columns, int64_t column,
                                      int64_t begin, int64_t end) {
  const int64_t step = column / MALC_STEP * malc_steps(inner) + begin / MALC_STEP;
  malc_pack_steps((malc_pair *)packed + step * MALC_STEP_PAIRS,
                  malc_transposed(malc_operand_from(right, begin, column)), columns - column, end - begin, false);
}

/* Packs a right operand of [inner][columns] into malc_packed_size_bf16 floats, which should start on a cache line.
 * Every thread of a parallel region calls it; they share the work, and the caller puts the barrier that must follow.
 * What is contiguous in memory is read one after the other: rows step by step over all panels, columns panel by
 * panel. */
MALC_STATIC void malc_pack_bf16(float *packed, malc_operand right, int64_t inner, int64_t columns) {
  enum { DEEP = 4 * MALC_STEP };
  if (right.column_stride == 1) {
#pragma omp for collapse(2) schedule(dynamic, 16) nowait
    for (int64_t begin = 0; begin < inner; begin += MALC_STEP)
      for (int64_t column = 0; column < columns; column += MALC_STEP)
        malc_pack_panel_bf16(packed, right, inner, columns, column, begin, malc_least(inner, begin + MALC_STEP));
    return;
  }
#pragma omp for collapse(2) schedule(dynamic, 4) nowait
  for (int64_t column = 0; column < columns; column += MALC_STEP)
    for (int64_t begin = 0; begin < inner; begin += DEEP)
      malc_pack_panel_bf16(packed, right, inner, columns, column, begin, malc_least(inner, begin + DEEP));
}
#endif
