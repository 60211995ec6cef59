/* bf16_tiles.h - the product of bfloat16 operands by AMX's tiles: 2 x 2 tiles of sums, which is one load of a tile
 * for each multiplication and the least that eight tiles allow.
 *
 * Strips of 32 rows pass through the first cache while the panels of a call stay in the second. A strip is loaded
 * from where the left operand lies, if that is bfloat16 in contiguous rows, else packed first. Vector instructions
 * and fetches are free beside TDPBF16PS, other loads of tiles are not: what will be loaded is fetched early. */
#ifndef MALC_BF16_TILES_H
#define MALC_BF16_TILES_H
#include "bf16_packing.h"
#ifdef MALC_AMX_EMULATOR /* the intrinsics, and malc_amx_permitted, in plain C: for tests */
#include MALC_AMX_EMULATOR
#else
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
  MALC_MOST_STEPS = 80,   /* of the inner dimension at once: a packed strip of them is within MALC_SCRATCH */
  MALC_CHUNK_STEPS = 64,  /* at most, where it is divided: between, sums are stored and loaded */
  MALC_DIRECT_PANELS = 8, /* up to so many, loading a strip's scattered rows costs less than packing them first */
};

/* ---- Tiles of a thread ---- */

#ifndef MALC_AMX_EMULATOR
/* Asks the kernel for the tiles' state, which it gives to a process and not to a program (ARCH_REQ_XCOMP_PERM,
 * XFEATURE_XTILEDATA: Linux, Documentation/arch/x86/xstate.rst). */
MALC_STATIC bool malc_amx_permitted(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#endif

/* Whether the system lets this process use tiles. */
MALC_STATIC bool malc_has_tiles(void) {
  static int permitted = 0; /* 1 yes, -1 no, 0 not asked yet; threads that ask together get the same answer */
  int answer = __atomic_load_n(&permitted, __ATOMIC_RELAXED);
  if (answer == 0) {
    answer = malc_amx_permitted() ? 1 : -1;
    __atomic_store_n(&permitted, answer, __ATOMIC_RELAXED);
  }
  return answer > 0;
}

/* Makes this thread's eight tiles 16 rows of 64 bytes each. */
MALC_STATIC void malc_configure_tiles(void) {
  static const struct { uint8_t palette, start, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } tiles = {
    1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 }
  };
  _tile_loadconfig(&tiles);
}

/* ---- A block ---- */

/* Where a strip's tiles are: the upper 16 rows and the lower ones, the bytes between two rows and between two steps. */
typedef struct {
  const char *upper, *lower;
  int64_t row, step;
} malc_strip_tiles;

/* Fetches a tile's rows. Where their distance is not a compile-time number, the compiler would compute 15 multiples
 * of it before a loop, for which there are no registers: the barrier makes it add instead. */
MALC_INLINE void malc_fetch_tile(const char *tile, int64_t row) {
  MALC_UNROLL for (int i = 0; i < MALC_LANES; i++, tile += row) {
    if (!__builtin_constant_p(row)) __asm__("" : "+r"(tile));
    __builtin_prefetch(tile);
  }
}

/* 32 x 32 elements or, where a compile-time `lower` is false, 16 x 32. The step after next is fetched beside the
 * multiplications. The barrier says that memory is read, which gcc's intrinsic for a tile's load does not. */
MALC_INLINE void malc_sum_tiles(float *tile, int64_t tile_stride, malc_strip_tiles strip, const malc_pair *panel,
                                int64_t steps, bool accumulate, bool lower) {
  enum { ROW = MALC_LANES * 4, TILE = MALC_LANES * ROW, STEP = 2 * TILE, AHEAD = 2 };
  const int64_t bytes = tile_stride * (int64_t)sizeof *tile;
  const char *right = (const char *)panel;
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
  for (int64_t step = 0; step < steps; step++) {
    _tile_loadd(4, strip.upper, strip.row);
    _tile_loadd(6, right, ROW);
    _tile_dpbf16ps(0, 4, 6);
    malc_fetch_tile(right + AHEAD * STEP, ROW);
    _tile_loadd(7, right + TILE, ROW);
    _tile_dpbf16ps(1, 4, 7);
    malc_fetch_tile(right + AHEAD * STEP + TILE, ROW);
    if (lower) {
      _tile_loadd(5, strip.lower, strip.row);
      _tile_dpbf16ps(2, 5, 6);
      malc_fetch_tile(strip.upper + AHEAD * strip.step, strip.row);
      _tile_dpbf16ps(3, 5, 7);
      malc_fetch_tile(strip.lower + AHEAD * strip.step, strip.row);
    }
    strip.upper += strip.step;
    strip.lower += strip.step;
    right += STEP;
  }
  _tile_stored(0, tile, bytes);
  _tile_stored(1, tile + MALC_LANES, bytes);
  if (lower) {
    _tile_stored(2, below, bytes);
    _tile_stored(3, below + MALC_LANES, bytes);
  }
}

/* The part of a 32 x 32 block that covers `rows` rows, rounded up to 16 or 32. */
MALC_SEPARATE void malc_multiply_in_tiles(float *tile, int64_t tile_stride, int64_t rows, malc_strip_tiles strip,
                                          const malc_pair *panel, int64_t steps, bool accumulate) {
  if (rows > MALC_LANES) malc_sum_tiles(tile, tile_stride, strip, panel, steps, accumulate, true);
  else malc_sum_tiles(tile, tile_stride, strip, panel, steps, accumulate, false);
}

MALC_INLINE malc_strip_tiles malc_packed_tiles(const malc_pair *strip) {
  enum { ROW = MALC_LANES * sizeof *strip, TILE = MALC_TILE_PAIRS * sizeof *strip };
  return (malc_strip_tiles){ (const char *)strip, (const char *)strip + TILE, ROW, 2 * TILE };
}

/* malc_multiply_in_tiles of a packed strip. */
MALC_INLINE void malc_multiply_block(float *tile, int64_t tile_stride, int64_t rows, const malc_pair *strip,
                                     const malc_pair *panel, int64_t steps, bool accumulate) {
  malc_multiply_in_tiles(tile, tile_stride, rows, malc_packed_tiles(strip), panel, steps, accumulate);
}

/* ---- The product ---- */

/* Whether a strip is better loaded from where it lies. Rows that are an odd number of cache lines apart fall into
 * different sets of the first cache, and are as good as packed ones. */
MALC_INLINE bool malc_loads_directly(malc_operand left, int64_t inner, int64_t columns) {
  if (!left.narrow || left.column_stride != 1 || inner % MALC_STEP != 0) return false;
  return columns <= MALC_DIRECT_PANELS * MALC_STEP || left.row_stride % (2 * MALC_STEP) == MALC_STEP;
}

MALC_INLINE malc_strip_tiles malc_tiles_in_place(malc_operand left) {
  enum { NUMBER = sizeof(malc_bf16) };
  const char *lower = malc_operand_from(left, MALC_LANES, 0).data;
  return (malc_strip_tiles){ left.data, lower, left.row_stride * NUMBER, MALC_STEP * NUMBER };
}

/* Brings a share of the next strip's `depth` numbers a row into the second cache: part `part` of `parts`. */
MALC_STATIC void malc_fetch_strip(malc_operand strip, int64_t depth, int64_t part, int64_t parts) {
  enum { LINE = 64 };
  const bool wide = strip.column_stride != 1;
  const int64_t number = malc_number_bytes(strip.narrow), rows = wide ? depth : MALC_STEP;
  const int64_t apart = (wide ? strip.column_stride : strip.row_stride) * number;
  const int64_t bytes = (wide ? MALC_STEP : depth) * number;
  for (int64_t i = part * rows / parts; i < (part + 1) * rows / parts; i++)
    for (int64_t byte = 0; byte < bytes; byte += LINE)
      __builtin_prefetch((const char *)strip.data + i * apart + byte, 0, 2);
}

/* Fetches the 32 x 32 elements that the next block loads or stores. */
MALC_INLINE void malc_fetch_block(const float *tile, int64_t tile_stride) {
  for (int i = 0; i < MALC_STEP; i++) {
    __builtin_prefetch(tile + i * tile_stride, 1);
    __builtin_prefetch(tile + i * tile_stride + MALC_LANES, 1);
  }
}

/* malc_multiply_bf16 by tiles: strip by strip, each with all panels. */
MALC_STATIC void malc_multiply_by_tiles(float *tile, int64_t tile_stride, malc_operand left, int64_t rows,
                                        const malc_pair *panels, int64_t inner, int64_t columns, malc_pair *scratch,
                                        bool accumulate) {
  const int64_t steps = malc_steps(inner), count = malc_steps(columns);
  const int64_t most = steps <= MALC_MOST_STEPS ? steps : malc_steps_at_once(steps, MALC_CHUNK_STEPS);
  const bool direct = malc_loads_directly(left, inner, columns);
  for (int64_t begin = 0; begin < steps; begin += most) {
    const int64_t at_once = malc_least(most, steps - begin), k = begin * MALC_STEP;
    const int64_t depth = malc_least(at_once * MALC_STEP, inner - k);
    const bool add = accumulate || begin > 0;
    for (int64_t i = 0; i < rows; i += MALC_STEP) {
      const malc_operand part = malc_operand_from(left, i, k);
      const int64_t high = malc_least(MALC_STEP, rows - i);
      const bool packs = !direct || high % MALC_LANES != 0;
      if (packs) malc_pack_steps(scratch, part, high, depth, true);
      const malc_strip_tiles strip = packs ? malc_packed_tiles(scratch) : malc_tiles_in_place(part);
      const bool more = i + 2 * MALC_STEP <= rows;
      const malc_operand next = malc_operand_from(part, MALC_STEP, 0);
      for (int64_t n = 0; n < count; n++) {
        const int64_t j = n * MALC_STEP, wide = malc_least(MALC_STEP, columns - j);
        const malc_pair *panel = panels + (n * steps + begin) * MALC_STEP_PAIRS;
        float whole[MALC_STEP * MALC_STEP] __attribute__((aligned(64))), *to = tile + i * tile_stride + j;
        if (more) malc_fetch_strip(next, depth, n, count);
        if (high == MALC_STEP && n + 1 < count) malc_fetch_block(to + MALC_STEP, tile_stride);
        if (high % MALC_LANES == 0 && wide == MALC_STEP) {
          malc_multiply_in_tiles(to, tile_stride, high, strip, panel, at_once, add);
          continue;
        }
        if (add) malc_copy_block(whole, MALC_STEP, to, tile_stride, high, wide);
        malc_multiply_in_tiles(whole, MALC_STEP, high, strip, panel, at_once, add);
        malc_copy_block(to, tile_stride, whole, MALC_STEP, high, wide);
      }
    }
  }
}
#endif
