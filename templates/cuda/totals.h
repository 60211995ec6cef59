// totals.h - sums over all rows of a matrix: gradients of biases, from a product's output or from sums over a few rows.
#pragma once
#include "rows.h"

constexpr int malc_totals_columns = 32, malc_totals_threads = 1024;

/* Sums up 32 columns from `first` on: a block of 1024 threads. Each warp adds up its share of the rows in order, and
 * then the first one the shares, so that the result is always the same. */
template <class T>
DEVICE void malc_column_totals(const T *from, int64_t rows, int64_t stride, int first, int columns, float *to,
                               bool adds) {
  constexpr int warps = malc_totals_threads / 32;
  __shared__ float shares[warps][malc_totals_columns];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = first + lane;
  const int64_t share = (rows + warps - 1) / warps, end = share * (warp + 1) < rows ? share * (warp + 1) : rows;
  float sum = 0.0f;
  if (column < columns) {
#pragma unroll 8
    for (int64_t row = share * warp; row < end; row++) sum += malc_to_float(from[row * stride + column]);
  }
  shares[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  float total = adds ? to[column] : 0.0f;
#pragma unroll
  for (int n = 0; n < warps; n++) total += shares[n][lane];
  to[column] = total;
}
