// attention_bf16.h - attention of bfloat16 products on tensor cores (mma.sync), for vectors of up to 256 elements.
//
// A warp owns 16 rows of a block of 64, or 16 keys in dK and dV. Scores stay in its registers: what mma leaves of one
// product is, packed, what it takes as the left operand of the next (Dao, 2023). Vectors that pass come in blocks, two
// at a time: one is copied while the other is multiplied. Rows of shared memory are 16 bytes longer than vectors, so
// that eight of them lie in different banks.
#pragma once
#include "attention.h"

constexpr int attention_bf16_rows = 64;
constexpr int attention_bf16_widest = 256;

/* A block of scores as mma leaves it: lane l of a warp has rows l / 4 and l / 4 + 8, and of every eight columns two. */
template <int Columns>
struct attention_bf16_layout {
  static constexpr int all_rows = attention_bf16_rows, all_columns = Columns;
  static constexpr int rows = 2, columns = Columns / 4, lanes = 4;
  typedef float scores[Columns / 8][4];
  DEVICE static int row(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i; }
  DEVICE static int column(int c) { return c / 2 * 8 + threadIdx.x % 4 * 2 + c % 2; }
  DEVICE static float &at(scores &scores, int i, int c) { return scores[c / 2][2 * i + c % 2]; }
};

/* The sizes of a shape's kernels. Vectors are filled with zeros to multiples of 16 elements; dK and dV of wide ones are
 * computed in two parts, of some of their elements each, by blocks of their own. */
template <class Shape>
struct attention_bf16 {
  static constexpr int group = Shape::heads / Shape::kv_heads;
  static constexpr int widest = Shape::dim > Shape::value_dim ? Shape::dim : Shape::value_dim;
  static constexpr int parts = widest > 128 ? 2 : 1;
  static constexpr int dim = attention_ceiling(Shape::dim, 16 * parts) * 16 * parts;
  static constexpr int value_dim = attention_ceiling(Shape::value_dim, 16 * parts) * 16 * parts;
  static constexpr int key_pitch = dim + 8, value_pitch = value_dim + 8;

  static constexpr int forward_rows = attention_bf16_rows;
  static constexpr int forward_columns = widest > 128 ? 32 : 64;
  static constexpr int backward_columns = widest > 64 ? 32 : 64;
  static constexpr unsigned forward_shared =
      2 * (attention_bf16_rows * key_pitch + 2 * forward_columns * (key_pitch + value_pitch));
  static constexpr unsigned backward_shared =
      2 * (attention_bf16_rows + 2 * backward_columns) * (key_pitch + value_pitch) + 4 * 4 * backward_columns;

  /* Blocks that a multiprocessor is to hold: what registers allow without spilling. */
  static constexpr int forward_blocks = widest > 64 ? 2 : 3;
  static constexpr int query_gradient_blocks = backward_columns == 32 && widest <= 128 ? 3 : 2;
  static constexpr int key_gradient_blocks = 2;

  static dim3 grid(int64_t batch, int64_t rows, int64_t heads = Shape::kv_heads) {
    return dim3(static_cast<unsigned>((rows + attention_bf16_rows - 1) / attention_bf16_rows),
                static_cast<unsigned>(heads), static_cast<unsigned>(batch));
  }
  static dim3 forward_grid(int64_t batch, int64_t time) { return grid(batch, time * group); }
  /* In decoding: more blocks than `tokens` of any texts fill. */
  static dim3 texts_grid(int64_t tokens, int64_t texts) {
    return dim3(static_cast<unsigned>(tokens * group / attention_bf16_rows + texts), Shape::kv_heads);
  }
  static dim3 query_gradient_grid(int64_t batch, int64_t time) { return grid(batch, time * group); }
  static dim3 key_gradient_grid(int64_t batch, int64_t time) { return grid(batch, time, Shape::kv_heads * parts); }
};

/* Copies vectors [first, first + Rows) to shared memory as bfloat16, Columns elements of each; zeros for what lies
 * beyond `end` or their width. They are there after cp_async_wait<0> and a barrier. */
template <int Rows, int Columns, class Vectors>
DEVICE void attention_stage_bf16(__nv_bfloat16 *tile, const Vectors &vectors, int first, int end) {
  constexpr int chunks = Columns / 8, step = Vectors::step;
  constexpr bool is_float = sizeof(typename Vectors::element) == sizeof(float);
  for (int i = threadIdx.x; i < Rows * chunks; i += attention_threads) {
    const int row = i / chunks, column = i % chunks * 8;
    const bool there = first + row < end;
    const auto *const from = there ? vectors.row(first + row) + column : vectors.start;
    __nv_bfloat16 *const to = tile + row * (Columns + 8) + column;
    if constexpr (!is_float && step == 8) {
      const bool valid = there && column < Vectors::width;
      cp_async<16>(shared_address(to), valid ? from : vectors.start, valid);
    } else {
      float element[8];
#pragma unroll
      for (int e = 0; e < 8; e += is_float && step == 4 ? 4 : 1) {
        const bool valid = there && column + e < Vectors::width;
        if constexpr (is_float && step == 4) {
          float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
          if (valid) four = *reinterpret_cast<const float4 *>(from + e);
          element[e] = four.x, element[e + 1] = four.y, element[e + 2] = four.z, element[e + 3] = four.w;
        } else {
          element[e] = valid ? static_cast<float>(from[e]) : 0.0f;
        }
      }
      *reinterpret_cast<uint4 *>(to) = make_uint4(pack_bf16(element[0], element[1]), pack_bf16(element[2], element[3]),
                                                  pack_bf16(element[4], element[5]), pack_bf16(element[6], element[7]));
    }
  }
}

/* A warp's 16 vectors of Depth elements as left operands: in registers where they are Held, or read from shared memory
 * whenever they are asked for. */
template <int Depth, bool Held>
struct attention_left {
  const uint32_t address;
  uint32_t held[Held ? Depth / 16 : 1][4];

  /* Of the block's vectors, which lie in shared memory. */
  DEVICE explicit attention_left(const __nv_bfloat16 *block)
      : address(shared_address(block + (threadIdx.x / 32 * 16 + threadIdx.x % 16) * (Depth + 8) +
                               threadIdx.x % 32 / 16 * 8)) {}
  DEVICE void hold() {
    if constexpr (Held) {
#pragma unroll
      for (int k = 0; k < Depth / 16; k++) ldmatrix(held[k], address + k * 32);
    }
  }
  DEVICE void get(uint32_t (&left)[4], int k) const {
    if constexpr (Held) {
#pragma unroll
      for (int n = 0; n < 4; n++) left[n] = held[k][n];
    } else {
      ldmatrix(left, address + k * 32);
    }
  }
};

/* scores = a warp's vectors times passing vectors [Layout::all_columns][Depth], transposed. */
template <class Layout, int Depth, bool Held>
DEVICE void attention_multiply_bf16(typename Layout::scores &scores, const attention_left<Depth, Held> &own,
                                    const __nv_bfloat16 *tile) {
  const int lane = threadIdx.x % 32;
  const uint32_t address = shared_address(tile + (lane % 8 + lane / 16 * 8) * (Depth + 8) + lane / 8 % 2 * 8);
#pragma unroll
  for (int n = 0; n < Layout::all_columns / 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) scores[n][e] = 0.0f;
#pragma unroll
  for (int k = 0; k < Depth / 16; k++) {
    uint32_t left[4];
    own.get(left, k);
#pragma unroll
    for (int n = 0; n < Layout::all_columns / 16; n++) {
      uint32_t right[4];
      ldmatrix(right, address + n * 16 * (Depth + 8) * 2 + k * 32);
      mma_bf16(scores[2 * n], left, right[0], right[1]);
      mma_bf16(scores[2 * n + 1], left, right[2], right[3]);
    }
  }
}

/* sum += weights [16][Layout::all_columns] of a warp times elements [0, Width) of passing vectors, Pitch apart. */
template <class Layout, int Width, int Pitch>
DEVICE void attention_accumulate_bf16(float (&sum)[Width / 8][4], const typename Layout::scores &weights,
                                      const __nv_bfloat16 *tile) {
  const int lane = threadIdx.x % 32;
  const uint32_t address = shared_address(tile + lane % 16 * Pitch + lane / 16 * 8);
#pragma unroll
  for (int k = 0; k < Layout::all_columns / 16; k++) {
    uint32_t left[4];
#pragma unroll
    for (int n = 0; n < 4; n++)
      left[n] = pack_bf16(weights[2 * k + n / 2][n % 2 * 2], weights[2 * k + n / 2][n % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < Width / 16; n++) {
      uint32_t right[4];
      ldmatrix_transposed(right, address + k * 16 * Pitch * 2 + n * 32);
      mma_bf16(sum[2 * n], left, right[0], right[1]);
      mma_bf16(sum[2 * n + 1], left, right[2], right[3]);
    }
  }
}

DEVICE void attention_store_two(float *to, float a, float b) { *reinterpret_cast<float2 *>(to) = make_float2(a, b); }
DEVICE void attention_store_two(__nv_bfloat16 *to, float a, float b) {
  *reinterpret_cast<uint32_t *>(to) = pack_bf16(a, b);
}

/* Stores a warp's sums of elements [column, column + Width), each row by its factor, to vectors from `first`. */
template <class Layout, int Width, class Vectors>
DEVICE void attention_store_sums_bf16(const Vectors &to, const float (&sum)[Width / 8][4], int first, int end,
                                      int column, const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int row = first + Layout::row(i);
    if (row >= end) continue;
#pragma unroll
    for (int n = 0; n < Width / 8; n++) {
      const int d = column + n * 8 + threadIdx.x % 4 * 2;
      const float a = factor[i] * sum[n][2 * i], b = factor[i] * sum[n][2 * i + 1];
      if constexpr (Vectors::even) {
        if (d < Vectors::width) attention_store_two(to.row(row) + d, a, b);
      } else {
        if (d < Vectors::width) attention_store(to.row(row) + d, a);
        if (d + 1 < Vectors::width) attention_store(to.row(row) + d + 1, b);
      }
    }
  }
}
