/* matmul.h - the float32 matrix product of generated programs: packed and register-tiled, for any SIMD width.
 *
 * A product left x right is made of tiles of MALC_TILE_ROWS x MALC_TILE_COLUMNS elements that stay in registers while
 * the inner dimension runs past (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008). Two
 * copies make the inner loop read contiguous memory only: the right operand becomes panels, [depth][MALC_TILE_COLUMNS]
 * each, which stay in the second cache; the left one strips, [depth][MALC_STRIP] each, of which one at a time is in the
 * first cache while all panels pass by. Each task makes both for itself: what another thread has packed would come from
 * memory that all share, which costs more than packing again.
 *
 * Every element is one chain of multiply-adds in the order of the inner dimension: no result depends on the number of
 * threads or on how rows and columns are divided into tasks. The vectors are GNU C's, understood by gcc and clang. */
#ifndef MALC_MATMUL_H
#define MALC_MATMUL_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else /* one thread does all, and the pragmas mean nothing */
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
static inline void omp_set_num_threads(int threads) { (void)threads; }
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { MALC_WIDTH = 16, MALC_TILE_ROWS = 12 };
#elif defined(__AVX2__) && defined(__FMA__)
enum { MALC_WIDTH = 8, MALC_TILE_ROWS = 6 };
#elif defined(__ARM_NEON)
enum { MALC_WIDTH = 4, MALC_TILE_ROWS = 8 };
#else
enum { MALC_WIDTH = 4, MALC_TILE_ROWS = 4 };
#endif
enum {
  MALC_TILE_VECTORS = 2,
  MALC_TILE_COLUMNS = MALC_TILE_VECTORS * MALC_WIDTH,
  MALC_STRIP = (MALC_TILE_ROWS + 3) / 4 * 4, /* strips are written four rows at a time */
  MALC_FEW_TILE = 4, /* rows at once in products of few rows */
};

/* These do not depend on the machine, so that memory can be planned without knowing it. */
#define MALC_PANEL 32      /* packed operands are padded to a multiple of this many columns */
#define MALC_STRIP_MOST 12 /* no machine's MALC_STRIP is more */
#define MALC_ROWS 96       /* a multiple of every MALC_TILE_ROWS: rows at once where strips of them are kept */
#define MALC_DEPTH 384     /* most of the inner dimension at once: a strip and a panel stay in the first two caches */
#define MALC_SCRATCH 49152 /* floats of thread-private scratch: strips of MALC_ROWS x MALC_DEPTH, with their padding */
#define MALC_FEW_ROWS 8    /* up to here, the products of matmul_few.h are the faster ones */

/* Element (i, j) is data[i * row_stride + j * column_stride]; one of the strides should be 1. */
typedef struct {
  const float *data;
  int64_t row_stride, column_stride;
} malc_matrix;

/* What one task of a product computes at most. */
typedef struct {
  int64_t rows, columns;
} malc_task;

typedef float malc_vector __attribute__((vector_size(4 * MALC_WIDTH)));
typedef float malc_unaligned __attribute__((vector_size(4 * MALC_WIDTH), aligned(4), may_alias));
typedef float malc_quad __attribute__((vector_size(16)));
typedef float malc_unaligned_quad __attribute__((vector_size(16), aligned(4), may_alias));

/* MALC_SEPARATE functions are worth one copy only: with a copy for every caller's constants, compiling would take
 * several times as long, for code that is no faster. */
#ifdef __clang__
#define MALC_SEPARATE static __attribute__((noinline, unused))
#define MALC_UNROLL _Pragma("unroll")
#define MALC_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define MALC_SEPARATE static __attribute__((noinline, noclone, unused))
#define MALC_UNROLL _Pragma("GCC unroll 16")
#define MALC_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (int32_t __attribute__((vector_size(16)))){ i, j, k, l })
#endif
#define MALC_STATIC static __attribute__((unused))
#define MALC_INLINE static inline __attribute__((always_inline, unused))

MALC_INLINE int64_t malc_least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- bfloat16 in memory: the upper half of a float32 ---- */

typedef uint16_t malc_bf16;

/* The bfloat16 nearest to a float32, of two equally near the even one, in the upper half of the word. Denormals become
 * zero and NaN becomes quiet, as by VCVTNEPS2BF16 (Intel, Software Developer's Manual, volume 2). */
MALC_INLINE uint32_t malc_round_bits(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  const uint32_t number = magnitude > 0x7f800000u ? bits | 0x400000u : nearest;
  return (magnitude < 0x800000u ? bits & 0x80000000u : number) & 0xffff0000u;
}

/* Both vectorise in loops. */
MALC_INLINE float malc_widen(malc_bf16 number) {
  const union { uint32_t bits; float number; } wide = { .bits = (uint32_t)number << 16 };
  return wide.number;
}
MALC_INLINE malc_bf16 malc_narrow(float number) {
  const union { float number; uint32_t bits; } wide = { .number = number };
  return (malc_bf16)(malc_round_bits(wide.bits) >> 16);
}

/* ---- Transposing and packing ---- */

/* A 4 x 4 transpose in registers. */
MALC_INLINE void malc_transpose_quads(malc_quad rows[4]) {
  const malc_quad a = MALC_SHUFFLE(rows[0], rows[1], 0, 4, 1, 5), b = MALC_SHUFFLE(rows[0], rows[1], 2, 6, 3, 7);
  const malc_quad c = MALC_SHUFFLE(rows[2], rows[3], 0, 4, 1, 5), d = MALC_SHUFFLE(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = MALC_SHUFFLE(a, c, 0, 1, 4, 5);
  rows[1] = MALC_SHUFFLE(a, c, 2, 3, 6, 7);
  rows[2] = MALC_SHUFFLE(b, d, 0, 1, 4, 5);
  rows[3] = MALC_SHUFFLE(b, d, 2, 3, 6, 7);
}

#ifdef __AVX512F__
enum { MALC_SQUARE = 16 };

/* to[j][i] = from[i][j] for 4 * `quads` rows, at most MALC_SQUARE, of MALC_SQUARE columns: quads of four rows each are
 * transposed, and then the quads themselves. */
MALC_INLINE void malc_transpose_square(float *to, int64_t to_stride, const float *from, int64_t from_stride,
                                       int quads) {
  const __mmask16 lanes = (__mmask16)((1u << 4 * quads) - 1);
  __m512 quad[4][4]; /* lane l of quad[q][n] is column 4 l + n of the rows from 4 q on */
  MALC_UNROLL for (int q = 0; q < 4; q++) {
    __m512 rows[4];
    MALC_UNROLL for (int n = 0; n < 4; n++)
      rows[n] = q < quads ? _mm512_loadu_ps(from + (4 * q + n) * from_stride) : _mm512_setzero_ps();
    const __m512d a = (__m512d)_mm512_unpacklo_ps(rows[0], rows[1]), b = (__m512d)_mm512_unpackhi_ps(rows[0], rows[1]);
    const __m512d c = (__m512d)_mm512_unpacklo_ps(rows[2], rows[3]), d = (__m512d)_mm512_unpackhi_ps(rows[2], rows[3]);
    quad[q][0] = (__m512)_mm512_unpacklo_pd(a, c);
    quad[q][1] = (__m512)_mm512_unpackhi_pd(a, c);
    quad[q][2] = (__m512)_mm512_unpacklo_pd(b, d);
    quad[q][3] = (__m512)_mm512_unpackhi_pd(b, d);
  }
  MALC_UNROLL for (int n = 0; n < 4; n++, to += to_stride) {
    const __m512 a = _mm512_shuffle_f32x4(quad[0][n], quad[1][n], 0x44);
    const __m512 b = _mm512_shuffle_f32x4(quad[2][n], quad[3][n], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(quad[0][n], quad[1][n], 0xee);
    const __m512 d = _mm512_shuffle_f32x4(quad[2][n], quad[3][n], 0xee);
    _mm512_mask_storeu_ps(to, lanes, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_mask_storeu_ps(to + 4 * to_stride, lanes, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_mask_storeu_ps(to + 8 * to_stride, lanes, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_mask_storeu_ps(to + 12 * to_stride, lanes, _mm512_shuffle_f32x4(c, d, 0xdd));
  }
}
#endif

/* to[j][i] = from[i][j] for from[rows][columns]. */
MALC_SEPARATE void malc_transpose(float *to, int64_t to_stride, const float *from, int64_t from_stride, int64_t rows,
                                  int64_t columns) {
  int64_t done = 0;
#ifdef __AVX512F__
  const int64_t squares = columns / MALC_SQUARE * MALC_SQUARE;
  for (; rows - done >= MALC_TILE_ROWS; done += malc_least(rows - done, MALC_SQUARE) / 4 * 4)
    for (int64_t j = 0; j < squares; j += MALC_SQUARE) {
      const float *source = from + done * from_stride + j;
      float *target = to + j * to_stride + done;
      if (rows - done >= MALC_SQUARE) malc_transpose_square(target, to_stride, source, from_stride, 4);
      else malc_transpose_square(target, to_stride, source, from_stride, 3);
    }
  for (int64_t i = 0; i < done; i++)
    for (int64_t j = squares; j < columns; j++) to[j * to_stride + i] = from[i * from_stride + j];
#endif
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t i = done; i < whole_rows; i += 4) {
    for (int64_t j = 0; j < whole_columns; j += 4) {
      malc_quad quads[4];
      for (int n = 0; n < 4; n++) quads[n] = *(const malc_unaligned_quad *)(from + (i + n) * from_stride + j);
      malc_transpose_quads(quads);
      for (int n = 0; n < 4; n++) *(malc_unaligned_quad *)(to + (j + n) * to_stride + i) = quads[n];
    }
    for (int64_t j = whole_columns; j < columns; j++)
      for (int n = 0; n < 4; n++) to[j * to_stride + i + n] = from[(i + n) * from_stride + j];
  }
  for (int64_t i = whole_rows; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) to[j * to_stride + i] = from[i * from_stride + j];
}

/* to[depth][width]: to[k][lane] = from[lane * lane_stride + k * depth_stride] for the first `lanes` lanes, which are
 * `full` in all but an operand's last block; there, zeros follow. */
MALC_INLINE void malc_pack_block(float *to, int64_t width, int64_t full, const float *from, int64_t lane_stride,
                                 int64_t depth_stride, int64_t lanes, int64_t depth) {
  if (lanes < full) memset(to, 0, (size_t)(width * depth) * sizeof *to);
  if (lane_stride == 1 && lanes == full)
    for (int64_t k = 0; k < depth; k++) memcpy(to + k * width, from + k * depth_stride, (size_t)full * sizeof *to);
  else if (depth_stride == 1)
    malc_transpose(to, width, from, lane_stride, lanes, depth);
  else
    for (int64_t k = 0; k < depth; k++)
      for (int64_t lane = 0; lane < lanes; lane++) to[k * width + lane] = from[lane * lane_stride + k * depth_stride];
}

/* Floats of a packed right operand of [inner][columns]. */
MALC_INLINE int64_t malc_packed_size(int64_t inner, int64_t columns) {
  return inner * ((columns + MALC_PANEL - 1) / MALC_PANEL * MALC_PANEL);
}

/* Packs inner rows [begin, end) of the panel that starts at `column`. */
MALC_SEPARATE void malc_pack_panel(float *packed, malc_matrix right, int64_t inner, int64_t columns, int64_t column,
                                 int64_t begin, int64_t end) {
  malc_pack_block(packed + column * inner + begin * MALC_TILE_COLUMNS, MALC_TILE_COLUMNS, MALC_TILE_COLUMNS,
                  right.data + begin * right.row_stride + column * right.column_stride, right.column_stride,
                  right.row_stride, malc_least(MALC_TILE_COLUMNS, columns - column), end - begin);
}

/* Packs a right operand of [inner][columns] into malc_packed_size floats. */
MALC_STATIC void malc_pack_alone(float *packed, malc_matrix right, int64_t inner, int64_t columns) {
  for (int64_t column = 0; column < columns; column += MALC_TILE_COLUMNS)
    malc_pack_panel(packed, right, inner, columns, column, 0, inner);
}

/* ---- The product ---- */

/* Memory that is fetched into the cache while a tile is computed: a line each step of the inner dimension, `step`
 * floats from the one before. */
typedef struct {
  const float *from;
  int64_t step;
} malc_ahead;

/* tile[rows][MALC_TILE_COLUMNS] = strip[depth][MALC_STRIP]^T x panel[depth][MALC_TILE_COLUMNS], whose rows lie
 * panel_stride apart; with `accumulate`, that is added to the tile. `rows` is a compile-time number, at most
 * MALC_TILE_ROWS. */
MALC_INLINE void malc_multiply_rows(float *tile, int64_t tile_stride, const float *strip, const float *panel,
                                    int64_t panel_stride, int64_t depth, bool accumulate, malc_ahead ahead, int rows) {
  enum { NEAR = 8 }; /* steps between fetching a line of the panel into the first cache and using it */
  malc_vector sum[MALC_TILE_ROWS][MALC_TILE_VECTORS];
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      if (accumulate) sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
      else {
        sum[i][j] = (malc_vector){ 0 };
        __builtin_prefetch(tile + i * tile_stride + j * MALC_WIDTH, 1);
      }
  for (int64_t k = 0; k < depth; k++, strip += MALC_STRIP, panel += panel_stride, ahead.from += ahead.step) {
    malc_vector right[MALC_TILE_VECTORS];
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) {
      right[j] = *(const malc_unaligned *)(panel + j * MALC_WIDTH);
      __builtin_prefetch(panel + NEAR * panel_stride + j * MALC_WIDTH);
    }
    __builtin_prefetch(ahead.from, 0, 2);
    MALC_UNROLL for (int i = 0; i < rows; i++)
      MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) sum[i][j] += strip[i] * right[j];
  }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

typedef void malc_tile_kernel(float *tile, int64_t tile_stride, const float *strip, const float *panel,
                              int64_t panel_stride, int64_t depth, bool accumulate, malc_ahead ahead);
#define MALC_TILE_KERNEL(name, rows)                                                                          \
  MALC_SEPARATE void name(float *tile, int64_t tile_stride, const float *strip, const float *panel,           \
                          int64_t panel_stride, int64_t depth, bool accumulate, malc_ahead ahead) {           \
    malc_multiply_rows(tile, tile_stride, strip, panel, panel_stride, depth, accumulate, ahead, rows);        \
  }
MALC_TILE_KERNEL(malc_tile_whole, MALC_TILE_ROWS)
MALC_TILE_KERNEL(malc_tile_four, 4)
#if defined(__AVX512F__)
MALC_TILE_KERNEL(malc_tile_eight, 8)
#endif

/* The fastest of the kernels above that computes so many rows. */
MALC_INLINE malc_tile_kernel *malc_kernel_of(int64_t rows) {
  if (rows <= 4) return malc_tile_four;
#if defined(__AVX512F__)
  if (rows <= 8) return malc_tile_eight;
#endif
  return malc_tile_whole;
}

/* A whole tile. */
MALC_INLINE void malc_multiply_tile(float *tile, int64_t tile_stride, const float *strip, const float *panel,
                                    int64_t panel_stride, int64_t depth, bool accumulate) {
  malc_tile_whole(tile, tile_stride, strip, panel, panel_stride, depth, accumulate, (malc_ahead){ strip, 0 });
}

/* A tile at the lower or right edge, of which only rows x columns elements exist. */
MALC_STATIC void malc_multiply_edge(float *tile, int64_t tile_stride, int64_t rows, int64_t columns, const float *strip,
                                    const float *panel, int64_t panel_stride, int64_t depth, bool accumulate) {
  float whole[MALC_TILE_ROWS * MALC_TILE_COLUMNS] = { 0 };
  const size_t row = (size_t)columns * sizeof *tile;
  if (accumulate)
    for (int64_t i = 0; i < rows; i++) memcpy(whole + i * MALC_TILE_COLUMNS, tile + i * tile_stride, row);
  const malc_ahead nothing = { strip, 0 };
  malc_kernel_of(rows)(whole, MALC_TILE_COLUMNS, strip, panel, panel_stride, depth, accumulate, nothing);
  for (int64_t i = 0; i < rows; i++) memcpy(tile + i * tile_stride, whole + i * MALC_TILE_COLUMNS, row);
}

/* A right operand that can be read panel by panel: row k of panel p is at data + p * panel_stride + k * row_stride and
 * can be read to its full width, also where the panel is the last. */
typedef struct {
  const float *data;
  int64_t row_stride, panel_stride;
} malc_panels;

/* The panels of a packed right operand from `column` on. */
MALC_INLINE malc_panels malc_packed_panels(const float *packed, int64_t inner, int64_t column) {
  return (malc_panels){ packed + column * inner, MALC_TILE_COLUMNS, MALC_TILE_COLUMNS * inner };
}

/* Up to MALC_TILE_ROWS rows of a product, the left operand packed as a strip. `next` is the left operand's next rows,
 * which are fetched meanwhile: while the first panels pass, a row each, or all rows where they lie side by side. */
MALC_STATIC void malc_multiply_strip(float *tile, int64_t tile_stride, const float *strip, int64_t rows,
                                     malc_panels right, int64_t depth, int64_t columns, bool accumulate,
                                     malc_matrix next) {
  const bool whole = rows == MALC_TILE_ROWS || rows == 4;
  malc_tile_kernel *kernel = malc_kernel_of(rows);
  const float *panel = right.data;
  for (int64_t j = 0, n = 0; j < columns; j += MALC_TILE_COLUMNS, n++, panel += right.panel_stride) {
    malc_ahead ahead = { strip, 0 };
    if (next.row_stride == 1 && n == 0) /* the last row's line: the first row's is an earlier one, or the same */
      ahead = (malc_ahead){ next.data + MALC_TILE_ROWS - 1, next.column_stride };
    else if (next.row_stride != 1 && n < MALC_TILE_ROWS)
      ahead = (malc_ahead){ next.data + n * next.row_stride, next.column_stride };
    if (whole && columns - j >= MALC_TILE_COLUMNS)
      kernel(tile + j, tile_stride, strip, panel, right.row_stride, depth, accumulate, ahead);
    else
      malc_multiply_edge(tile + j, tile_stride, rows, malc_least(MALC_TILE_COLUMNS, columns - j), strip, panel,
                         right.row_stride, depth, accumulate);
  }
}

/* One step of a product's inner dimension, `depth` long: strips of the left operand, one after the other. `scratch`
 * takes one strip. */
MALC_STATIC void malc_multiply_depth(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                     malc_panels right, int64_t depth, int64_t columns, float *scratch,
                                     bool accumulate) {
  for (int64_t i = 0; i < rows; i += MALC_TILE_ROWS, left.data += MALC_TILE_ROWS * left.row_stride) {
    const int64_t height = malc_least(MALC_TILE_ROWS, rows - i), following = i + height < rows ? MALC_TILE_ROWS : 0;
    const malc_matrix next = { left.data + following * left.row_stride, left.row_stride, left.column_stride };
    malc_pack_block(scratch, MALC_STRIP, MALC_TILE_ROWS, left.data, left.row_stride, left.column_stride, height, depth);
    malc_multiply_strip(tile + i * tile_stride, tile_stride, scratch, height, right, depth, columns, accumulate, next);
  }
}

/* How much of the inner dimension to take at once, when `most` is allowed: even parts, whole lines of the cache. */
MALC_INLINE int64_t malc_depth_at_once(int64_t inner, int64_t most) {
  const int64_t blocks = (inner + most - 1) / most;
  return malc_least(most, (((inner + blocks - 1) / blocks) + 15) / 16 * 16);
}

/* tile[rows][columns] = left[rows][inner] x right[inner][columns]; with `accumulate`, that is added to the tile.
 * `scratch` holds MALC_SCRATCH floats of this thread's own. */
MALC_SEPARATE void malc_multiply_panels(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                        malc_panels right, int64_t inner, int64_t columns, float *scratch,
                                        bool accumulate) {
  const int64_t most = malc_depth_at_once(inner, MALC_DEPTH);
  for (int64_t begin = 0; begin < inner; begin += most, accumulate = true) {
    const malc_matrix from = { left.data + begin * left.column_stride, left.row_stride, left.column_stride };
    const malc_panels by = { right.data + begin * right.row_stride, right.row_stride, right.panel_stride };
    const int64_t depth = malc_least(most, inner - begin);
    malc_multiply_depth(tile, tile_stride, from, rows, by, depth, columns, scratch, accumulate);
  }
}

/* A matrix from a column on. */
MALC_INLINE malc_matrix malc_columns(malc_matrix matrix, int64_t column) {
  return (malc_matrix){ matrix.data + column * matrix.column_stride, matrix.row_stride, matrix.column_stride };
}

/* tile[rows][columns] = left[rows][inner] x right[inner][columns], the right operand packed here too: `most_depth`, a
 * multiple of 16, of the inner dimension at once. With `accumulate`, the product is added to the tile. `scratch`, on a
 * cache line, holds a strip and the panels: most_depth x (MALC_STRIP_MOST + columns, padded) floats of this thread's
 * own. */
MALC_SEPARATE void malc_multiply_packing(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                         malc_matrix right, int64_t inner, int64_t columns, int64_t most_depth,
                                         float *scratch, bool accumulate) {
  const int64_t most = malc_depth_at_once(inner, most_depth);
  float *packed = scratch + most_depth * MALC_STRIP_MOST;
  for (int64_t begin = 0; begin < inner; begin += most, accumulate = true) {
    const int64_t depth = malc_least(most, inner - begin);
    const malc_matrix from = { left.data + begin * left.column_stride, left.row_stride, left.column_stride };
    const malc_matrix by = { right.data + begin * right.row_stride, right.row_stride, right.column_stride };
    malc_pack_alone(packed, by, depth, columns);
    malc_multiply_depth(tile, tile_stride, from, rows, malc_packed_panels(packed, depth, 0), depth, columns, scratch,
                        accumulate);
  }
}

/* tile[rows][columns] = left[rows][inner] x right[inner][column .. column + columns), the right operand packed.
 * `column` is a multiple of MALC_PANEL and inner >= 1; `scratch` holds MALC_SCRATCH floats of this thread's own. */
MALC_STATIC void malc_multiply(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, const float *packed,
                               int64_t inner, int64_t column, int64_t columns, float *scratch) {
  const malc_panels right = malc_packed_panels(packed, inner, column);
  malc_multiply_panels(tile, tile_stride, left, rows, right, inner, columns, scratch, false);
}

/* This thread's number in the parallel region around it. */
MALC_INLINE int64_t malc_thread(void) { return omp_get_thread_num(); }

#endif
