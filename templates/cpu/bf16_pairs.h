/* bf16_pairs.h - the product of packed bfloat16 operands by AVX512-BF16: two multiplications to an instruction, 8 x
 * 32 sums in registers. Both operands are packed as bf16_packing.h says. */
#ifndef MALC_BF16_PAIRS_H
#define MALC_BF16_PAIRS_H
#include "bf16_packing.h"

enum { MALC_PAIR_STEPS = 16 }; /* most of the inner dimension at once: a panel stays in the first cache */

/* 8 x 32 elements, whose sums stay in registers; `strip` starts at the first of the rows. */
MALC_SEPARATE void malc_multiply_pairs(float *tile, int64_t tile_stride, const malc_pair *strip, const malc_pair *panel,
                                       int64_t steps, bool accumulate) {
  __m512 sum[8][2];
  MALC_UNROLL for (int i = 0; i < 8; i++)
    MALC_UNROLL for (int j = 0; j < 2; j++)
      sum[i][j] = accumulate ? _mm512_loadu_ps(tile + i * tile_stride + j * MALC_LANES) : _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; step++, strip += MALC_STEP_PAIRS, panel += MALC_STEP_PAIRS)
    for (int pair = 0; pair < MALC_LANES; pair++) {
      __m512bh right[2];
      MALC_UNROLL for (int j = 0; j < 2; j++)
        right[j] = (__m512bh)_mm512_loadu_si512(panel + j * MALC_TILE_PAIRS + pair * MALC_LANES);
      MALC_UNROLL for (int i = 0; i < 8; i++) {
        const __m512bh left = (__m512bh)_mm512_set1_epi32((int)strip[i * MALC_LANES + pair]);
        MALC_UNROLL for (int j = 0; j < 2; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
      }
    }
  MALC_UNROLL for (int i = 0; i < 8; i++)
    MALC_UNROLL for (int j = 0; j < 2; j++) _mm512_storeu_ps(tile + i * tile_stride + j * MALC_LANES, sum[i][j]);
}

/* The part of a 32 x 32 block that covers `rows` rows, or up to seven more: a packed strip by a panel. */
MALC_INLINE void malc_multiply_block(float *tile, int64_t tile_stride, int64_t rows, const malc_pair *strip,
                                     const malc_pair *panel, int64_t steps, bool accumulate) {
  for (int64_t i = 0; i < rows; i += 8)
    malc_multiply_pairs(tile + i * tile_stride, tile_stride, strip + i * MALC_LANES, panel, steps, accumulate);
}

/* malc_multiply_bf16 by AVX512-BF16: as many strips at a time as the scratch has room for, then panel by panel. */
MALC_STATIC void malc_multiply_by_pairs(float *tile, int64_t tile_stride, malc_operand left, int64_t rows,
                                        const malc_pair *panels, int64_t inner, int64_t columns, malc_pair *scratch,
                                        bool accumulate) {
  const int64_t steps = malc_steps(inner), most = malc_steps_at_once(steps, MALC_PAIR_STEPS);
  const int64_t height = MALC_SCRATCH / (most * MALC_STEP_PAIRS) * MALC_STEP;
  for (int64_t top = 0; top < rows; top += height)
    for (int64_t begin = 0; begin < steps; begin += most) {
      const int64_t bottom = malc_least(rows, top + height), at_once = malc_least(most, steps - begin);
      const int64_t k = begin * MALC_STEP, depth = malc_least(at_once * MALC_STEP, inner - k);
      const bool add = accumulate || begin > 0;
      malc_pair *strip = scratch;
      for (int64_t i = top; i < bottom; i += MALC_STEP, strip += at_once * MALC_STEP_PAIRS)
        malc_pack_steps(strip, malc_operand_from(left, i, k), bottom - i, depth, true);
      const malc_pair *panel = panels + begin * MALC_STEP_PAIRS;
      for (int64_t j = 0; j < columns; j += MALC_STEP, panel += steps * MALC_STEP_PAIRS) {
        strip = scratch;
        for (int64_t i = top; i < bottom; i += MALC_STEP, strip += at_once * MALC_STEP_PAIRS) {
          const int64_t high = malc_least(MALC_STEP, bottom - i), wide = malc_least(MALC_STEP, columns - j);
          float whole[MALC_STEP * MALC_STEP] __attribute__((aligned(64))), *to = tile + i * tile_stride + j;
          if (high % 8 == 0 && wide == MALC_STEP) {
            malc_multiply_block(to, tile_stride, high, strip, panel, at_once, add);
            continue;
          }
          if (add) malc_copy_block(whole, MALC_STEP, to, tile_stride, high, wide);
          malc_multiply_block(whole, MALC_STEP, high, strip, panel, at_once, add);
          malc_copy_block(to, tile_stride, whole, MALC_STEP, high, wide);
        }
      }
    }
}
#endif
