// product.h - what products of matrices share: operands, tiles and their order, sums and who finishes them, few rows.
//
// A product is sum over i of left[row][i] right[column][i]. Rows of the left and columns of the right operand are its
// outer positions, i its inner ones; either may lie side by side in memory. A block of threads computes a tile, leaves
// the sums in shared memory and finishes each element there: finish(sums, row, column), where sums(product, row,
// column) is any element of the tile. product_bf16.h and product_f32.h have the tiles.
#pragma once
#include "rows.h"

// ---- Operands ----

/* Which positions of an operand lie side by side. */
enum class malc_side { inner, outer };

/* An operand in memory, or those of several products that share the other operand: the tile's outer positions are
 * divided among them. Runs start at multiples of `Aligned` elements (1, 2, 4 or 8), and are as long; those of bfloat16
 * are padded to as many, with anything. */
template <class T, malc_side Run, int Aligned, int Parts = 1>
struct malc_operand {
  typedef T type;
  static constexpr malc_side run = Run;
  static constexpr int aligned = Aligned, parts = Parts;
  const T *data[Parts];
  int64_t stride; /* elements from run to run */

  DEVICE const T *at(int part, int outer, int inner) const {
    const T *chosen = data[0];
#pragma unroll
    for (int n = 1; n < Parts; n++)
      if (part == n) chosen = data[n];
    return chosen + (Run == malc_side::inner ? outer * stride + inner : inner * stride + outer);
  }
};

// ---- Tiles ----

/* Rows [row, row_end) and columns [column, column_end) of the result. */
struct malc_place {
  int row, row_end, column, column_end;
};

__host__ __device__ constexpr int malc_larger(int a, int b) { return a > b ? a : b; }
__host__ __device__ constexpr int64_t malc_ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Tiles of a result, and their order: neighbours share rows or columns, so that the second-level cache has them. */
struct malc_tiles {
  int rows, columns, tile_rows, tile_columns, down, across, high;

  /* `high` tiles' rows are a band, which is taken column by column. */
  __host__ __device__ constexpr malc_tiles(int64_t rows, int64_t columns, int tile_rows, int tile_columns, int high = 8)
      : rows(static_cast<int>(rows)), columns(static_cast<int>(columns)), tile_rows(tile_rows),
        tile_columns(tile_columns), down(static_cast<int>(malc_ceil_divide(rows, tile_rows))),
        across(static_cast<int>(malc_ceil_divide(columns, tile_columns))), high(high) {}
  __host__ __device__ constexpr int count() const { return down * across; }

  DEVICE malc_place place(int tile) const {
    const int band = tile / (high * across);
    const int rows_of_band = min(high, down - band * high), within = tile - band * high * across;
    const int row = (band * high + within % rows_of_band) * tile_rows, column = within / rows_of_band * tile_columns;
    return {row, min(row + tile_rows, rows), column, min(column + tile_columns, columns)};
  }
};

/* A tile's sums in shared memory, of `Parts` products side by side. */
template <int Columns, int Parts = 1>
struct malc_tile_sums {
  static constexpr int stride = Columns + 8; // rows begin 8 banks apart: what warps store lies in 32 of them
  const float *sums;
  malc_place at;
  DEVICE const float *place(int product, int64_t row, int64_t column) const {
    return sums + static_cast<int>(row - at.row) * stride + product * (Columns / Parts) +
           static_cast<int>(column - at.column);
  }
  DEVICE float operator()(int product, int64_t row, int64_t column) const { return *place(product, row, column); }
  /* Those of four columns from a multiple of four on. */
  DEVICE void four(float (&to)[4], int product, int64_t row, int64_t column) const {
    malc_load_4(to, place(product, row, column));
  }
};

/* Calls finish(sums, row, column) for every `Step`-th element of the tile that exists: a thread's share. */
template <int Threads, int Rows, int Columns, int Parts, int Step, class Finish>
DEVICE void malc_finish_tile(const float *tile, const malc_place &at, const Finish &finish, int thread = threadIdx.x) {
  constexpr int steps = Columns / Parts / Step;
  const malc_tile_sums<Columns, Parts> sums{tile, at};
  // Two at once: more would need registers that Hopper's consumers, whose sums have most of them, do not have left.
#pragma unroll 2
  for (int index = thread; index < Rows * steps; index += Threads) {
    const int row = at.row + index / steps, column = at.column + index % steps * Step;
    if (row < at.row_end && column < at.column_end) finish(sums, row, column);
  }
}

// ---- Sums in parts ----
// Where a result has few tiles and many inner positions, these are divided into parts, each with blocks of its own.
// Parts are added in order by a second launch, so that the result is always the same.

constexpr int malc_least_part = 256; /* inner positions that a block is worth starting for */

/* Inner positions of a part: a whole number of slices, whoever multiplies. */
__host__ __device__ constexpr int64_t malc_part_length(int64_t inner, int most_parts) {
  const int64_t length = malc_ceil_divide(malc_ceil_divide(inner, most_parts), 64) * 64;
  return most_parts > 1 && length < malc_least_part ? malc_least_part : length;
}
__host__ __device__ constexpr int malc_part_count(int64_t inner, int most_parts) {
  return inner == 0 ? 1 : static_cast<int>(malc_ceil_divide(inner, malc_part_length(inner, most_parts)));
}

/* A part's inner positions [from, to). */
struct malc_part {
  int number, from, to;
  DEVICE malc_part(int64_t inner, int most_parts, int number)
      : number(number), from(static_cast<int>(number * malc_part_length(inner, most_parts))),
        to(static_cast<int>(min(from + malc_part_length(inner, most_parts), inner))) {}
};

/* Sums in the workspace: [product][most_parts][row][column]. */
struct malc_part_sums {
  const float *workspace;
  int64_t rows, columns;
  int parts, most_parts;
  DEVICE malc_part_sums(const float *workspace, int64_t rows, int64_t columns, int parts, int most_parts)
      : workspace(workspace), rows(rows), columns(columns), parts(parts), most_parts(most_parts) {}
  DEVICE const float *place(int product, int64_t row, int64_t column) const {
    return workspace + (product * most_parts * rows + row) * columns + column;
  }
  DEVICE float operator()(int product, int64_t row, int64_t column) const {
    const float *part = place(product, row, column);
    float sum = part[0];
    for (int n = 1; n < parts; n++) sum += part[n * rows * columns];
    return sum;
  }
  DEVICE void four(float (&to)[4], int product, int64_t row, int64_t column) const {
    const float *part = place(product, row, column);
    malc_load_4(to, part);
    for (int n = 1; n < parts; n++) {
      float next[4];
      malc_load_4(next, part + n * rows * columns);
#pragma unroll
      for (int i = 0; i < 4; i++) to[i] += next[i];
    }
  }
};

// ---- Coordinates ----

/* Of what is less than 2^31: 32-bit division is several times faster. */
DEVICE int64_t malc_quotient(int64_t a, int64_t b) { return static_cast<uint32_t>(a) / static_cast<uint32_t>(b); }
DEVICE int64_t malc_remainder(int64_t a, int64_t b) { return static_cast<uint32_t>(a) % static_cast<uint32_t>(b); }

// ---- Elements ----

/* Elements that are read together. */
template <class T, int Count>
struct alignas(sizeof(T) * Count) malc_elements {
  T values[Count];
};

// ---- Few rows: decoding streams the weights past them ----

constexpr int malc_few_rows = 8;

/* Multiplies up to malc_few_rows rows by the columns of a place, of which there are at most `Width`, a warp a column,
 * and finishes the elements. Inner positions lie side by side in both operands. */
template <int Threads, int Width, int Step, class Left, class Right, class Finish>
DEVICE void malc_multiply_few(const Left &left, const Right &right, const malc_place &at, int inner,
                              const Finish &finish) {
  constexpr int parts = Right::parts, columns = Width * parts;
  constexpr int together = Left::aligned < Right::aligned ? Left::aligned : Right::aligned;
  constexpr int step = together > 4 ? 4 : together; // elements that a lane reads at once
  float *const tile = reinterpret_cast<float *>(dynamic_shared());
  const int lane = threadIdx.x % 32, rows = at.row_end - at.row;
  for (int n = threadIdx.x / 32; n < columns; n += Threads / 32) {
    const int part = n / Width, column = at.column + n % Width;
    if (column >= at.column_end) continue;
    float sums[malc_few_rows] = {};
    for (int i = lane * step; i < inner; i += 32 * step) {
      const auto weights =
          *reinterpret_cast<const malc_elements<typename Right::type, step> *>(right.at(part, column, i));
#pragma unroll
      for (int row = 0; row < malc_few_rows; row++) {
        if (row >= rows) break;
        const auto values =
            *reinterpret_cast<const malc_elements<typename Left::type, step> *>(left.at(0, at.row + row, i));
#pragma unroll
        for (int k = 0; k < step; k++)
          sums[row] = fmaf(malc_to_float(values.values[k]), malc_to_float(weights.values[k]), sums[row]);
      }
    }
#pragma unroll
    for (int row = 0; row < malc_few_rows; row++) {
      if (row >= rows) break;
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2)
        sums[row] += __shfl_xor_sync(0xffffffffu, sums[row], distance);
      if (lane == 0) tile[row * malc_tile_sums<columns>::stride + n] = sums[row];
    }
  }
  __syncthreads();
  malc_finish_tile<Threads, malc_few_rows, columns, parts, Step>(tile, at, finish);
}
