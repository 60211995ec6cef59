/* matmul_int8.h - products with right operands of 8-bit numbers, for inference: a quarter of float32's bytes.
 *
 * A weight is number x scale: the scale belongs to a column and to a group of MALC_GROUP rows along the inner
 * dimension, and is its largest magnitude over 127; numbers are rounded to the nearest (symmetric quantization by
 * groups, as in Dettmers and Zettlemoyer, The case for 4-bit precision, 2023). Groups of 64 cost 1/16 of the memory.
 * Panels are of 32 columns; each group of one holds its 32 scales, then words of four rows' numbers of a column, 32
 * columns to a row of words: 128 is added to them, as VPDPBUSD wants one operand without signs. Rows that fill up the
 * last group, and columns that fill up the last panel, are zeros.
 *
 * Few rows stream the panels past. Their left operand becomes numbers of 8 bits too, group by group of each row, so
 * that a group's sum is one of integers: exact, by AVX512-VNNI as by float32 vectors. For many rows a block of a panel
 * is widened to float32, and a left operand of float32 multiplied by it. No result depends on the number of threads. */
#ifndef MALC_MATMUL_INT8_H
#define MALC_MATMUL_INT8_H
#include <math.h>
#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif
#include "matmul_streamed.h"

enum {
  MALC_GROUP = 64,                                            /* rows that share scales */
  MALC_GROUP_WORDS = MALC_PANEL + MALC_GROUP / 4 * MALC_PANEL, /* scales, then numbers */
  MALC_SIGN = 128,                                            /* added to numbers of the right operand */
};

typedef int32_t malc_integers __attribute__((vector_size(4 * MALC_WIDTH)));

MALC_INLINE int64_t malc_groups(int64_t inner) { return (inner + MALC_GROUP - 1) / MALC_GROUP; }

/* Floats, each with room for four numbers, of a packed right operand of [inner][columns]. */
MALC_INLINE int64_t malc_packed_size_int8(int64_t inner, int64_t columns) {
  return malc_groups(inner) * ((columns + MALC_PANEL - 1) / MALC_PANEL) * MALC_GROUP_WORDS;
}

/* ---- Packing ---- */

/* The scale and the numbers of a group. A value that is not finite makes the scale so, and with it the whole group. */
MALC_STATIC void malc_pack_group(float *scale, int8_t numbers[MALC_GROUP], const float values[MALC_GROUP]) {
  float most = 0, unsound = 0; /* the largest magnitude; NaN where one is not finite, else 0 */
#pragma omp simd reduction(max : most) reduction(+ : unsound)
  for (int k = 0; k < MALC_GROUP; k++) {
    const float magnitude = fabsf(values[k]);
    most = magnitude > most ? magnitude : most;
    unsound += values[k] - values[k];
  }
  const float inverse = most > 0 && unsound == 0 ? 127.0f / most : 0.0f;
  *scale = most / 127.0f + unsound;
  for (int k = 0; k < MALC_GROUP; k++) {
    const float number = rintf(values[k] * inverse); /* NaN only where no number counts */
    numbers[k] = (int8_t)(int32_t)(fabsf(number) <= 127.0f ? number : 0.0f);
  }
}

/* Packs inner rows [begin, end) of the panel that starts at `column` of a right operand whose columns are contiguous;
 * `begin` is a multiple of MALC_GROUP. */
MALC_SEPARATE void malc_pack_panel_int8(float *packed, malc_matrix right, int64_t inner, int64_t columns,
                                        int64_t column, int64_t begin, int64_t end) {
  float *group = packed + (column / MALC_PANEL * malc_groups(inner) + begin / MALC_GROUP) * MALC_GROUP_WORDS;
  for (int64_t k = begin; k < end; k += MALC_GROUP, group += MALC_GROUP_WORDS)
    for (int64_t lane = 0; lane < MALC_PANEL; lane++) {
      float values[MALC_GROUP] = { 0 };
      int8_t numbers[MALC_GROUP];
      if (column + lane < columns)
        memcpy(values, right.data + (column + lane) * right.column_stride + k,
               (size_t)malc_least(MALC_GROUP, end - k) * sizeof *values);
      malc_pack_group(&group[lane], numbers, values);
      for (int64_t row = 0; row < MALC_GROUP; row++) numbers[row] ^= (int8_t)MALC_SIGN;
      for (int64_t quad = 0; quad < MALC_GROUP / 4; quad++)
        memcpy(group + (quad + 1) * MALC_PANEL + lane, numbers + 4 * quad, 4);
    }
}

/* ---- Few rows ---- */

/* The numbers of row 4 * quad + n of a group, with MALC_SIGN, from their words. */
MALC_INLINE malc_vector malc_widen_numbers(malc_words words, int n) {
  return __builtin_convertvector((malc_integers)(words >> 8 * n & 0xffu), malc_vector);
}

/* A row of a left operand: the scale of each group, the sum of its numbers, and the numbers. */
typedef struct {
  float *scales, *sums, *numbers;
} malc_few_row;

MALC_INLINE malc_few_row malc_few_row_of(const float *left, int64_t row, int64_t depth) {
  float *scales = (float *)left + row * (depth + 2 * malc_groups(depth)), *sums = scales + malc_groups(depth);
  return (malc_few_row){ scales, sums, sums + malc_groups(depth) };
}

MALC_STATIC void malc_few_left_int8(float *to, malc_matrix left, int64_t rows, int64_t given, int64_t depth) {
  for (int64_t i = 0; i < rows; i++) {
    const malc_few_row row = malc_few_row_of(to, i, depth);
    for (int64_t g = 0; g < malc_groups(depth); g++) {
      const int64_t begin = g * MALC_GROUP, count = malc_least(MALC_GROUP, given - begin);
      const float *from = left.data + i * left.row_stride + begin * left.column_stride;
      float values[MALC_GROUP] = { 0 };
      int8_t numbers[MALC_GROUP];
      int32_t sum = 0;
      if (left.column_stride == 1) memcpy(values, from, (size_t)count * sizeof *values);
      else
        for (int64_t k = 0; k < count; k++) values[k] = from[k * left.column_stride];
      malc_pack_group(&row.scales[g], numbers, values);
      for (int k = 0; k < MALC_GROUP; k++) sum += numbers[k];
      row.sums[g] = (float)sum;
#ifdef __AVX512VNNI__
      memcpy((int8_t *)row.numbers + begin, numbers, MALC_GROUP);
#else
      for (int64_t k = 0; k < MALC_GROUP; k++) row.numbers[begin + k] = numbers[k];
#endif
    }
  }
}

/* sums[rows][MALC_TILE_VECTORS] = a group's products of numbers, with MALC_SIGN: whole numbers below 2^24. */
MALC_INLINE void malc_few_group(malc_vector sums[MALC_FEW_TILE][MALC_TILE_VECTORS], const float *left, int rows,
                                const malc_pair *words, int64_t k, int64_t depth) {
#ifdef __AVX512VNNI__
  __m512i part[MALC_FEW_TILE][MALC_TILE_VECTORS] = { 0 };
#else
  malc_vector part[MALC_FEW_TILE][MALC_TILE_VECTORS] = { 0 };
#endif
  for (int quad = 0; quad < MALC_GROUP / 4; quad++, words += MALC_PANEL)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) {
      const malc_words numbers = *(const malc_unaligned_words *)(words + j * MALC_WIDTH);
      __builtin_prefetch(words + j * MALC_WIDTH + MALC_FEW_AHEAD);
#ifdef __AVX512VNNI__
      MALC_UNROLL for (int i = 0; i < rows; i++) {
        const malc_pair *by = (const malc_pair *)malc_few_row_of(left, i, depth).numbers + k / 4 + quad;
        part[i][j] = _mm512_dpbusd_epi32(part[i][j], (__m512i)numbers, _mm512_set1_epi32((int)*by));
      }
#else
      MALC_UNROLL for (int n = 0; n < 4; n++) {
        const malc_vector right = malc_widen_numbers(numbers, n);
        MALC_UNROLL for (int i = 0; i < rows; i++)
          part[i][j] += malc_few_row_of(left, i, depth).numbers[k + 4 * quad + n] * right;
      }
#endif
    }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
#ifdef __AVX512VNNI__
      sums[i][j] = (malc_vector)_mm512_cvtepi32_ps(part[i][j]);
#else
      sums[i][j] = part[i][j];
#endif
}

/* `rows` is known when this is compiled: the sums stay in registers. */
MALC_INLINE void malc_few_groups(float *tile, int64_t tile_stride, const float *left, int rows, const malc_pair *group,
                                 int64_t column, int64_t depth) {
  malc_vector sum[MALC_FEW_TILE][MALC_TILE_VECTORS];
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
  for (int64_t g = 0; g < malc_groups(depth); g++, group += MALC_GROUP_WORDS) {
    malc_vector whole[MALC_FEW_TILE][MALC_TILE_VECTORS];
    malc_few_group(whole, left, rows, group + MALC_PANEL + column, g * MALC_GROUP, depth);
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) {
      const malc_vector scale = *(const malc_unaligned *)((const float *)group + column + j * MALC_WIDTH);
      MALC_UNROLL for (int i = 0; i < rows; i++) {
        const malc_few_row row = malc_few_row_of(left, i, depth);
        sum[i][j] += (whole[i][j] - (float)MALC_SIGN * row.sums[g]) * (row.scales[g] * scale);
      }
    }
  }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

MALC_SEPARATE void malc_few_kernel_int8(float *tile, int64_t tile_stride, const float *left, int64_t rows,
                                        const malc_pair *panel, int64_t column, int64_t depth) {
  switch (rows) {
    case 1: malc_few_groups(tile, tile_stride, left, 1, panel, column, depth); break;
    case 2: malc_few_groups(tile, tile_stride, left, 2, panel, column, depth); break;
    case 3: malc_few_groups(tile, tile_stride, left, 3, panel, column, depth); break;
    default: malc_few_groups(tile, tile_stride, left, 4, panel, column, depth);
  }
}

/* The words of a packed right operand's panels from `column`, a multiple of MALC_PANEL, on. */
MALC_INLINE const malc_pair *malc_panels_int8(const float *packed, int64_t inner, int64_t column) {
  return (const malc_pair *)packed + column / MALC_PANEL * malc_groups(inner) * MALC_GROUP_WORDS;
}

/* malc_multiply_int8 for rows <= MALC_FEW_ROWS, the left operand rounded to 8 bits. */
MALC_STATIC void malc_multiply_few_int8(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                        const float *packed, int64_t inner, int64_t column, int64_t columns,
                                        float *scratch) {
  malc_multiply_streamed(tile, tile_stride, left, rows, malc_panels_int8(packed, inner, column), MALC_GROUP,
                         MALC_GROUP_WORDS, inner, columns, scratch, malc_few_left_int8,
                         malc_few_kernel_int8);
}

/* ---- Many rows ---- */

/* to[groups * MALC_GROUP][MALC_TILE_COLUMNS] = a panel's columns from `column` on. */
MALC_STATIC void malc_widen_groups(float *to, const malc_pair *group, int64_t column, int64_t groups) {
  for (int64_t n = 0; n < groups; n++, group += MALC_GROUP_WORDS)
    for (int quad = 0; quad < MALC_GROUP / 4; quad++, to += 4 * MALC_TILE_COLUMNS)
      MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) {
        const malc_pair *words = group + (quad + 1) * MALC_PANEL + column + j * MALC_WIDTH;
        const malc_vector scale = *(const malc_unaligned *)((const float *)group + column + j * MALC_WIDTH);
        const malc_words numbers = *(const malc_unaligned_words *)words;
        MALC_UNROLL for (int row = 0; row < 4; row++)
          *(malc_unaligned *)(to + row * MALC_TILE_COLUMNS + j * MALC_WIDTH) =
              (malc_widen_numbers(numbers, row) - (float)MALC_SIGN) * scale;
      }
}

/* tile[rows][columns] = left[rows][inner] x right[inner][column .. column + columns), the right operand packed.
 * `column` is a multiple of MALC_PANEL and inner >= 1; `scratch` holds MALC_SCRATCH floats of this thread's own. */
MALC_SEPARATE void malc_multiply_int8(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                      const float *packed, int64_t inner, int64_t column, int64_t columns,
                                      float *scratch) {
  enum { WIDE = 256, DEEP = MALC_SCRATCH / (WIDE + MALC_STRIP) / MALC_GROUP * MALC_GROUP }; /* of a block in scratch */
  const malc_pair *panels = malc_panels_int8(packed, inner, column);
  const int64_t groups = malc_groups(inner), most = malc_steps_at_once(groups, DEEP / MALC_GROUP);
  float *wide = scratch + DEEP * MALC_STRIP;
  for (int64_t first = 0; first < columns; first += WIDE)
    for (int64_t begin = 0; begin < groups; begin += most) {
      const int64_t width = malc_least(WIDE, columns - first), k = begin * MALC_GROUP;
      const int64_t depth = malc_least(most * MALC_GROUP, inner - k), height = malc_groups(depth) * MALC_GROUP;
      for (int64_t j = first; j < first + width; j += MALC_TILE_COLUMNS)
        malc_widen_groups(wide + (j - first) * height, panels + (j / MALC_PANEL * groups + begin) * MALC_GROUP_WORDS,
                          j % MALC_PANEL, malc_groups(depth));
      const malc_matrix from = { left.data + k * left.column_stride, left.row_stride, left.column_stride };
      malc_multiply_depth(tile + first, tile_stride, from, rows, malc_packed_panels(wide, height, 0), depth, width,
                          scratch, begin > 0);
    }
}
#endif
