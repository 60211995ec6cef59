// product_bf16.h - tiles of products of bfloat16 numbers with float32 sums, by the tensor cores' mma.sync.
//
// Slices of 32 inner positions come to shared memory a few ahead of their use: by asynchronous copies where the operand
// is bfloat16 in memory and its runs begin at even elements, else through registers, where float32 numbers are rounded.
// Pieces of 16 bytes are swizzled, so that neither copies nor ldmatrix meet in a bank.
#pragma once
#include "product.h"

constexpr int malc_slice_depth = 32;

/* A slice of an operand in shared memory: as it lies in global memory, [outer][inner] or [inner][outer]. */
template <malc_side Run, int Outer>
struct malc_slice {
  static constexpr int pieces = (Run == malc_side::inner ? malc_slice_depth : Outer) / 8; // of 8 elements, in a run
  static constexpr int bytes = Outer * malc_slice_depth * 2;
  static_assert(pieces == 4 || pieces % 8 == 0, "runs of 64 bytes, or of multiples of 128");

  /* Bytes from the slice's start. Eight consecutive runs have a piece in eight places of 16 bytes of the 32 banks. */
  static DEVICE uint32_t offset(int run, int piece) {
    const int swizzle = pieces == 4 ? run / 2 % 4 : run % 8;
    return static_cast<uint32_t>(run * pieces + (piece ^ swizzle)) * 16;
  }
};

/* Brings slices of an operand to shared memory: one thread's share. */
template <class Operand, int Outer, int Threads>
struct malc_feed {
  typedef typename Operand::type T;
  typedef malc_slice<Operand::run, Outer> Slice;
  static constexpr int aligned = Operand::aligned, width = Outer / Operand::parts;
  static constexpr int count = Outer * malc_slice_depth / 8 / Threads; // pieces a thread
  static constexpr bool asynchronous = sizeof(T) == 2 && aligned >= 2;
  static_assert(count * 8 * Threads == Outer * malc_slice_depth && width % 8 == 0, "threads have equal shares");

  const Operand &operand;
  const int outer, outer_end, inner_end;
  T held[asynchronous ? 1 : count][8];

  DEVICE malc_feed(const Operand &operand, int outer, int outer_end, int inner_end)
      : operand(operand), outer(outer), outer_end(outer_end), inner_end(inner_end) {}

  /* Starts to bring the slice that begins at `inner`. */
  DEVICE void begin(unsigned char *slice, int inner) {
#pragma unroll
    for (int n = 0; n < count; n++) {
      const int index = n * Threads + threadIdx.x, run = index / Slice::pieces, piece = index % Slice::pieces;
      const bool along = Operand::run == malc_side::inner;
      const int own = along ? run : piece * 8, part = own / width;
      const int at_outer = outer + own % width, at_inner = inner + (along ? piece * 8 : run);
      const T *from = operand.at(part, at_outer, at_inner);
      constexpr int step = aligned; // elements that are there together, or not
#pragma unroll
      for (int k = 0; k < 8; k += step) {
        const bool valid = at_outer + (along ? 0 : k) < outer_end && at_inner + (along ? k : 0) < inner_end;
        if constexpr (asynchronous) {
          // A run may end within a piece: what pads it is not summed, and columns beyond a tile's are not finished.
          const int left = along ? min(step, inner_end - at_inner - k) : step;
          cp_async_part<step * 2>(shared_address(slice) + Slice::offset(run, piece) + k * 2, from + k,
                                  valid ? left * 2 : 0);
        } else {
          constexpr int together = step * sizeof(T) > 16 ? 16 / sizeof(T) : step; // a load has at most 16 bytes
#pragma unroll
          for (int j = 0; j < step; j += together) {
            malc_elements<T, together> loaded = {};
            if (valid) loaded = *reinterpret_cast<const malc_elements<T, together> *>(from + k + j);
#pragma unroll
            for (int i = 0; i < together; i++) held[n][k + j + i] = loaded.values[i];
          }
        }
      }
    }
  }

  /* Stores what came through registers. */
  DEVICE void end(unsigned char *slice) {
    if constexpr (!asynchronous) {
#pragma unroll
      for (int n = 0; n < count; n++) {
        const int index = n * Threads + threadIdx.x;
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
          pairs[i] = pack_bf16(malc_to_float(held[n][2 * i]), malc_to_float(held[n][2 * i + 1]));
        *reinterpret_cast<uint4 *>(slice + Slice::offset(index / Slice::pieces, index % Slice::pieces)) =
            make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      }
    }
  }
};

/* A tile of Rows x Columns by warps of WarpRows x WarpColumns; `Stages` slices of both operands are kept. */
template <int Rows, int Columns, int WarpRows, int WarpColumns, int Stages>
struct malc_tile_bf16 {
  static constexpr int rows = Rows, columns = Columns;
  static constexpr int threads = Rows / WarpRows * (Columns / WarpColumns) * 32;
  static constexpr int slices_bytes = Stages * (Rows + Columns) * malc_slice_depth * 2;
  static constexpr int sums_bytes = Rows * malc_tile_sums<Columns>::stride * 4;
  /* Dynamic shared memory: slices, and then sums. */
  static constexpr int shared_bytes = slices_bytes > sums_bytes ? slices_bytes : sums_bytes;

  float sums[WarpRows / 16][WarpColumns / 8][4];
  const malc_place at;
  const int warp_row, warp_column;

  DEVICE explicit malc_tile_bf16(const malc_place &at)
      : at(at), warp_row(static_cast<int>(threadIdx.x) / 32 / (Columns / WarpColumns) * WarpRows),
        warp_column(static_cast<int>(threadIdx.x) / 32 % (Columns / WarpColumns) * WarpColumns) {
#pragma unroll
    for (int i = 0; i < WarpRows / 16; i++)
#pragma unroll
      for (int j = 0; j < WarpColumns / 8; j++)
#pragma unroll
        for (int n = 0; n < 4; n++) sums[i][j][n] = 0;
  }

  /* Adds the product over the inner positions [inner, inner_end). */
  template <class Left, class Right>
  DEVICE void multiply(const Left &left, const Right &right, int inner, int inner_end) {
    typedef malc_feed<Left, Rows, threads> LeftFeed;
    typedef malc_feed<Right, Columns, threads> RightFeed;
    constexpr int both = LeftFeed::Slice::bytes + RightFeed::Slice::bytes;
    unsigned char *const shared = dynamic_shared();
    LeftFeed left_feed(left, at.row, at.row_end, inner_end);
    RightFeed right_feed(right, at.column, at.column_end, inner_end);
    const int slices = (inner_end - inner + malc_slice_depth - 1) / malc_slice_depth;
    const auto begin = [&](int slice) {
      unsigned char *const stage = shared + slice % Stages * both;
      left_feed.begin(stage, inner + slice * malc_slice_depth);
      right_feed.begin(stage + LeftFeed::Slice::bytes, inner + slice * malc_slice_depth);
    };
    const auto end = [&](int slice) {
      unsigned char *const stage = shared + slice % Stages * both;
      left_feed.end(stage);
      right_feed.end(stage + LeftFeed::Slice::bytes);
    };
    // Neither loop over slices is unrolled: what nvcc would hoist from several copies would not fit into registers.
#pragma unroll 1
    for (int slice = 0; slice < Stages - 1; slice++) {
      if (slice < slices) {
        begin(slice);
        end(slice);
      }
      cp_async_commit();
    }
#pragma unroll 1
    for (int slice = 0; slice < slices; slice++) {
      // One barrier a slice: it has come for all threads, and all are done with the one whose place the next takes.
      cp_async_wait<Stages - 2>();
      __syncthreads();
      const int next = slice + Stages - 1;
      if (next < slices) begin(next);
      cp_async_commit();
      multiply_slice<typename LeftFeed::Slice, typename RightFeed::Slice, Left::run, Right::run>(
          shared_address(shared + slice % Stages * both));
      if (next < slices) end(next);
    }
    cp_async_wait<0>();
    __syncthreads();
  }

  template <class LeftSlice, class RightSlice, malc_side LeftRun, malc_side RightRun>
  DEVICE void multiply_slice(uint32_t left) {
    const uint32_t right = left + LeftSlice::bytes;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < malc_slice_depth; k += 16) {
      uint32_t a[WarpRows / 16][4], b[WarpColumns / 16][4];
#pragma unroll
      for (int i = 0; i < WarpRows / 16; i++) {
        const int row = warp_row + i * 16;
        if constexpr (LeftRun == malc_side::inner)
          ldmatrix(a[i], left + LeftSlice::offset(row + lane % 16, k / 8 + lane / 16));
        else
          ldmatrix_transposed(a[i], left + LeftSlice::offset(k + lane % 8 + lane / 16 * 8, row / 8 + lane / 8 % 2));
      }
#pragma unroll
      for (int j = 0; j < WarpColumns / 16; j++) {
        const int column = warp_column + j * 16;
        if constexpr (RightRun == malc_side::inner)
          ldmatrix(b[j], right + RightSlice::offset(column + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
        else
          ldmatrix_transposed(b[j], right + RightSlice::offset(k + lane % 16, column / 8 + lane / 16));
      }
#pragma unroll
      for (int i = 0; i < WarpRows / 16; i++)
#pragma unroll
        for (int j = 0; j < WarpColumns / 16; j++) {
          mma_bf16(sums[i][2 * j], a[i], b[j][0], b[j][1]);
          mma_bf16(sums[i][2 * j + 1], a[i], b[j][2], b[j][3]);
        }
    }
  }

  /* Calls finish(sums, row, column) for every `Step`-th element, of `Parts` products side by side. */
  template <int Parts, int Step, class Finish>
  DEVICE void finish(const Finish &finish) const {
    float *const tile = reinterpret_cast<float *>(dynamic_shared());
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < WarpRows / 16; i++)
#pragma unroll
      for (int j = 0; j < WarpColumns / 8; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int row = warp_row + i * 16 + half * 8 + lane / 4, column = warp_column + j * 8 + lane % 4 * 2;
          *reinterpret_cast<float2 *>(tile + row * malc_tile_sums<Columns>::stride + column) =
              make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
        }
    __syncthreads();
    malc_finish_tile<threads, Rows, Columns, Parts, Step>(tile, at, finish);
  }
};
