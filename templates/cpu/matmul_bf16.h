/* matmul_bf16.h - matrix products of bfloat16 operands with float32 sums, beside those of matmul.h.
 *
 * Operands lie in memory as bfloat16, or as float32 and are rounded while they are packed (bf16_packing.h). Three
 * ways to go on from there:
 *
 *   tiles    AMX (bf16_tiles.h)
 *   pairs    AVX512-BF16 (bf16_pairs.h), where its VDPBF16PS is the faster way: on Intel's processors since Sapphire
 *            Rapids, which have FP16 besides, it does half of what two fused multiply-adds do in the same time
 *   widened  as float32 again, with the inner loop of matmul.h: everywhere else, and where the system refuses AMX
 *
 * Each adds up an element in the order of the inner dimension: no result depends on the number of threads, on how
 * rows and columns are divided into tasks, or on how rounded numbers lie in memory. From one to another results
 * differ by rounding. */
#ifndef MALC_MATMUL_BF16_H
#define MALC_MATMUL_BF16_H
#include "bf16_packing.h"

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

#if MALC_BF16_PATH == MALC_TILES
#include "bf16_tiles.h"
#elif MALC_BF16_PATH == MALC_PAIRS
#include "bf16_pairs.h"
#endif

/* ---- The product in float32 ---- */

/* to[steps * MALC_STEP][MALC_TILE_COLUMNS] = a panel's columns from `column` on. */
MALC_STATIC void malc_widen_panel(float *to, const malc_pair *panel, int64_t column, int64_t steps) {
  for (int64_t step = 0; step < steps; step++, panel += MALC_STEP_PAIRS)
    for (int pair = 0; pair < MALC_LANES; pair++, to += 2 * MALC_TILE_COLUMNS)
      MALC_UNROLL for (int first = 0; first < MALC_TILE_COLUMNS; first += MALC_WIDTH) {
        const int64_t lane = column + first, from = lane / MALC_LANES * MALC_TILE_PAIRS + lane % MALC_LANES;
        const malc_words pairs = *(const malc_unaligned_words *)(panel + pair * MALC_LANES + from);
        *(malc_unaligned_words *)(to + first) = pairs << 16;
        *(malc_unaligned_words *)(to + MALC_TILE_COLUMNS + first) = pairs & 0xffff0000u;
      }
}

/* to[depth][MALC_STRIP] = left[rows][depth]^T as bfloat16 numbers; `rows` is MALC_TILE_ROWS but in the last strip. */
MALC_STATIC void malc_widen_strip(float *to, malc_operand left, int64_t rows, int64_t depth) {
  enum { PIECE = 64 };
  float piece[MALC_TILE_ROWS * PIECE];
  if (!left.narrow) {
    malc_pack_block(to, MALC_STRIP, MALC_TILE_ROWS, left.data, left.row_stride, left.column_stride, rows, depth);
    for (int64_t i = 0; i < MALC_STRIP * depth; i++) to[i] = malc_widen(malc_narrow(to[i]));
    return;
  }
  const malc_bf16 *from = left.data;
  if (left.row_stride == 1 && rows == MALC_TILE_ROWS) {
    for (int64_t k = 0; k < depth; k++)
      for (int i = 0; i < MALC_TILE_ROWS; i++) to[k * MALC_STRIP + i] = malc_widen(from[k * left.column_stride + i]);
    return;
  }
  for (int64_t k = 0; k < depth; k += PIECE) {
    const int64_t count = malc_least(PIECE, depth - k);
    for (int64_t i = 0; i < rows; i++)
      for (int64_t n = 0; n < count; n++)
        piece[i * PIECE + n] = malc_widen(from[i * left.row_stride + (k + n) * left.column_stride]);
    malc_pack_block(to + k * MALC_STRIP, MALC_STRIP, MALC_TILE_ROWS, piece, PIECE, 1, rows, count);
  }
}

/* malc_multiply_bf16 by malc_multiply_tile, MALC_ROWS rows at a time. */
MALC_SEPARATE void malc_multiply_widened(float *tile, int64_t tile_stride, malc_operand left, int64_t rows,
                                         const malc_pair *panels, int64_t inner, int64_t columns, float *scratch,
                                         bool accumulate) {
  enum { LANES = MALC_ROWS / MALC_TILE_ROWS * MALC_STRIP + MALC_TILE_COLUMNS }; /* of all strips and one panel */
  const int64_t steps = malc_steps(inner), most = malc_steps_at_once(steps, MALC_SCRATCH / (LANES * MALC_STEP));
  float *panel = scratch + MALC_SCRATCH - MALC_TILE_COLUMNS * MALC_STEP * most;
  for (int64_t top = 0; top < rows; top += MALC_ROWS)
    for (int64_t begin = 0; begin < steps; begin += most) {
      const int64_t bottom = malc_least(rows, top + MALC_ROWS), k = begin * MALC_STEP;
      const int64_t depth = malc_least(most * MALC_STEP, inner - k);
      const bool add = accumulate || begin > 0;
      float *strip = scratch;
      for (int64_t i = top; i < bottom; i += MALC_TILE_ROWS, strip += MALC_STRIP * depth)
        malc_widen_strip(strip, malc_operand_from(left, i, k), malc_least(MALC_TILE_ROWS, bottom - i), depth);
      for (int64_t j = 0; j < columns; j += MALC_TILE_COLUMNS) {
        const int64_t width = malc_least(MALC_TILE_COLUMNS, columns - j);
        malc_widen_panel(panel, panels + (j / MALC_STEP * steps + begin) * MALC_STEP_PAIRS, j % MALC_STEP,
                         malc_steps(depth));
        strip = scratch;
        for (int64_t i = top; i < bottom; i += MALC_TILE_ROWS, strip += MALC_STRIP * depth) {
          float *to = tile + i * tile_stride + j;
          const int64_t height = malc_least(MALC_TILE_ROWS, bottom - i);
          if (height == MALC_TILE_ROWS && width == MALC_TILE_COLUMNS)
            malc_multiply_tile(to, tile_stride, strip, panel, MALC_TILE_COLUMNS, depth, add);
          else
            malc_multiply_edge(to, tile_stride, height, width, strip, panel, MALC_TILE_COLUMNS, depth, add);
        }
      }
    }
}

/* ---- The product ---- */

/* Rows that a task multiplies and finishes at once, so that they are still in the cache: a block, or enough that
 * widening the panels again for each of them costs little. */
#if MALC_BF16_PATH == MALC_WIDENED
#define MALC_BLOCK_ROWS MALC_ROWS
#else
#define MALC_BLOCK_ROWS MALC_STEP
#endif

#if MALC_BF16_PATH == MALC_TILES
MALC_INLINE bool malc_has_blocks(void) { return malc_has_tiles(); }
#else
MALC_INLINE bool malc_has_blocks(void) { return MALC_BF16_PATH == MALC_PAIRS; }
#endif

/* A thread's products in blocks begin: each thread calls it once in a parallel region that has such products. False
 * where the machine has no blocks, and products are widened. */
MALC_STATIC bool malc_begin_blocks(void) {
  if (!malc_has_blocks()) return false;
#if MALC_BF16_PATH == MALC_TILES
  malc_configure_tiles();
#endif
  return true;
}

/* They end, and with them what malc_begin_blocks changed. Tiles that nobody holds need not be saved when threads take
 * turns. */
MALC_STATIC void malc_end_blocks(void) {
  if (!malc_has_blocks()) return;
#if MALC_BF16_PATH == MALC_TILES
  _tile_release();
#endif
}

/* Divides a product of a packed right operand into tasks of `most` at most: as many columns, a multiple of `step`, as
 * fill half of the second cache with the panels of a part of the inner dimension; so few rows that every thread gets
 * several tasks, in whole blocks. The panels are read again for each task of rows, the left operand for each task of
 * columns. */
MALC_STATIC malc_task malc_divide_blocks(int64_t rows, int64_t columns, int64_t step, int64_t inner, malc_task most) {
  enum { PANELS = 1 << 19, PART = 2048, TASKS = 4 }; /* numbers of panels; of the inner dimension */
  const int64_t fit = PANELS / malc_least(PART, inner), bound = malc_least(most.columns, fit) / step * step;
  const int64_t chunks = (columns + (bound > 0 ? bound : step) - 1) / (bound > 0 ? bound : step);
  const int64_t runs = (columns + step - 1) / step, width = (runs + chunks - 1) / chunks * step;
  const int64_t wanted = (TASKS * omp_get_num_threads() + chunks - 1) / chunks, even = (rows + wanted - 1) / wanted;
  return (malc_task){ malc_least(malc_steps(even) * MALC_STEP, most.rows), width };
}

/* tile[rows][columns] = left[rows][inner] x right[inner][column .. column + columns), the right operand packed; with
 * `accumulate`, that is added to the tile. `column` is a multiple of MALC_PANEL and inner >= 1; rows may be any
 * number. `scratch`, which should start on a cache line, holds MALC_SCRATCH floats of this thread's own. Between
 * malc_begin_blocks and malc_end_blocks. */
MALC_SEPARATE void malc_multiply_bf16(float *tile, int64_t tile_stride, malc_operand left, int64_t rows,
                                      const float *packed, int64_t inner, int64_t column, int64_t columns,
                                      float *scratch, bool accumulate) {
  const malc_pair *panels = (const malc_pair *)packed + column / MALC_STEP * malc_steps(inner) * MALC_STEP_PAIRS;
#if MALC_BF16_PATH == MALC_TILES
  if (malc_has_blocks())
    malc_multiply_by_tiles(tile, tile_stride, left, rows, panels, inner, columns, (malc_pair *)scratch, accumulate);
#elif MALC_BF16_PATH == MALC_PAIRS
  malc_multiply_by_pairs(tile, tile_stride, left, rows, panels, inner, columns, (malc_pair *)scratch, accumulate);
#endif
  if (!malc_has_blocks())
    malc_multiply_widened(tile, tile_stride, left, rows, panels, inner, columns, scratch, accumulate);
}
#endif
