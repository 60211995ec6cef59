/* matmul_bf16.h - matrix products of bfloat16 operands with float32 sums, beside those of matmul.h.
 *
 * Operands are float32 in memory and are rounded to bfloat16 while they are packed. The right one becomes tiles of 32 of
 * the inner dimension x 16 columns, two numbers to a word, as AMX's TDPBF16PS multiplies them (Intel, Software
 * Developer's Manual, volume 2). Two tiles side by side are one step of a panel of 32 columns; the inner dimension and
 * the columns are padded with zeros. Three ways to go on from there:
 *
 *   tiles    AMX
 *   pairs    AVX512-BF16, where its VDPBF16PS is the faster way: on Intel's processors since Sapphire Rapids, which have
 *            FP16 besides, it does half of what two fused multiply-adds do in the same time
 *   widened  as float32 again, with the inner loop of matmul.h: everywhere else, and where the system refuses AMX
 *
 * Each adds up an element in the order of the inner dimension: no result depends on the number of threads or on how rows
 * and columns are divided into tasks. From one to another results differ by rounding. */
#ifndef MALC_MATMUL_BF16_H
#define MALC_MATMUL_BF16_H
#include "matmul.h"

#define MALC_WIDENED 0
#define MALC_PAIRS 1
#define MALC_TILES 2
#ifndef MALC_BF16_PATH /* a test may choose another */
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__linux__) /* as gcc and as clang say it */
#define MALC_BF16_PATH MALC_TILES
#elif defined(__AVX512BF16__) && !defined(__AVX512FP16__)
#define MALC_BF16_PATH MALC_PAIRS
#else
#define MALC_BF16_PATH MALC_WIDENED
#endif
#endif

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#ifdef MALC_AMX_EMULATOR /* the intrinsics, and malc_amx_permitted, in plain C: for tests */
#include MALC_AMX_EMULATOR
#elif MALC_BF16_PATH == MALC_TILES
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
  MALC_LANES = 16,       /* of a tile: columns of the right operand, rows of the left one */
  MALC_STEP = 32,        /* of the inner dimension in a tile; lanes of the two tiles of a step */
  MALC_TILE_PAIRS = 256, /* words of a tile */
  MALC_STEP_PAIRS = 2 * MALC_TILE_PAIRS,
};

/* Two bfloat16 numbers, the first in the lower half, in memory that is otherwise used as floats. */
typedef uint32_t malc_pair __attribute__((may_alias));
typedef uint32_t malc_words __attribute__((vector_size(4 * MALC_WIDTH)));
typedef uint32_t malc_unaligned_words __attribute__((vector_size(4 * MALC_WIDTH), aligned(4), may_alias));

MALC_INLINE int64_t malc_steps(int64_t inner) { return (inner + MALC_STEP - 1) / MALC_STEP; }

/* The inner dimension goes by in parts of about the same size, each of `most` steps or less. */
MALC_INLINE int64_t malc_steps_at_once(int64_t steps, int64_t most) {
  const int64_t parts = (steps + most - 1) / most;
  return (steps + parts - 1) / parts;
}

/* ---- Packing ---- */

/* The bfloat16 nearest to a float32, of two equally near the even one, in the upper half of the word. Denormals become
 * zero and NaN becomes quiet, as by VCVTNE2PS2BF16. */
MALC_INLINE uint32_t malc_round_bits(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  const uint32_t number = magnitude > 0x7f800000u ? bits | 0x400000u : nearest;
  return (magnitude < 0x800000u ? bits & 0x80000000u : number) & 0xffff0000u;
}

/* Rounds floats that stay floats. */
MALC_STATIC void malc_round_floats(float *numbers, int64_t count) {
  malc_pair *bits = (malc_pair *)numbers;
  for (int64_t i = 0; i < count; i++) bits[i] = malc_round_bits(bits[i]);
}

#ifdef __AVX512BF16__

/* A 16 x 16 transpose in registers: each turn exchanges the halves off the diagonal of all blocks of 2 * bit lanes. */
MALC_INLINE void malc_transpose_words(__m512i rows[MALC_LANES]) {
  const malc_words lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  MALC_UNROLL for (uint32_t turn = 0; turn < 4; turn++) {
    const uint32_t bit = 1u << turn;
    const malc_words upper = lane + (lane >> turn & 1u) * (MALC_LANES - bit), lower = upper + bit;
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
  const malc_words lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
  const malc_words interleaved = lane * 0x10001u + 0x100000u; /* 0, 16, 1, 17 ... in 16 bits each */
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

/* ---- The product in float32 ---- */

/* to[steps * MALC_STEP][MALC_TILE_COLUMNS] = a panel's columns from `column` on. */
MALC_STATIC void malc_widen_panel(float *to, const malc_pair *panel, int64_t column, int64_t steps) {
  malc_pair *words = (malc_pair *)to;
  for (int64_t step = 0; step < steps; step++, panel += MALC_STEP_PAIRS)
    for (int pair = 0; pair < MALC_LANES; pair++, words += 2 * MALC_TILE_COLUMNS)
      MALC_UNROLL for (int first = 0; first < MALC_TILE_COLUMNS; first += MALC_WIDTH) {
        const int64_t lane = column + first, from = lane / MALC_LANES * MALC_TILE_PAIRS + lane % MALC_LANES;
        const malc_words pairs = *(const malc_unaligned_words *)(panel + pair * MALC_LANES + from);
        *(malc_unaligned_words *)(words + first) = pairs << 16;
        *(malc_unaligned_words *)(words + MALC_TILE_COLUMNS + first) = pairs & 0xffff0000u;
      }
}

/* malc_multiply_bf16 by malc_multiply_tile. */
MALC_SEPARATE void malc_multiply_widened(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                         const malc_pair *packed, int64_t inner, int64_t columns, float *scratch,
                                         bool accumulate) {
  enum { LANES = MALC_ROWS / MALC_TILE_ROWS * MALC_STRIP + MALC_TILE_COLUMNS }; /* of all strips and one panel */
  const int64_t steps = malc_steps(inner), most = malc_steps_at_once(steps, MALC_SCRATCH / (LANES * MALC_STEP));
  float *panel = scratch + MALC_SCRATCH - MALC_TILE_COLUMNS * MALC_STEP * most;
  for (int64_t begin = 0; begin < steps; begin += most, accumulate = true) {
    const int64_t k = begin * MALC_STEP, depth = malc_least(most * MALC_STEP, inner - k);
    for (int64_t i = 0, strip = 0; i < rows; i += MALC_TILE_ROWS, strip += MALC_STRIP) {
      float *to = scratch + strip * depth;
      malc_pack_block(to, MALC_STRIP, MALC_TILE_ROWS, left.data + i * left.row_stride + k * left.column_stride,
                      left.row_stride, left.column_stride, malc_least(MALC_TILE_ROWS, rows - i), depth);
      malc_round_floats(to, MALC_STRIP * depth);
    }
    for (int64_t j = 0; j < columns; j += MALC_TILE_COLUMNS) {
      malc_widen_panel(panel, packed + (j / MALC_STEP * steps + begin) * MALC_STEP_PAIRS, j % MALC_STEP,
                       malc_steps(depth));
      const int64_t width = malc_least(MALC_TILE_COLUMNS, columns - j);
      const float *strip = scratch;
      for (int64_t i = 0; i < rows; i += MALC_TILE_ROWS, strip += MALC_STRIP * depth) {
        float *to = tile + i * tile_stride + j;
        const int64_t height = malc_least(MALC_TILE_ROWS, rows - i);
        if (height == MALC_TILE_ROWS && width == MALC_TILE_COLUMNS)
          malc_multiply_tile(to, tile_stride, strip, panel, MALC_TILE_COLUMNS, depth, accumulate);
        else
          malc_multiply_edge(to, tile_stride, height, width, strip, panel, MALC_TILE_COLUMNS, depth, accumulate);
      }
    }
  }
}

/* ---- The product of pairs ---- */

#if MALC_BF16_PATH == MALC_PAIRS

enum { MALC_MOST_STEPS = 16 }; /* of the inner dimension at once: a panel stays in the first cache */
MALC_INLINE bool malc_begin_blocks(void) { return true; }
MALC_INLINE void malc_end_blocks(void) {}

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

/* The part of a 32 x 32 block that covers `rows` rows. */
MALC_INLINE void malc_multiply_block(float *tile, int64_t tile_stride, int64_t rows, const malc_pair *strip,
                                     const malc_pair *panel, int64_t steps, bool accumulate) {
  for (int64_t i = 0; i < rows; i += 8)
    malc_multiply_pairs(tile + i * tile_stride, tile_stride,
                        strip + i / MALC_LANES * MALC_TILE_PAIRS + i % MALC_LANES * MALC_LANES, panel, steps, accumulate);
}

#elif MALC_BF16_PATH == MALC_TILES

enum { MALC_MOST_STEPS = 64 }; /* of the inner dimension at once: between, sums are stored and loaded */

#ifndef MALC_AMX_EMULATOR
/* Asks the kernel for the tiles' state, which it gives to a process and not to a program (ARCH_REQ_XCOMP_PERM,
 * XFEATURE_XTILEDATA: Linux, Documentation/arch/x86/xstate.rst). */
MALC_STATIC bool malc_amx_permitted(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#endif

/* Makes this thread's eight tiles 16 rows of 64 bytes each. False where the system refuses them. */
MALC_STATIC bool malc_begin_blocks(void) {
  static const struct { uint8_t palette, start, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } tiles = {
    1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 }
  };
  static int permitted = 0; /* 1 yes, -1 no, 0 not asked yet; threads that ask together get the same answer */
  int answer = __atomic_load_n(&permitted, __ATOMIC_RELAXED);
  if (answer == 0) answer = malc_amx_permitted() ? 1 : -1;
  __atomic_store_n(&permitted, answer, __ATOMIC_RELAXED);
  if (answer < 0) return false;
  _tile_loadconfig(&tiles);
  return true;
}

/* Lets go of the tiles, so that they need not be saved when threads take turns. */
MALC_INLINE void malc_end_blocks(void) { _tile_release(); }

/* Fetches one tile that will be loaded soon. */
MALC_INLINE void malc_prefetch_tile(const malc_pair *tile) {
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++) __builtin_prefetch(tile + i * MALC_LANES);
}

/* 32 x 32 elements, or the upper 16 x 32 where `rows` are no more: four tiles of sums, and in each step two tiles of the
 * strip and two of the panel, the fewest loads that eight tiles allow. The step after next is fetched beside the
 * multiplications. The barrier says that memory is read, which gcc's intrinsic for a tile's load does not. */
MALC_SEPARATE void malc_multiply_block(float *tile, int64_t tile_stride, int64_t rows, const malc_pair *strip,
                                       const malc_pair *panel, int64_t steps, bool accumulate) {
  enum { ROW = MALC_LANES * 4, AHEAD = 2 * MALC_STEP_PAIRS };
  const bool lower = rows > MALC_LANES;
  const int64_t bytes = tile_stride * 4;
  float *below = tile + MALC_LANES * tile_stride;
  __asm__ volatile("" ::: "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (accumulate) {
    _tile_loadd(0, tile, bytes);
    _tile_loadd(1, tile + MALC_LANES, bytes);
  }
  if (accumulate && lower) {
    _tile_loadd(2, below, bytes);
    _tile_loadd(3, below + MALC_LANES, bytes);
  }
  for (int64_t step = 0; step < steps; step++, strip += MALC_STEP_PAIRS, panel += MALC_STEP_PAIRS) {
    _tile_loadd(4, strip, ROW);
    _tile_loadd(6, panel, ROW);
    _tile_dpbf16ps(0, 4, 6);
    malc_prefetch_tile(panel + AHEAD);
    _tile_loadd(7, panel + MALC_TILE_PAIRS, ROW);
    _tile_dpbf16ps(1, 4, 7);
    malc_prefetch_tile(panel + AHEAD + MALC_TILE_PAIRS);
    if (!lower) continue;
    _tile_loadd(5, strip + MALC_TILE_PAIRS, ROW);
    _tile_dpbf16ps(2, 5, 6);
    malc_prefetch_tile(strip + AHEAD);
    _tile_dpbf16ps(3, 5, 7);
    malc_prefetch_tile(strip + AHEAD + MALC_TILE_PAIRS);
  }
  _tile_stored(0, tile, bytes);
  _tile_stored(1, tile + MALC_LANES, bytes);
  if (lower) {
    _tile_stored(2, below, bytes);
    _tile_stored(3, below + MALC_LANES, bytes);
  }
}

#endif
#if MALC_BF16_PATH != MALC_WIDENED

/* A block at the lower or right edge, of which only rows x columns elements exist. */
MALC_STATIC void malc_multiply_block_edge(float *tile, int64_t tile_stride, int64_t rows, int64_t columns,
                                          const malc_pair *strip, const malc_pair *panel, int64_t steps,
                                          bool accumulate) {
  float whole[MALC_STEP * MALC_STEP] __attribute__((aligned(64))) = { 0 };
  const size_t row = (size_t)columns * sizeof *tile;
  if (accumulate)
    for (int64_t i = 0; i < rows; i++) memcpy(whole + i * MALC_STEP, tile + i * tile_stride, row);
  malc_multiply_block(whole, MALC_STEP, rows, strip, panel, steps, accumulate);
  for (int64_t i = 0; i < rows; i++) memcpy(tile + i * tile_stride, whole + i * MALC_STEP, row);
}

/* malc_multiply_bf16 in blocks of 32 x 32. The left operand becomes strips of 32 rows: steps of two tiles each. */
MALC_STATIC void malc_multiply_blocks(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                      const malc_pair *packed, int64_t inner, int64_t columns, malc_pair *scratch,
                                      bool accumulate) {
  const int64_t steps = malc_steps(inner), most = malc_steps_at_once(steps, MALC_MOST_STEPS);
  const int64_t height = MALC_SCRATCH / (most * MALC_STEP_PAIRS) * MALC_STEP; /* rows that the scratch has room for */
  for (int64_t top = 0; top < rows; top += height) {
    const int64_t bottom = malc_least(rows, top + height);
    for (int64_t begin = 0; begin < steps; begin += most) {
      const int64_t depth = malc_least(most, steps - begin), k = begin * MALC_STEP;
      malc_pair *strip = scratch;
      for (int64_t i = top; i < bottom; i += MALC_STEP, strip += depth * MALC_STEP_PAIRS)
        malc_pack_steps(strip, left.data + i * left.row_stride + k * left.column_stride, left.row_stride,
                        left.column_stride, bottom - i, malc_least(depth * MALC_STEP, inner - k), true);
      const malc_pair *panel = packed + begin * MALC_STEP_PAIRS;
      for (int64_t j = 0; j < columns; j += MALC_STEP, panel += steps * MALC_STEP_PAIRS) {
        strip = scratch;
        for (int64_t i = top; i < bottom; i += MALC_STEP, strip += depth * MALC_STEP_PAIRS) {
          float *to = tile + i * tile_stride + j;
          const int64_t high = malc_least(MALC_STEP, bottom - i), wide = malc_least(MALC_STEP, columns - j);
          if (high == MALC_STEP && wide == MALC_STEP)
            malc_multiply_block(to, tile_stride, high, strip, panel, depth, accumulate || begin > 0);
          else
            malc_multiply_block_edge(to, tile_stride, high, wide, strip, panel, depth, accumulate || begin > 0);
        }
      }
    }
  }
}

#endif

/* tile[rows][columns] = left[rows][inner] x right[inner][column .. column + columns), the right operand packed; with
 * `accumulate`, that is added to the tile. `column` is a multiple of MALC_PANEL, rows <= MALC_ROWS and inner >= 1;
 * `scratch`, which should start on a cache line, holds MALC_SCRATCH floats of this thread's own. */
MALC_SEPARATE void malc_multiply_bf16(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                      const float *packed, int64_t inner, int64_t column, int64_t columns,
                                      float *scratch, bool accumulate) {
  const malc_pair *panels = (const malc_pair *)packed + column / MALC_STEP * malc_steps(inner) * MALC_STEP_PAIRS;
#if MALC_BF16_PATH != MALC_WIDENED
  if (malc_begin_blocks()) {
    malc_multiply_blocks(tile, tile_stride, left, rows, panels, inner, columns, (malc_pair *)scratch, accumulate);
    malc_end_blocks();
    return;
  }
#endif
  malc_multiply_widened(tile, tile_stride, left, rows, panels, inner, columns, scratch, accumulate);
}
#endif
