// product_sm90_finish.h - how consumers of product_sm90.h finish elements where their sums are: in registers.
//
// A warpgroup finishes its 64 rows by itself, 64 columns at a time, so that the other one multiplies meanwhile. What is
// read where the result lies (a residual, an activation's input) TMA brings, the first columns before the product is
// begun, so that nobody waits for memory element by element; and what is stored there leaves by TMA. Both pass through
// boxes of 64 rows of 128 bytes in shared memory, in TMA's swizzle: 64 columns of bfloat16 are one box, of float32
// two. A slot has the boxes of 64 columns; a tensor that is read and one that is stored may share theirs. Where two
// slots fit only without the boxes of what is stored and has nobody to share with, all slots have these in common:
// they come first.
//
// Order: ordinary writes to boxes, fence_async by each thread, the warpgroup's barrier, then the store by its first
// thread, which waits until a slot's stores have been read before anything else comes to the slot.
#pragma once
#include "product.h"

// ---- Two elements of a row, side by side: what a thread has of each 8 columns ----

/* Of a tensor that passes through boxes. */
template <class T>
struct malc_two;
template <>
struct malc_two<float> {
  float values[2];
};
template <>
struct malc_two<__nv_bfloat16> {
  uint32_t packed;
};

DEVICE void malc_load_2(float (&to)[2], const malc_two<float> &from) { to[0] = from.values[0], to[1] = from.values[1]; }
DEVICE void malc_load_2(float (&to)[2], const malc_two<__nv_bfloat16> &from) {
  to[0] = __uint_as_float(from.packed << 16), to[1] = __uint_as_float(from.packed & 0xffff0000u);
}
DEVICE void malc_store_2(malc_two<float> &to, const float (&from)[2]) {
  to.values[0] = from[0], to.values[1] = from[1];
}
DEVICE void malc_store_2(malc_two<__nv_bfloat16> &to, const float (&from)[2]) {
  to.packed = pack_bf16(from[0], from[1]);
}

/* In memory, at a place that is aligned to both. */
DEVICE void malc_load_2(float (&to)[2], const float *from) {
  const float2 both = *reinterpret_cast<const float2 *>(from);
  to[0] = both.x, to[1] = both.y;
}
DEVICE void malc_load_2(float (&to)[2], const __nv_bfloat16 *from) {
  malc_load_2(to, malc_two<__nv_bfloat16>{*reinterpret_cast<const uint32_t *>(from)});
}
DEVICE void malc_store_2(float *to, const float (&from)[2]) {
  *reinterpret_cast<float2 *>(to) = make_float2(from[0], from[1]);
}
DEVICE void malc_store_2(__nv_bfloat16 *to, const float (&from)[2]) {
  *reinterpret_cast<uint32_t *>(to) = pack_bf16(from[0], from[1]);
}

/* A thread's sums of Parts products side by side, at two columns. */
template <int Columns, int Parts>
struct malc_sums_of_two {
  const float (&sums)[Columns / 2];
  int first; /* of the first product */
  DEVICE void two(float (&to)[2], int product, int64_t, int64_t) const {
    const int n = product * (Columns / Parts / 2) + first;
    to[0] = sums[n], to[1] = sums[n + 1];
  }
};

// ---- Tensors that lie like the result ----

constexpr int malc_box_rows = 64, malc_box_bytes = 8192;

/* Where a lane's 16 bytes of a box are: of a row, the n-th. */
DEVICE uint32_t malc_place_in_box(int row, int n) { return row * 128 + ((n ^ row % 8) << 4); }

enum class malc_way { brought, left, apart };

/* A tensor that is brought or left, from box number `Box` of a slot on, or of those that are apart, and what a thread
 * has at hand of it: of 32 columns, a half of a slot's, two elements of rows r and r + 8 for each 8 columns. More would
 * leave too few registers. */
template <malc_way Way, class T, int Box>
struct malc_passing {
  static constexpr int boxes = sizeof(T) / 2, box_columns = 64 / boxes;
  static constexpr bool is_apart = Way == malc_way::apart, is_left = is_apart || Way == malc_way::left;
  static constexpr int end = is_apart ? 0 : Box + boxes; /* boxes of a slot that has it */
  static constexpr int apart_end = is_apart ? Box + boxes : 0;
  static constexpr int brought_bytes = Way == malc_way::brought ? boxes * malc_box_bytes : 0;
  const CUtensorMap *map;
  malc_two<T> pairs[8];

  DEVICE explicit malc_passing(const CUtensorMap *map) : map(map) {}

  /* By one thread. */
  DEVICE void bring(uint32_t slot, uint32_t barrier, int column, int row) const {
    if constexpr (Way == malc_way::brought)
#pragma unroll
      for (int n = 0; n < boxes; n++)
        tma_load_2d(slot + (Box + n) * malc_box_bytes, map, barrier, column + n * box_columns, row);
  }
  DEVICE void send(uint32_t slot, int column, int row) const {
    if constexpr (is_left)
#pragma unroll
      for (int n = 0; n < boxes; n++)
        tma_store_2d(map, slot + (Box + n) * malc_box_bytes, column + n * box_columns, row);
  }

  /* By a warpgroup, from and to a half of the slot that begins at dynamic_shared() + slot. */
  DEVICE void take(int slot, int half) {
    if constexpr (Way == malc_way::brought) pass(slot, half);
  }
  DEVICE void leave(int slot, int half, const malc_place &) {
    if constexpr (is_left) pass(slot, half);
  }
  DEVICE void conclude(const malc_place &) const {}

private:
  DEVICE void pass(int slot, int half) {
    const int lane = threadIdx.x % 32, first_row = threadIdx.x % 128 / 32 * 16;
    unsigned char *const box = dynamic_shared() + slot + Box * malc_box_bytes;
    if constexpr (boxes == 1) {
      const int row = first_row + lane % 16;
#pragma unroll
      for (int n = 0; n < 2; n++) { // 16 columns
        const uint32_t place = shared_address(box) + malc_place_in_box(row, 4 * half + 2 * n + lane / 16);
        uint32_t four[4];
        if constexpr (is_left) {
#pragma unroll
          for (int i = 0; i < 4; i++) four[i] = pairs[4 * n + i].packed;
          stmatrix(place, four);
        } else {
          ldmatrix(four, place);
#pragma unroll
          for (int i = 0; i < 4; i++) pairs[4 * n + i].packed = four[i];
        }
      }
    } else {
#pragma unroll
      for (int n = 0; n < 8; n++) {
        const int row = first_row + n % 2 * 8 + lane / 4, of_box = n / 2 * 2 + lane % 4 / 2;
        float *const place = reinterpret_cast<float *>(box + half * malc_box_bytes + malc_place_in_box(row, of_box));
        if constexpr (is_left) malc_store_2(place + lane % 2 * 2, pairs[n].values);
        else malc_load_2(pairs[n].values, place + lane % 2 * 2);
      }
    }
  }
};

/* Two elements that are summed over the rows, or zeros where the result has none. */
DEVICE void malc_sum_2(malc_two<float> &to, const float (&from)[2], bool inside) {
  to.values[0] = inside ? from[0] : 0.0f, to.values[1] = inside ? from[1] : 0.0f;
}

constexpr int malc_summed_rows = 16;

/* Sums over the 16 rows of a warp, [rows / 16][columns], which totals.h adds up. */
struct malc_summed {
  static constexpr bool is_apart = false;
  static constexpr int end = 0, apart_end = 0, brought_bytes = 0;
  float *sums;
  int64_t columns;
  malc_two<float> pairs[8];

  DEVICE malc_summed(float *sums, int64_t columns) : sums(sums), columns(columns) {}
  DEVICE void bring(uint32_t, uint32_t, int, int) const {}
  DEVICE void send(uint32_t, int, int) const {}
  DEVICE void take(int, int) const {}
  DEVICE void conclude(const malc_place &) const {}
  /* `at` is the warp's rows, and the columns from the half of the slot on. */
  DEVICE void leave(int, int, const malc_place &at) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 4; n++) {
      float both[2];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        both[i] = pairs[2 * n].values[i] + pairs[2 * n + 1].values[i];
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2)
          both[i] += __shfl_xor_sync(0xffffffffu, both[i], distance);
      }
      const int column = at.column + n * 8 + lane * 2;
      if (lane < 4 && column < at.column_end && at.row < at.row_end)
        malc_store_2(sums + at.row / malc_summed_rows * columns + column, both);
    }
  }
};

/* The slots of a warpgroup that has so many boxes, for tensors that pass together. */
template <int Boxes, class... Tensors>
struct malc_slots_of {
  static constexpr int largest(int most) { return most; }
  template <class... Others>
  static constexpr int largest(int most, int other, Others... others) {
    return largest(most > other ? most : other, others...);
  }
  static constexpr int boxes = largest(1, Tensors::end...), apart = largest(0, Tensors::apart_end...);
  static constexpr int most = 4, fit = (Boxes - apart) / boxes, count = fit < most ? fit : most;
  static constexpr int brought_bytes = (0 + ... + Tensors::brought_bytes);
  static_assert(count > 0, "what passes together fits the boxes");
  static_assert(apart == 0 || brought_bytes > 0, "without what is brought, slots have all boxes");

  /* Where a tensor's boxes of a slot are counted from. */
  template <class Tensor>
  DEVICE static int start(int slot) {
    return Tensor::is_apart ? 0 : (apart + slot * boxes) * malc_box_bytes;
  }
};
