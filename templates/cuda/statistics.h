// statistics.h - what norms ask of each row of a matrix: the sum of its squares, or its sum and the squared distances
// from the mean.
//
// Where a product's tiles are finished in registers, each leaves a part for each of its rows, and a thread adds up
// those of a row, in order; elsewhere a warp reads the row that was stored. Either way the result is always the same.
#pragma once
#include "product_sm90_finish.h"

/* The sum of the squares of some elements. */
struct malc_squares {
  static constexpr int words = 1; /* of a part in memory */
  float total = 0.0f;

  DEVICE void take(float value) { total = fmaf(value, value, total); }
  DEVICE void join(const malc_squares &other) { total += other.total; }
  /* What another lane has: all of the warp come here. */
  DEVICE malc_squares across(int distance) const { return {__shfl_xor_sync(0xffffffffu, total, distance)}; }
  DEVICE void store(float *part) const { *part = total; }
  DEVICE static malc_squares load(const float *part, int) { return {*part}; }

  DEVICE float squares() const { return total; }
};

/* The sum of some elements, and their squared distances from its mean. Distances are taken from the first element: sums
 * of the squares themselves would lose what matters where the mean is far from zero. */
struct malc_moments {
  static constexpr int words = 2;
  float count = 0.0f, first = 0.0f, distances = 0.0f, squared_distances = 0.0f;

  DEVICE void take(float value) {
    if (count == 0.0f) first = value;
    const float distance = value - first;
    count += 1.0f, distances += distance;
    squared_distances = fmaf(distance, distance, squared_distances);
  }
  DEVICE void join(const malc_moments &other) {
    if (count == 0.0f) first = other.first;
    const float shift = other.first - first;
    squared_distances += other.squared_distances + shift * (2.0f * other.distances + other.count * shift);
    count += other.count, distances += other.distances + other.count * shift;
  }
  DEVICE malc_moments across(int distance) const {
    constexpr uint32_t all = 0xffffffffu;
    return {__shfl_xor_sync(all, count, distance), __shfl_xor_sync(all, first, distance),
            __shfl_xor_sync(all, distances, distance), __shfl_xor_sync(all, squared_distances, distance)};
  }
  /* As if all elements but for their distances were the mean. */
  DEVICE void store(float *part) const { part[0] = first + distances / count, part[1] = deviations(); }
  DEVICE static malc_moments load(const float *part, int count) {
    return {static_cast<float>(count), part[0], 0.0f, part[1]};
  }

  DEVICE float sum() const { return fmaf(count, first, distances); }
  DEVICE float deviations() const { return fmaxf(squared_distances - distances * distances / count, 0.0f); }
  DEVICE float squares() const { return deviations() + sum() * (sum() / count); }
};

/* Takes the rows of a tile while its consumers finish it: what malc_consumer of product_sm90.h calls. A thread has
 * elements of rows r and r + 8, by turns; the four threads that share them leave the tile's part. Parts lie as
 * [rows][tiles across][words]. */
template <class Statistic>
struct malc_measured {
  static constexpr bool is_apart = false;
  static constexpr int end = 0, apart_end = 0, brought_bytes = 0;
  struct by_turns {
    Statistic rows[2];
    DEVICE Statistic &operator[](int n) { return rows[n % 2]; }
  };
  float *parts;
  int columns, tile_columns;
  by_turns pairs;

  DEVICE malc_measured(float *parts, int columns, int tile_columns)
      : parts(parts), columns(columns), tile_columns(tile_columns) {}
  DEVICE void bring(uint32_t, uint32_t, int, int) const {}
  DEVICE void send(uint32_t, int, int) const {}
  DEVICE void take(int, int) const {}
  DEVICE void leave(int, int, const malc_place &) const {}
  /* `at` is the warp's 16 rows, and the tile's columns. */
  DEVICE void conclude(const malc_place &at) const {
    const int lane = threadIdx.x % 32, tiles = static_cast<int>(malc_ceil_divide(columns, tile_columns));
#pragma unroll
    for (int half = 0; half < 2; half++) {
      Statistic of_row = pairs.rows[half];
      of_row.join(of_row.across(1));
      of_row.join(of_row.across(2));
      const int64_t row = at.row + half * 8 + lane / 4;
      if (lane % 4 == 0 && row < at.row_end)
        of_row.store(parts + (row * tiles + at.column / tile_columns) * Statistic::words);
    }
  }
};

/* Takes two elements, as T stores them, where the result has them. */
template <class T, class Statistic>
DEVICE void malc_measure_2(Statistic &of_row, const float (&two)[2], bool inside) {
  malc_two<T> stored;
  float rounded[2];
  malc_store_2(stored, two);
  malc_load_2(rounded, stored);
  if (inside) of_row.take(rounded[0]), of_row.take(rounded[1]);
}

/* A row, of the parts that tiles have left: a thread's. */
template <class Statistic>
DEVICE Statistic malc_joined_parts(const float *parts, int64_t row, int columns, int tile_columns) {
  const int tiles = static_cast<int>(malc_ceil_divide(columns, tile_columns));
  const float *part = parts + row * tiles * Statistic::words;
  Statistic of_row;
  for (int column = 0; column < columns; column += tile_columns, part += Statistic::words)
    of_row.join(Statistic::load(part, min(tile_columns, columns - column)));
  return of_row;
}

/* A row in memory: a warp's. */
template <class Statistic, class T>
DEVICE Statistic malc_measured_row(const T *row, int columns) {
  Statistic of_row;
#pragma unroll 4
  for (int column = threadIdx.x % 32; column < columns; column += 32) of_row.take(malc_to_float(row[column]));
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) of_row.join(of_row.across(distance));
  return of_row;
}
