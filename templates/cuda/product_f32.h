// product_f32.h - tiles of products of float32 numbers, by fused multiplications and additions.
//
// Tensor cores would round the operands to tf32, which is not exact enough for float32 programs. Slices of 16 inner
// positions come through registers, the next one while this is multiplied, and lie in shared memory as [inner][outer].
#pragma once
#include "product.h"

constexpr int malc_slice_depth_f32 = 16;

/* Brings slices of an operand to shared memory: one thread's share. */
template <class Operand, int Outer, int Threads>
struct malc_feed_f32 {
  static constexpr int stride = Outer + 4; // from one inner position to the next; rows of 16 bytes stay aligned
  static constexpr int width = Outer / Operand::parts;
  static constexpr int count = Outer * malc_slice_depth_f32 / 4 / Threads; // pieces of 4 elements a thread
  static constexpr int step = Operand::aligned > 4 ? 4 : Operand::aligned; // elements that are there together, or not
  static constexpr bool along = Operand::run == malc_side::inner;
  static_assert(sizeof(typename Operand::type) == 4, "exact products read float32");
  static_assert(count * 4 * Threads == Outer * malc_slice_depth_f32, "threads have equal shares");

  const Operand &operand;
  const int outer, outer_end, inner_end;
  float held[count][4];

  DEVICE malc_feed_f32(const Operand &operand, int outer, int outer_end, int inner_end)
      : operand(operand), outer(outer), outer_end(outer_end), inner_end(inner_end) {}

  /* A piece's place in the slice: where inner positions lie side by side, a warp's pieces have neighbouring outer ones,
   * so that they are stored to different banks. */
  static DEVICE int outer_of(int index) { return along ? index % Outer : index % (Outer / 4) * 4; }
  static DEVICE int inner_of(int index) { return along ? index / Outer * 4 : index / (Outer / 4); }

  DEVICE void begin(int inner) {
#pragma unroll
    for (int n = 0; n < count; n++) {
      const int index = n * Threads + threadIdx.x, own = outer_of(index);
      const int at_outer = outer + own % width, at_inner = inner + inner_of(index);
      const float *from = operand.at(own / width, at_outer, at_inner);
#pragma unroll
      for (int k = 0; k < 4; k += step) {
        const bool valid = at_outer + (along ? 0 : k) < outer_end && at_inner + (along ? k : 0) < inner_end;
        malc_elements<float, step> loaded = {};
        if (valid) loaded = *reinterpret_cast<const malc_elements<float, step> *>(from + k);
#pragma unroll
        for (int i = 0; i < step; i++) held[n][k + i] = loaded.values[i];
      }
    }
  }

  DEVICE void end(float *slice) const {
#pragma unroll
    for (int n = 0; n < count; n++) {
      const int index = n * Threads + threadIdx.x;
      float *const to = slice + inner_of(index) * stride + outer_of(index);
      if constexpr (along) {
#pragma unroll
        for (int k = 0; k < 4; k++) to[k * stride] = held[n][k];
      } else {
        *reinterpret_cast<float4 *>(to) = make_float4(held[n][0], held[n][1], held[n][2], held[n][3]);
      }
    }
  }
};

/* A tile of Rows x Columns by 16 x 16 threads: each has every 64th run of 4 rows and of 4 columns. */
template <int Rows, int Columns>
struct malc_tile_f32 {
  static constexpr int rows = Rows, columns = Columns, threads = 256;
  static constexpr int slices_bytes = 2 * (Rows + 4 + Columns + 4) * malc_slice_depth_f32 * 4;
  static constexpr int sums_bytes = Rows * malc_tile_sums<Columns>::stride * 4;
  static constexpr int shared_bytes = slices_bytes > sums_bytes ? slices_bytes : sums_bytes;

  float sums[Rows / 16][Columns / 16];
  const malc_place at;

  DEVICE explicit malc_tile_f32(const malc_place &at) : at(at) {
#pragma unroll
    for (int i = 0; i < Rows / 16; i++)
#pragma unroll
      for (int j = 0; j < Columns / 16; j++) sums[i][j] = 0;
  }

  /* The thread's n-th row or column of the tile. */
  static DEVICE int own(int thread, int n) { return n / 4 * 64 + thread * 4 + n % 4; }

  /* Adds the product over the inner positions [inner, inner_end). */
  template <class Left, class Right>
  DEVICE void multiply(const Left &left, const Right &right, int inner, int inner_end) {
    typedef malc_feed_f32<Left, Rows, threads> LeftFeed;
    typedef malc_feed_f32<Right, Columns, threads> RightFeed;
    constexpr int left_size = LeftFeed::stride * malc_slice_depth_f32;
    constexpr int both = left_size + RightFeed::stride * malc_slice_depth_f32;
    float *const shared = reinterpret_cast<float *>(dynamic_shared());
    LeftFeed left_feed(left, at.row, at.row_end, inner_end);
    RightFeed right_feed(right, at.column, at.column_end, inner_end);
    const auto begin = [&](int from) {
      left_feed.begin(from);
      right_feed.begin(from);
    };
    const auto end = [&](float *stage) {
      left_feed.end(stage);
      right_feed.end(stage + left_size);
    };
    if (inner < inner_end) {
      begin(inner);
      end(shared);
    }
    int stage = 0;
    for (int from = inner; from < inner_end; from += malc_slice_depth_f32) {
      __syncthreads();
      const bool more = from + malc_slice_depth_f32 < inner_end;
      if (more) begin(from + malc_slice_depth_f32);
      multiply_slice<LeftFeed::stride, RightFeed::stride>(shared + stage * both, shared + stage * both + left_size);
      stage ^= 1;
      if (more) end(shared + stage * both);
    }
    __syncthreads();
  }

  template <int LeftStride, int RightStride>
  DEVICE void multiply_slice(const float *left, const float *right) {
    const int down = threadIdx.x / 16, across = threadIdx.x % 16;
#pragma unroll
    for (int k = 0; k < malc_slice_depth_f32; k++) {
      float a[Rows / 16], b[Columns / 16];
#pragma unroll
      for (int i = 0; i < Rows / 16; i += 4) load(a + i, left + k * LeftStride + own(down, i));
#pragma unroll
      for (int j = 0; j < Columns / 16; j += 4) load(b + j, right + k * RightStride + own(across, j));
#pragma unroll
      for (int i = 0; i < Rows / 16; i++)
#pragma unroll
        for (int j = 0; j < Columns / 16; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
  }

  static DEVICE void load(float *to, const float *from) {
    const float4 four = *reinterpret_cast<const float4 *>(from);
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
  }

  /* Calls finish(sums, row, column) for every `Step`-th element, of `Parts` products side by side. */
  template <int Parts, int Step, class Finish>
  DEVICE void finish(const Finish &finish) const {
    float *const tile = reinterpret_cast<float *>(dynamic_shared());
    const int down = threadIdx.x / 16, across = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < Rows / 16; i++)
#pragma unroll
      for (int j = 0; j < Columns / 16; j += 4)
        *reinterpret_cast<float4 *>(tile + own(down, i) * malc_tile_sums<Columns>::stride + own(across, j)) =
            make_float4(sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]);
    __syncthreads();
    malc_finish_tile<threads, Rows, Columns, Parts, Step>(tile, at, finish);
  }
};
