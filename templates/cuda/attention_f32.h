// attention_f32.h - attention of float32 products, by FMA, for vectors of any width; and decoding, where a text has few
// queries and its keys are divided among blocks.
//
// A block's own vectors lie whole in shared memory; those that pass come in slices of 64 vectors and at most 64
// elements, two at a time: one is copied while the other is multiplied.
#pragma once
#include "attention.h"

constexpr int attention_f32_columns = 64; /* vectors of a slice: of keys, or in dK and dV of queries */
constexpr int attention_few_splits = 16;  /* parts that the keys of a text with few queries are divided into */

/* Elements of a slice of vectors that have `width` at most. */
constexpr int attention_slice(int width) { return width <= 16 ? 16 : width <= 32 ? 32 : 64; }

/* A block of scores: each half of a warp holds every eighth row, each of its lanes every sixteenth column. */
template <int Rows>
struct attention_f32_layout {
  static constexpr int all_rows = Rows, all_columns = attention_f32_columns;
  static constexpr int rows = Rows / 8, columns = all_columns / 16, lanes = 16;
  typedef float scores[rows][columns];
  DEVICE static int row(int i) { return threadIdx.x / 16 + 8 * i; }
  DEVICE static int column(int c) { return threadIdx.x % 16 + 16 * c; }
  DEVICE static float &at(scores &scores, int i, int c) { return scores[i][c]; }
};

/* Copies elements [column, column + Columns) of vectors [first, first + Rows) to shared memory, as floats; zeros for
 * what lies beyond `end` or a vector's width. It is there after cp_async_wait<0> and a barrier. */
template <int Rows, int Columns, int Pitch, class Vectors>
DEVICE void attention_stage(float *tile, const Vectors &vectors, int first, int end, int column) {
  constexpr bool as_stored = sizeof(typename Vectors::element) == sizeof(float);
  constexpr int step = as_stored ? Vectors::step : 1;
  for (int i = threadIdx.x; i < Rows * (Columns / step); i += attention_threads) {
    const int row = i / (Columns / step), at = i % (Columns / step) * step;
    const bool valid = first + row < end && column + at < Vectors::width;
    const auto *const from = valid ? vectors.row(first + row) + column + at : vectors.start;
    if constexpr (as_stored)
      cp_async<step * 4>(shared_address(tile + row * Pitch + at), from, valid);
    else
      tile[row * Pitch + at] = valid ? static_cast<float>(*from) : 0.0f;
  }
}

/* scores += a slice of the block's rows, `own`, times a slice of passing vectors, `tile`, transposed. */
template <class Layout, int Slice>
DEVICE void attention_multiply(typename Layout::scores &scores, const float *own, int own_pitch, const float *tile) {
#pragma unroll 2
  for (int d = 0; d < Slice; d += 4) {
    float4 right[Layout::columns];
#pragma unroll
    for (int c = 0; c < Layout::columns; c++)
      right[c] = *reinterpret_cast<const float4 *>(tile + Layout::column(c) * (Slice + 4) + d);
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      const float4 left = *reinterpret_cast<const float4 *>(own + Layout::row(i) * own_pitch + d);
#pragma unroll
      for (int c = 0; c < Layout::columns; c++) {
        scores[i][c] = fmaf(left.x, right[c].x, scores[i][c]);
        scores[i][c] = fmaf(left.y, right[c].y, scores[i][c]);
        scores[i][c] = fmaf(left.z, right[c].z, scores[i][c]);
        scores[i][c] = fmaf(left.w, right[c].w, scores[i][c]);
      }
    }
  }
}

/* sum += weights [rows][64] times a slice of passing vectors: a thread has its rows, and neighbouring elements. */
template <class Layout, int Slice>
DEVICE void attention_accumulate(float (&sum)[Layout::rows][Slice / 16], const float *weights, const float *tile) {
  constexpr int pitch = attention_f32_columns + 4, elements = Slice / 16;
  struct alignas(4 * elements) group { float element[elements]; };
#pragma unroll 2
  for (int j = 0; j < attention_f32_columns; j += 4) {
    group right[4];
#pragma unroll
    for (int n = 0; n < 4; n++)
      right[n] = *reinterpret_cast<const group *>(tile + (j + n) * (Slice + 4) + threadIdx.x % 16 * elements);
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      const float4 left = *reinterpret_cast<const float4 *>(weights + Layout::row(i) * pitch + j);
#pragma unroll
      for (int e = 0; e < elements; e++) {
        sum[i][e] = fmaf(left.x, right[0].element[e], sum[i][e]);
        sum[i][e] = fmaf(left.y, right[1].element[e], sum[i][e]);
        sum[i][e] = fmaf(left.z, right[2].element[e], sum[i][e]);
        sum[i][e] = fmaf(left.w, right[3].element[e], sum[i][e]);
      }
    }
  }
}

/* Leaves a thread's weights in shared memory, for the half warp that has their rows. */
template <class Layout>
DEVICE void attention_share(float *weights, typename Layout::scores &scores) {
  __syncwarp();
#pragma unroll
  for (int i = 0; i < Layout::rows; i++)
#pragma unroll
    for (int c = 0; c < Layout::columns; c++)
      weights[Layout::row(i) * (attention_f32_columns + 4) + Layout::column(c)] = scores[i][c];
  __syncwarp();
}

template <class Layout>
DEVICE void attention_clear(typename Layout::scores &scores) {
#pragma unroll
  for (int i = 0; i < Layout::rows; i++)
#pragma unroll
    for (int c = 0; c < Layout::columns; c++) scores[i][c] = 0.0f;
}

/* Slices of two kinds of vectors, A and B, as they pass, in the order in which a block of 64 is asked for them. */
template <class A, class B, int Slice, int... Order>
struct attention_slices {
  static constexpr int size = attention_f32_columns * (Slice + 4);
  static constexpr int a_slices = attention_ceiling(A::width, Slice), b_slices = attention_ceiling(B::width, Slice);
  static constexpr int of_block = (0 + ... + (Order == 0 ? a_slices : b_slices));
  const A a;
  const B b;
  float *const tiles; /* [2][size] */
  const int first, last, all;
  int step = 0;

  DEVICE attention_slices(const A &a, const B &b, float *tiles, int first, int last)
      : a(a), b(b), tiles(tiles), first(first), last(last),
        all(attention_ceiling(max(last - first, 0), attention_f32_columns) * of_block) {
    load(0);
  }
  /* The slice after the last one, when every thread has done with that. */
  DEVICE const float *next() {
    cp_async_wait<0>();
    __syncthreads();
    load(step + 1);
    return tiles + step++ % 2 * size;
  }

private:
  DEVICE void load(int n) {
    if (n < all) {
      float *const tile = tiles + n % 2 * size;
      const int from = first + n / of_block * attention_f32_columns;
      int slice = n % of_block;
      bool found = false;
      (
          [&] {
            constexpr int count = Order == 0 ? a_slices : b_slices;
            if (!found && slice < count) {
              if constexpr (Order == 0)
                attention_stage<attention_f32_columns, Slice, Slice + 4>(tile, a, from, last, slice * Slice);
              else
                attention_stage<attention_f32_columns, Slice, Slice + 4>(tile, b, from, last, slice * Slice);
              found = true;
            }
            slice -= count;
          }(),
          ...);
    }
    cp_async_commit();
  }
};

/* The sizes of a shape's kernels. Threads hold 64 elements of sums each, or fewer. */
template <class Shape>
struct attention_f32 {
  static constexpr int group = Shape::heads / Shape::kv_heads;
  static constexpr int slice = attention_slice(Shape::dim > Shape::value_dim ? Shape::dim : Shape::value_dim);
  static constexpr int key_slices = attention_ceiling(Shape::dim, slice);
  static constexpr int value_slices = attention_ceiling(Shape::value_dim, slice);
  static constexpr int elements = slice / 16;
  static constexpr int key_pitch = key_slices * slice + 4, value_pitch = value_slices * slice + 4;
  static constexpr int weight_pitch = attention_f32_columns + 4;

  static constexpr int rows_of(int most, int sums, int own) {
    int rows = most;
    while (rows > 8 && (rows * sums > 8192 || rows * own > 16384)) rows /= 2;
    return rows;
  }
  static constexpr int forward_rows = rows_of(64, value_pitch - 4, key_pitch - 4);
  static constexpr int backward_rows = rows_of(64, key_pitch + value_pitch - 8, key_pitch + value_pitch - 8);
  /* Rows of a text, up to which its queries are few: those of one query, or more where these leave rows of a block
   * idle. */
  static constexpr int few = group <= 8 ? 8 : group <= 16 ? 16 : group <= 32 ? 32 : attention_ceiling(group, 64) * 64;
  static constexpr int few_rows = rows_of(few < 64 ? few : 64, value_pitch - 4, key_pitch - 4);
  /* Floats of a row's part: the sum of values, the maximum, and the total. */
  static constexpr int part = Shape::value_dim + 2;
  static constexpr int parts = Shape::kv_heads * attention_few_splits * few * part; /* of a text */

  static constexpr int tiles = 2 * attention_f32_columns * (slice + 4);
  static constexpr unsigned forward_bytes(int rows) { return 4 * (rows * (key_pitch + weight_pitch) + tiles); }
  static constexpr unsigned forward_shared = forward_bytes(forward_rows), few_shared = forward_bytes(few_rows);
  static constexpr unsigned backward_shared =
      4 * (backward_rows * (key_pitch + value_pitch + weight_pitch) + tiles + 2 * attention_f32_columns);

  /* Blocks that a multiprocessor is to hold: what registers allow without spilling. */
  static constexpr int forward_blocks = 2, query_gradient_blocks = 2, key_gradient_blocks = 2;
  static constexpr int few_blocks = Shape::value_dim > 512 ? 2 : Shape::value_dim > 256 ? 3 : 4;

  static dim3 grid(int64_t batch, int64_t count, int rows) {
    return dim3(static_cast<unsigned>((count + rows - 1) / rows), Shape::kv_heads, static_cast<unsigned>(batch));
  }
  static dim3 forward_grid(int64_t batch, int64_t time) { return grid(batch, time * group, forward_rows); }
  static dim3 query_gradient_grid(int64_t batch, int64_t time) { return grid(batch, time * group, backward_rows); }
  static dim3 key_gradient_grid(int64_t batch, int64_t time) { return grid(batch, time, backward_rows); }
  /* In decoding: more blocks than `tokens` of any texts fill. */
  static dim3 texts_grid(int64_t tokens, int64_t texts) {
    return dim3(static_cast<unsigned>(tokens * group / forward_rows + texts), Shape::kv_heads);
  }
  static dim3 few_grid(int64_t texts) {
    return dim3(static_cast<unsigned>(texts) * (few / few_rows), Shape::kv_heads, attention_few_splits);
  }
  static dim3 join_grid(int64_t texts) { return dim3(static_cast<unsigned>(texts) * few, Shape::kv_heads); }
};
