/* matmul_bf16.h - matrix products of bfloat16 operands with float32 sums, beside those of matmul.h.
 *
 * Operands are float32 in memory and are rounded to bfloat16 while they are packed. Both become tiles of 16 lanes x 32
 * of the inner dimension, two numbers to a word, as AMX's TDPBF16PS multiplies them (Intel, Software Developer's Manual,
 * volume 2): a lane is a row of the left operand, whose tiles are [16 lanes][16 pairs], or a column of the right one,
 * whose tiles are [16 pairs][16 lanes]. Two tiles side by side are one step of a strip (32 rows) or of a panel (32
 * columns). Rows, columns and the inner dimension are padded with zeros, so that only the edges of results are special.
 *
 * The same tiles serve three inner loops: AMX, AVX512-BF16, and plain C that compilers vectorize. Each adds up an
 * element in the order of the inner dimension: no result depends on the number of threads or on how rows and columns
 * are divided into tasks. From one loop to another results differ by rounding. */
#ifndef MALC_MATMUL_BF16_H
#define MALC_MATMUL_BF16_H
#include "matmul.h"

/* What may be used of the machine: 0 plain C, 1 AVX512-BF16 too, 2 AMX too. What is there, the compiler says. */
#ifndef MALC_BF16_LEVEL
#define MALC_BF16_LEVEL 2
#endif
#if MALC_BF16_LEVEL >= 1 && defined(__AVX512BF16__)
#define MALC_BF16_VECTORS
#include <immintrin.h>
#endif
#if MALC_BF16_LEVEL >= 2 && defined(MALC_AMX_EMULATOR) /* tiles in plain C, and malc_amx_permitted: for tests */
#define MALC_BF16_TILES
#include MALC_AMX_EMULATOR
#elif MALC_BF16_LEVEL >= 2 && defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#define MALC_BF16_TILES
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
  MALC_LANES = 16,       /* of a tile: rows of the left operand, columns of the right one */
  MALC_STEP = 32,        /* of the inner dimension in a tile; lanes of the two tiles of a step */
  MALC_TILE_PAIRS = 256, /* words of a tile */
  MALC_STEP_PAIRS = 2 * MALC_TILE_PAIRS,
  MALC_SCRATCH_STEPS = MALC_SCRATCH / MALC_STEP_PAIRS, /* of strips in a thread's scratch */
#ifdef MALC_BF16_TILES
  MALC_MOST_STEPS = 64, /* of the inner dimension at once: sums are read and written between */
#else
  MALC_MOST_STEPS = 16, /* a panel stays in the first cache while the rows run past */
#endif
  MALC_PAIR_ROWS = MALC_TILE_ROWS >= 8 ? 8 : 4, /* of sums in registers, x MALC_TILE_COLUMNS */
};

/* Two bfloat16 numbers, the first in the lower half, in memory that is otherwise used as floats. */
typedef uint32_t malc_pair __attribute__((may_alias));
typedef uint32_t malc_pairs __attribute__((vector_size(4 * MALC_WIDTH)));
typedef uint32_t malc_unaligned_pairs __attribute__((vector_size(4 * MALC_WIDTH), aligned(4), may_alias));

MALC_INLINE int64_t malc_steps(int64_t inner) { return (inner + MALC_STEP - 1) / MALC_STEP; }

/* ---- Packing ---- */

/* The bfloat16 nearest to a float32, of two equally near the even one, in the upper half of the word. Denormals become
 * zero and NaN becomes quiet, as by VCVTNE2PS2BF16. */
MALC_INLINE uint32_t malc_round_bits(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  const uint32_t number = magnitude > 0x7f800000u ? bits | 0x400000u : nearest;
  return (magnitude < 0x800000u ? bits & 0x80000000u : number) & 0xffff0000u;
}

#ifdef MALC_BF16_VECTORS

/* A 16 x 16 transpose in registers: each turn exchanges the halves off the diagonal of all blocks of 2 * bit lanes. */
MALC_INLINE void malc_transpose_words(__m512i rows[MALC_LANES]) {
  const malc_pairs lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  MALC_UNROLL for (uint32_t turn = 0; turn < 4; turn++) {
    const uint32_t bit = 1u << turn;
    const malc_pairs upper = lane + (lane >> turn & 1u) * (MALC_LANES - bit), lower = upper + bit;
    MALC_UNROLL for (uint32_t i = 0; i < MALC_LANES; i++) {
      if (i & bit) continue;
      const __m512i a = rows[i], b = rows[i | bit];
      rows[i] = _mm512_permutex2var_epi32(a, (__m512i)upper, b);
      rows[i | bit] = _mm512_permutex2var_epi32(a, (__m512i)lower, b);
    }
  }
}

/* A whole tile of a source whose lanes lie `stride` apart, each contiguous; or of one whose rows along the inner
 * dimension lie `stride` apart, each holding its lanes contiguously. `transposed`: in the other order than the source. */
MALC_INLINE void malc_pack_whole(malc_pair *to, const float *from, int64_t stride, bool by_lane, bool transposed) {
  const malc_pairs lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  const malc_pairs interleaved = lane * 0x10001u + 0x100000u; /* 0, 16, 1, 17 ... in 16 bits each */
  __m512i rows[MALC_LANES];
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) {
    const float *first = from + (by_lane ? i : 2 * i) * stride;
    const float *second = first + (by_lane ? MALC_LANES : stride);
    rows[i] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(second), _mm512_loadu_ps(first));
    if (!by_lane) rows[i] = _mm512_permutexvar_epi16((__m512i)interleaved, rows[i]);
  }
  if (transposed) malc_transpose_words(rows);
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) _mm512_storeu_si512(to + i * MALC_LANES, rows[i]);
}

#else

/* The same in plain C. */
MALC_INLINE void malc_pack_whole(malc_pair *to, const float *from, int64_t stride, bool by_lane, bool transposed) {
  malc_pair words[MALC_TILE_PAIRS];
  malc_pair *rows = transposed ? words : to;
  for (int i = 0; i < MALC_LANES; i++) {
    const malc_pair *first = (const malc_pair *)from + (by_lane ? i : 2 * i) * stride;
    for (int n = 0; n < MALC_LANES; n++) {
      const uint32_t even = by_lane ? first[2 * n] : first[n], odd = by_lane ? first[2 * n + 1] : first[stride + n];
      rows[i * MALC_LANES + n] = malc_round_bits(even) >> 16 | malc_round_bits(odd);
    }
  }
  if (transposed) malc_transpose((float *)to, MALC_LANES, (const float *)words, MALC_LANES, MALC_LANES, MALC_LANES);
}

#endif

/* One tile: element (lane, k) is from[lane * lane_stride + k * depth_stride]; zeros follow the first `lanes` lanes, which
 * may be none, and the first `depth` of the inner dimension. by_lane: as the left operand's tiles are. */
MALC_SEPARATE void malc_pack_pairs(malc_pair *to, const float *from, int64_t lane_stride, int64_t depth_stride,
                                   int64_t lanes, int64_t depth, bool by_lane) {
  float whole[MALC_LANES * MALC_STEP];
  if (lanes < MALC_LANES || depth < MALC_STEP || (lane_stride != 1 && depth_stride != 1)) {
    memset(whole, 0, sizeof whole);
    for (int64_t lane = 0; lane < malc_least(lanes, MALC_LANES); lane++)
      for (int64_t k = 0; k < malc_least(depth, MALC_STEP); k++)
        whole[lane * MALC_STEP + k] = from[lane * lane_stride + k * depth_stride];
    from = whole;
    lane_stride = MALC_STEP;
    depth_stride = 1;
  }
  if (depth_stride == 1 && by_lane) malc_pack_whole(to, from, lane_stride, true, false);
  else if (depth_stride == 1) malc_pack_whole(to, from, lane_stride, true, true);
  else if (by_lane) malc_pack_whole(to, from, depth_stride, false, true);
  else malc_pack_whole(to, from, depth_stride, false, false);
}

/* All steps of a strip or of a panel, or a run of them. */
MALC_STATIC void malc_pack_steps(malc_pair *to, const float *from, int64_t lane_stride, int64_t depth_stride,
                                 int64_t lanes, int64_t depth, bool by_lane) {
  for (int64_t k = 0; k < depth; k += MALC_STEP)
    for (int64_t lane = 0; lane < MALC_STEP; lane += MALC_LANES, to += MALC_TILE_PAIRS)
      malc_pack_pairs(to, from + lane * lane_stride + k * depth_stride, lane_stride, depth_stride, lanes - lane,
                      depth - k, by_lane);
}

/* Floats, each with room for two numbers, of a packed right operand of [inner][columns]. */
MALC_INLINE int64_t malc_packed_size_bf16(int64_t inner, int64_t columns) {
  return malc_steps(inner) * malc_steps(columns) * MALC_STEP_PAIRS;
}

/* Packs a right operand of [inner][columns] into malc_packed_size_bf16 floats, which should start on a cache line. Every
 * thread of a parallel region calls it; they share the work, and the caller puts the barrier that must follow. */
MALC_STATIC void malc_pack_bf16(float *packed, malc_matrix right, int64_t inner, int64_t columns) {
  enum { rows = 4 * MALC_STEP };
  const int64_t steps = malc_steps(inner);
#pragma omp for collapse(2) nowait
  for (int64_t begin = 0; begin < inner; begin += rows)
    for (int64_t column = 0; column < columns; column += MALC_STEP)
      malc_pack_steps((malc_pair *)packed + (column / MALC_STEP * steps + begin / MALC_STEP) * MALC_STEP_PAIRS,
                      right.data + begin * right.row_stride + column * right.column_stride, right.column_stride,
                      right.row_stride, columns - column, malc_least(rows, inner - begin), false);
}

/* ---- The product ---- */

/* sum + left x right, two products in each lane. */
MALC_INLINE malc_vector malc_add_pairs(malc_vector sum, malc_pairs left, malc_pairs right) {
#ifdef MALC_BF16_VECTORS
  return (malc_vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
#else
  sum += (malc_vector)(left & 0xffff0000u) * (malc_vector)(right & 0xffff0000u);
  return sum + (malc_vector)(left << 16) * (malc_vector)(right << 16);
#endif
}

/* MALC_PAIR_ROWS x MALC_TILE_COLUMNS elements, whose sums stay in registers. `strip` starts at the first of the rows,
 * `panel` at the panel; `column` counts from there. */
MALC_SEPARATE void malc_multiply_pairs(float *tile, int64_t tile_stride, const malc_pair *strip, const malc_pair *panel,
                                       int64_t column, int64_t steps, bool accumulate) {
  malc_vector sum[MALC_PAIR_ROWS][MALC_TILE_VECTORS];
  const malc_pair *lanes[MALC_TILE_VECTORS];
  MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) {
    const int64_t first = column + j * MALC_WIDTH;
    lanes[j] = panel + first / MALC_LANES * MALC_TILE_PAIRS + first % MALC_LANES;
  }
  MALC_UNROLL for (int i = 0; i < MALC_PAIR_ROWS; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      if (accumulate) sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
      else sum[i][j] = (malc_vector){ 0 };
  for (int64_t step = 0; step < steps * MALC_STEP_PAIRS; step += MALC_STEP_PAIRS)
    for (int64_t pair = step; pair < step + MALC_LANES; pair++) {
      malc_pairs right[MALC_TILE_VECTORS];
      MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
        right[j] = *(const malc_unaligned_pairs *)(lanes[j] + step + (pair - step) * MALC_LANES);
      MALC_UNROLL for (int i = 0; i < MALC_PAIR_ROWS; i++) {
        const malc_pairs left = strip[i * MALC_LANES + pair] | (malc_pairs){ 0 };
        MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) sum[i][j] = malc_add_pairs(sum[i][j], left, right[j]);
      }
    }
  MALC_UNROLL for (int i = 0; i < MALC_PAIR_ROWS; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

#ifdef MALC_BF16_TILES

#ifndef MALC_AMX_EMULATOR
/* Asks the kernel for the tiles' state, which it gives to a process and not to a program (ARCH_REQ_XCOMP_PERM,
 * XFEATURE_XTILEDATA: Linux, Documentation/arch/x86/xstate.rst). */
MALC_STATIC bool malc_amx_permitted(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#endif

/* Makes this thread's eight tiles 16 rows of 64 bytes each. False where the kernel has refused them. */
MALC_STATIC bool malc_amx_begin(void) {
  static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } tiles = { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 } };
  enum { UNKNOWN, PERMITTED, REFUSED };
  static int permission = UNKNOWN; /* of the process: threads that ask at the same time get the same answer */
  int known = __atomic_load_n(&permission, __ATOMIC_RELAXED);
  if (known == UNKNOWN) {
    known = malc_amx_permitted() ? PERMITTED : REFUSED;
    __atomic_store_n(&permission, known, __ATOMIC_RELAXED);
  }
  if (known == REFUSED) return false;
  _tile_loadconfig(&tiles);
  return true;
}

/* Fetches one tile that will be loaded soon. */
MALC_INLINE void malc_prefetch_tile(const malc_pair *tile) {
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) __builtin_prefetch(tile + i * MALC_LANES);
}

/* 32 x 32 elements: four tiles of sums, and in each step two tiles of the strip and two of the panel, the fewest loads
 * that eight tiles allow. The next step but one is fetched beside the multiplications. The barriers tell the compiler
 * that tiles are loaded from memory, which the intrinsics of some do not. */
MALC_SEPARATE void malc_multiply_tiles(float *tile, int64_t tile_stride, const malc_pair *strip, const malc_pair *panel,
                                       int64_t steps, bool accumulate) {
  enum { ROW = MALC_LANES * 4, AHEAD = 2 * MALC_STEP_PAIRS };
  const int64_t bytes = tile_stride * 4;
  float *below = tile + MALC_LANES * tile_stride;
  __asm__ volatile("" ::: "memory");
  if (accumulate) {
    _tile_loadd(0, tile, bytes);
    _tile_loadd(1, tile + MALC_LANES, bytes);
    _tile_loadd(2, below, bytes);
    _tile_loadd(3, below + MALC_LANES, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; step++, strip += MALC_STEP_PAIRS, panel += MALC_STEP_PAIRS) {
    _tile_loadd(4, strip, ROW);
    _tile_loadd(6, panel, ROW);
    _tile_dpbf16ps(0, 4, 6);
    malc_prefetch_tile(panel + AHEAD);
    _tile_loadd(7, panel + MALC_TILE_PAIRS, ROW);
    _tile_dpbf16ps(1, 4, 7);
    malc_prefetch_tile(panel + AHEAD + MALC_TILE_PAIRS);
    _tile_loadd(5, strip + MALC_TILE_PAIRS, ROW);
    _tile_dpbf16ps(2, 5, 6);
    malc_prefetch_tile(strip + AHEAD);
    _tile_dpbf16ps(3, 5, 7);
    malc_prefetch_tile(strip + AHEAD + MALC_TILE_PAIRS);
  }
  _tile_stored(0, tile, bytes);
  _tile_stored(1, tile + MALC_LANES, bytes);
  _tile_stored(2, below, bytes);
  _tile_stored(3, below + MALC_LANES, bytes);
  __asm__ volatile("" ::: "memory");
}

#endif

/* The part of a 32 x 32 block that covers rows x columns, by AMX or else in registers. */
MALC_INLINE void malc_multiply_block(float *tile, int64_t tile_stride, int64_t rows, int64_t columns,
                                     const malc_pair *strip, const malc_pair *panel, int64_t steps, bool accumulate,
                                     bool amx) {
#ifdef MALC_BF16_TILES
  if (amx) {
    malc_multiply_tiles(tile, tile_stride, strip, panel, steps, accumulate);
    return;
  }
#else
  (void)amx;
#endif
  for (int64_t i = 0; i < rows; i += MALC_PAIR_ROWS)
    for (int64_t j = 0; j < columns; j += MALC_TILE_COLUMNS)
      malc_multiply_pairs(tile + i * tile_stride + j, tile_stride,
                          strip + i / MALC_LANES * MALC_TILE_PAIRS + i % MALC_LANES * MALC_LANES, panel, j, steps,
                          accumulate);
}

/* A block at the lower or right edge, of which only rows x columns elements exist. */
MALC_STATIC void malc_multiply_block_edge(float *tile, int64_t tile_stride, int64_t rows, int64_t columns,
                                          const malc_pair *strip, const malc_pair *panel, int64_t steps,
                                          bool accumulate, bool amx) {
  float whole[MALC_STEP * MALC_STEP] __attribute__((aligned(64))) = { 0 };
  const size_t row = (size_t)columns * sizeof *tile;
  if (accumulate)
    for (int64_t i = 0; i < rows; i++) memcpy(whole + i * MALC_STEP, tile + i * tile_stride, row);
  malc_multiply_block(whole, MALC_STEP, rows, columns, strip, panel, steps, accumulate, amx);
  for (int64_t i = 0; i < rows; i++) memcpy(tile + i * tile_stride, whole + i * MALC_STEP, row);
}

/* tile[rows][columns] = left[rows][inner] x right[inner][column .. column + columns), the right operand packed; with
 * `accumulate`, that is added to the tile. `column` is a multiple of MALC_PANEL, rows <= MALC_ROWS and inner >= 1;
 * `scratch`, which should start on a cache line, holds MALC_SCRATCH floats of this thread's own. */
MALC_SEPARATE void malc_multiply_bf16(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                      const float *packed, int64_t inner, int64_t column, int64_t columns,
                                      float *scratch, bool accumulate) {
  const int64_t steps = malc_steps(inner), parts = (steps + MALC_MOST_STEPS - 1) / MALC_MOST_STEPS;
  const int64_t most = (steps + parts - 1) / parts, at_once = MALC_SCRATCH_STEPS / most * MALC_STEP;
  malc_pair *strips = (malc_pair *)scratch;
#ifdef MALC_BF16_TILES
  const bool amx = malc_amx_begin();
#else
  const bool amx = false;
#endif
  for (int64_t top = 0; top < rows; top += at_once) {
    const int64_t bottom = malc_least(rows, top + at_once);
    for (int64_t begin = 0; begin < steps; begin += most) {
      const int64_t depth = malc_least(most, steps - begin);
      const bool add = accumulate || begin > 0;
      for (int64_t i = top; i < bottom; i += MALC_STEP)
        malc_pack_steps(strips + (i - top) / MALC_STEP * depth * MALC_STEP_PAIRS,
                        left.data + i * left.row_stride + begin * MALC_STEP * left.column_stride, left.row_stride,
                        left.column_stride, bottom - i, malc_least(depth * MALC_STEP, inner - begin * MALC_STEP), true);
      const malc_pair *panel = (const malc_pair *)packed + (column / MALC_STEP * steps + begin) * MALC_STEP_PAIRS;
      for (int64_t j = 0; j < columns; j += MALC_STEP, panel += steps * MALC_STEP_PAIRS) {
        const malc_pair *strip = strips;
        for (int64_t i = top; i < bottom; i += MALC_STEP, strip += depth * MALC_STEP_PAIRS) {
          float *to = tile + i * tile_stride + j;
          const int64_t height = malc_least(MALC_STEP, bottom - i), width = malc_least(MALC_STEP, columns - j);
          if (height == MALC_STEP && width == MALC_STEP)
            malc_multiply_block(to, tile_stride, height, width, strip, panel, depth, add, amx);
          else
            malc_multiply_block_edge(to, tile_stride, height, width, strip, panel, depth, add, amx);
        }
      }
    }
  }
#ifdef MALC_BF16_TILES
  if (amx) _tile_release(); /* so that nothing of them need be saved when threads change */
#endif
}
#endif
