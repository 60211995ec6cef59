/* matmul.h - the float32 matrix product of generated programs: packed and register-tiled, for any SIMD width.
 *
 * A product left x right is made of tiles of MALC_TILE_ROWS x MALC_TILE_COLUMNS elements that stay in registers while
 * the inner dimension runs past (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008). Two
 * copies make the inner loop read contiguous memory only: the right operand becomes panels, [inner][MALC_TILE_COLUMNS]
 * each, once for all threads; each task turns its rows of the left operand into strips, [depth][MALC_STRIP] each, in
 * its own scratch.
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
  MALC_FEW_TILE = 4, /* rows at once in the product of few rows */
};

/* These do not depend on the machine, so that memory can be planned without knowing it. */
#define MALC_PANEL 32      /* packed operands are padded to a multiple of this many columns */
#define MALC_ROWS 96       /* most rows in one call of malc_multiply: a multiple of every MALC_TILE_ROWS */
#define MALC_DEPTH 384     /* most of the inner dimension at once: a strip and a panel stay in the first two caches */
#define MALC_SCRATCH 49152 /* floats of thread-private scratch: strips of MALC_ROWS x MALC_DEPTH, with their padding */
#define MALC_FEW_ROWS 8    /* up to here, malc_multiply_few is the faster one */

/* Element (i, j) is data[i * row_stride + j * column_stride]; one of the strides should be 1. */
typedef struct {
  const float *data;
  int64_t row_stride, column_stride;
} malc_matrix;

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

/* to[j][i] = from[i][j] for from[rows][columns]. */
MALC_SEPARATE void malc_transpose(float *to, int64_t to_stride, const float *from, int64_t from_stride, int64_t rows,
                                int64_t columns) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t i = 0; i < whole_rows; i += 4) {
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

/* Packs a right operand of [inner][columns] into malc_packed_size floats. Every thread of a parallel region calls it;
 * they share the work, and the caller puts the barrier that must follow. */
MALC_STATIC void malc_pack(float *packed, malc_matrix right, int64_t inner, int64_t columns) {
  enum { rows = 128 };
#pragma omp for collapse(2) nowait
  for (int64_t begin = 0; begin < inner; begin += rows)
    for (int64_t column = 0; column < columns; column += MALC_TILE_COLUMNS)
      malc_pack_panel(packed, right, inner, columns, column, begin, malc_least(inner, begin + rows));
}

/* The same, by the calling thread alone. */
MALC_STATIC void malc_pack_alone(float *packed, malc_matrix right, int64_t inner, int64_t columns) {
  for (int64_t column = 0; column < columns; column += MALC_TILE_COLUMNS)
    malc_pack_panel(packed, right, inner, columns, column, 0, inner);
}

/* ---- The product ---- */

/* tile[MALC_TILE_ROWS][MALC_TILE_COLUMNS] = strip[depth][MALC_STRIP]^T x panel[depth][MALC_TILE_COLUMNS], whose rows
 * lie panel_stride apart; with `accumulate`, that is added to the tile. */
MALC_SEPARATE void malc_multiply_tile(float *tile, int64_t tile_stride, const float *strip, const float *panel,
                                      int64_t panel_stride, int64_t depth, bool accumulate) {
  malc_vector sum[MALC_TILE_ROWS][MALC_TILE_VECTORS];
  MALC_UNROLL for (int i = 0; i < MALC_TILE_ROWS; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      if (accumulate) sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
      else sum[i][j] = (malc_vector){ 0 };
  for (int64_t k = 0; k < depth; k++, strip += MALC_STRIP, panel += panel_stride) {
    malc_vector right[MALC_TILE_VECTORS];
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      right[j] = *(const malc_unaligned *)(panel + j * MALC_WIDTH);
    MALC_UNROLL for (int i = 0; i < MALC_TILE_ROWS; i++)
      MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++) sum[i][j] += strip[i] * right[j];
  }
  MALC_UNROLL for (int i = 0; i < MALC_TILE_ROWS; i++)
    MALC_UNROLL for (int j = 0; j < MALC_TILE_VECTORS; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

/* A tile at the lower or right edge, of which only rows x columns elements exist. */
MALC_STATIC void malc_multiply_edge(float *tile, int64_t tile_stride, int64_t rows, int64_t columns, const float *strip,
                                    const float *panel, int64_t panel_stride, int64_t depth, bool accumulate) {
  float whole[MALC_TILE_ROWS * MALC_TILE_COLUMNS] = { 0 };
  const size_t row = (size_t)columns * sizeof *tile;
  if (accumulate)
    for (int64_t i = 0; i < rows; i++) memcpy(whole + i * MALC_TILE_COLUMNS, tile + i * tile_stride, row);
  malc_multiply_tile(whole, MALC_TILE_COLUMNS, strip, panel, panel_stride, depth, accumulate);
  for (int64_t i = 0; i < rows; i++) memcpy(tile + i * tile_stride, whole + i * MALC_TILE_COLUMNS, row);
}

/* A right operand that can be read panel by panel: row k of panel p is at data + p * panel_stride + k * row_stride and
 * can be read to its full width, also where the panel is the last. */
typedef struct {
  const float *data;
  int64_t row_stride, panel_stride;
} malc_panels;

/* tile[rows][columns] = left[rows][inner] x right[inner][columns]; with `accumulate`, that is added to the tile.
 * `scratch` takes the strips: rows, rounded up and padded, x inner or MALC_DEPTH, whichever is less. MALC_SCRATCH is
 * enough for MALC_ROWS rows, and for 4 * MALC_ROWS rows where inner <= MALC_DEPTH / 4. */
MALC_SEPARATE void malc_multiply_panels(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                        malc_panels right, int64_t inner, int64_t columns, float *scratch,
                                        bool accumulate) {
  const int64_t blocks = (inner + MALC_DEPTH - 1) / MALC_DEPTH, most = (inner + blocks - 1) / blocks;
  for (int64_t begin = 0; begin < inner; begin += most, accumulate = true) {
    const int64_t depth = malc_least(most, inner - begin);
    for (int64_t i = 0, strip = 0; i < rows; i += MALC_TILE_ROWS, strip += MALC_STRIP)
      malc_pack_block(scratch + strip * depth, MALC_STRIP, MALC_TILE_ROWS,
                      left.data + i * left.row_stride + begin * left.column_stride, left.row_stride, left.column_stride,
                      malc_least(MALC_TILE_ROWS, rows - i), depth);
    const float *panel = right.data + begin * right.row_stride;
    for (int64_t j = 0; j < columns; j += MALC_TILE_COLUMNS, panel += right.panel_stride) {
      const int64_t width = malc_least(MALC_TILE_COLUMNS, columns - j);
      const float *strip = scratch;
      for (int64_t i = 0; i < rows; i += MALC_TILE_ROWS, strip += MALC_STRIP * depth) {
        float *to = tile + i * tile_stride + j;
        const int64_t height = malc_least(MALC_TILE_ROWS, rows - i);
        if (height == MALC_TILE_ROWS && width == MALC_TILE_COLUMNS)
          malc_multiply_tile(to, tile_stride, strip, panel, right.row_stride, depth, accumulate);
        else
          malc_multiply_edge(to, tile_stride, height, width, strip, panel, right.row_stride, depth, accumulate);
      }
    }
  }
}

/* malc_multiply_panels for any number of rows where inner <= MALC_DEPTH / 4: MALC_SCRATCH is enough for each part. */
MALC_STATIC void malc_multiply_tall(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_panels right,
                                    int64_t inner, int64_t columns, float *scratch, bool accumulate) {
  for (int64_t i = 0; i < rows; i += 4 * MALC_ROWS) {
    const malc_matrix part = { left.data + i * left.row_stride, left.row_stride, left.column_stride };
    malc_multiply_panels(tile + i * tile_stride, tile_stride, part, malc_least(4 * MALC_ROWS, rows - i), right, inner,
                         columns, scratch, accumulate);
  }
}

/* The panels of a packed right operand from `column` on. */
MALC_INLINE malc_panels malc_packed_panels(const float *packed, int64_t inner, int64_t column) {
  return (malc_panels){ packed + column * inner, MALC_TILE_COLUMNS, MALC_TILE_COLUMNS * inner };
}

/* tile[rows][columns] = left[rows][inner] x right[inner][column .. column + columns), the right operand packed.
 * `column` is a multiple of MALC_PANEL, rows <= MALC_ROWS and inner >= 1; `scratch` holds MALC_SCRATCH floats of this
 * thread's own. */
MALC_STATIC void malc_multiply(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, const float *packed,
                               int64_t inner, int64_t column, int64_t columns, float *scratch) {
  const malc_panels right = malc_packed_panels(packed, inner, column);
  malc_multiply_panels(tile, tile_stride, left, rows, right, inner, columns, scratch, false);
}

/* ---- Few rows: nothing is packed, since nothing would be read twice ---- */

/* Any rows and columns, any strides: what the vector code below leaves over. */
MALC_SEPARATE void malc_few_plain(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_matrix right,
                                  int64_t inner, int64_t columns, bool accumulate) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      float sum = accumulate ? tile[i * tile_stride + j] : 0.0f;
      const float *from = left.data + i * left.row_stride, *by = right.data + j * right.column_stride;
      for (int64_t k = 0; k < inner; k++) sum += from[k * left.column_stride] * by[k * right.row_stride];
      tile[i * tile_stride + j] = sum;
    }
}

/* Four columns of a right operand whose columns are contiguous, as the left operand's rows are: inner products, the
 * vectors' lanes along the inner dimension. `rows` is a compile-time number. */
MALC_INLINE void malc_few_products(float *tile, int64_t tile_stride, malc_matrix left, int rows, malc_matrix right,
                                   int64_t inner, bool accumulate) {
  malc_vector sum[MALC_FEW_TILE][4] = { 0 };
  int64_t k = 0;
  for (; k + MALC_WIDTH <= inner; k += MALC_WIDTH)
    MALC_UNROLL for (int i = 0; i < rows; i++) {
      const malc_vector from = *(const malc_unaligned *)(left.data + i * left.row_stride + k);
      MALC_UNROLL for (int j = 0; j < 4; j++)
        sum[i][j] += from * *(const malc_unaligned *)(right.data + j * right.column_stride + k);
    }
  MALC_UNROLL for (int i = 0; i < rows; i++) {
    malc_quad quads[4];
    MALC_UNROLL for (int j = 0; j < 4; j++) { /* each vector's quarters added up ... */
      const union { malc_vector vector; malc_quad quads[MALC_WIDTH / 4]; } parts = { .vector = sum[i][j] };
      quads[j] = parts.quads[0];
      MALC_UNROLL for (int n = 1; n < MALC_WIDTH / 4; n++) quads[j] += parts.quads[n];
    }
    malc_transpose_quads(quads); /* ... then the four partial sums of four columns at once */
    malc_quad total = (quads[0] + quads[1]) + (quads[2] + quads[3]);
    malc_unaligned_quad *to = (malc_unaligned_quad *)(tile + i * tile_stride);
    if (accumulate) total += *to;
    *to = total;
  }
  if (k == inner) return;
  left.data += k;
  right.data += k;
  malc_few_plain(tile, tile_stride, left, rows, right, inner - k, 4, true);
}

/* `vectors` vectors of columns of a right operand whose rows are contiguous; compile-time numbers, as `rows` is. */
MALC_INLINE void malc_few_columns(float *tile, int64_t tile_stride, malc_matrix left, int rows, malc_matrix right,
                                  int64_t inner, int vectors, bool accumulate) {
  malc_vector sum[MALC_FEW_TILE][4];
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < vectors; j++)
      if (accumulate) sum[i][j] = *(const malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH);
      else sum[i][j] = (malc_vector){ 0 };
  for (int64_t k = 0; k < inner; k++)
    MALC_UNROLL for (int j = 0; j < vectors; j++) {
      const malc_vector by = *(const malc_unaligned *)(right.data + k * right.row_stride + j * MALC_WIDTH);
      MALC_UNROLL for (int i = 0; i < rows; i++)
        sum[i][j] += left.data[i * left.row_stride + k * left.column_stride] * by;
    }
  MALC_UNROLL for (int i = 0; i < rows; i++)
    MALC_UNROLL for (int j = 0; j < vectors; j++)
      *(malc_unaligned *)(tile + i * tile_stride + j * MALC_WIDTH) = sum[i][j];
}

/* MALC_FEW_TILE rows or fewer, a compile-time number, and any columns. */
MALC_INLINE void malc_few_tile(float *tile, int64_t tile_stride, malc_matrix left, int rows, malc_matrix right,
                               int64_t inner, int64_t columns, bool accumulate) {
  int64_t j = 0;
  malc_matrix from = right;
  if (right.row_stride == 1 && left.column_stride == 1)
    for (; j + 4 <= columns; j += 4, from.data += 4 * right.column_stride)
      malc_few_products(tile + j, tile_stride, left, rows, from, inner, accumulate);
  else if (right.column_stride == 1) {
    for (; j + 4 * MALC_WIDTH <= columns; j += 4 * MALC_WIDTH, from.data += 4 * MALC_WIDTH)
      malc_few_columns(tile + j, tile_stride, left, rows, from, inner, 4, accumulate);
    for (; j + MALC_WIDTH <= columns; j += MALC_WIDTH, from.data += MALC_WIDTH)
      malc_few_columns(tile + j, tile_stride, left, rows, from, inner, 1, accumulate);
  }
  malc_few_plain(tile + j, tile_stride, left, rows, from, inner, columns - j, accumulate);
}

MALC_SEPARATE void malc_few_blocks(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_matrix right,
                                 int64_t inner, int64_t columns, bool accumulate) {
  for (int64_t i = 0; i < rows; i += MALC_FEW_TILE) {
    float *to = tile + i * tile_stride;
    const malc_matrix from = { left.data + i * left.row_stride, left.row_stride, left.column_stride };
    switch (malc_least(MALC_FEW_TILE, rows - i)) {
      case 1: malc_few_tile(to, tile_stride, from, 1, right, inner, columns, accumulate); break;
      case 2: malc_few_tile(to, tile_stride, from, 2, right, inner, columns, accumulate); break;
      case 3: malc_few_tile(to, tile_stride, from, 3, right, inner, columns, accumulate); break;
      default: malc_few_tile(to, tile_stride, from, 4, right, inner, columns, accumulate);
    }
  }
}

/* malc_multiply for rows <= MALC_FEW_ROWS, as in decoding: the right operand is read in place, once for each
 * MALC_FEW_TILE rows. Fast where its rows are contiguous, or its columns and the left operand's rows. */
MALC_STATIC void malc_multiply_few(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows, malc_matrix right,
                                   int64_t inner, int64_t column, int64_t columns) {
  right.data += column * right.column_stride;
  malc_few_blocks(tile, tile_stride, left, rows, right, inner, columns, false);
}

/* The same, added to what the tile holds. */
MALC_STATIC void malc_multiply_few_add(float *tile, int64_t tile_stride, malc_matrix left, int64_t rows,
                                       malc_matrix right, int64_t inner, int64_t column, int64_t columns) {
  right.data += column * right.column_stride;
  malc_few_blocks(tile, tile_stride, left, rows, right, inner, columns, true);
}

/* This thread's number in the parallel region around it. */
MALC_INLINE int64_t malc_thread(void) {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

#endif
