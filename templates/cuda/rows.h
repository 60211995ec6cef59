// rows.h - what row kernels are made of: elements, one or several at a time, sums and maxima over a row's lanes.
#pragma once
#include "scalars.h"

/* An element as a float, and a float as one. */
DEVICE float malc_to_float(float value) { return value; }
DEVICE float malc_to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
DEVICE void malc_store(float *to, float value) { *to = value; }
DEVICE void malc_store(__nv_bfloat16 *to, float value) { *to = __float2bfloat16_rn(value); }

/* Four elements from a place that is aligned to as many. */
DEVICE void malc_load_4(float (&to)[4], const float *from) {
  const float4 all = *reinterpret_cast<const float4 *>(from);
  to[0] = all.x, to[1] = all.y, to[2] = all.z, to[3] = all.w;
}
DEVICE void malc_load_4(float (&to)[4], const __nv_bfloat16 *from) {
  const uint2 all = *reinterpret_cast<const uint2 *>(from);
  to[0] = __uint_as_float(all.x << 16), to[1] = __uint_as_float(all.x & 0xffff0000u);
  to[2] = __uint_as_float(all.y << 16), to[3] = __uint_as_float(all.y & 0xffff0000u);
}
DEVICE void malc_store_4(float *to, const float (&from)[4]) {
  *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
}
DEVICE void malc_store_4(__nv_bfloat16 *to, const float (&from)[4]) {
  *reinterpret_cast<uint2 *>(to) = make_uint2(pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3]));
}

/* One, four or eight that lie side by side, from a place that is aligned to 16 bytes, or to as many as they have. */
template <class Element>
DEVICE void malc_load_vector(float (&to)[1], const Element *from) {
  to[0] = malc_to_float(*from);
}
template <class Element>
DEVICE void malc_load_vector(float (&to)[4], const Element *from) {
  malc_load_4(to, from);
}
DEVICE void malc_load_vector(float (&to)[8], const float *from) {
  const float4 *const halves = reinterpret_cast<const float4 *>(from);
  const float4 low = halves[0], high = halves[1];
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
DEVICE void malc_load_vector(float (&to)[8], const __nv_bfloat16 *from) {
  const uint4 all = *reinterpret_cast<const uint4 *>(from);
  const uint32_t pairs[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
  for (int n = 0; n < 4; n++) {
    to[2 * n] = __uint_as_float(pairs[n] << 16);
    to[2 * n + 1] = __uint_as_float(pairs[n] & 0xffff0000u);
  }
}
template <class Element>
DEVICE void malc_store_vector(Element *to, const float (&from)[1]) {
  malc_store(to, from[0]);
}
template <class Element>
DEVICE void malc_store_vector(Element *to, const float (&from)[4]) {
  malc_store_4(to, from);
}
DEVICE void malc_store_vector(float *to, const float (&from)[8]) {
  float4 *const halves = reinterpret_cast<float4 *>(to);
  halves[0] = make_float4(from[0], from[1], from[2], from[3]);
  halves[1] = make_float4(from[4], from[5], from[6], from[7]);
}
DEVICE void malc_store_vector(__nv_bfloat16 *to, const float (&from)[8]) {
  *reinterpret_cast<uint4 *>(to) = make_uint4(pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3]),
                                              pack_bf16(from[4], from[5]), pack_bf16(from[6], from[7]));
}

template <int Count>
DEVICE void malc_add_vector(float (&sum)[Count], const float (&other)[Count]) {
#pragma unroll
  for (int n = 0; n < Count; n++) sum[n] += other[n];
}

/* Stores elements, or adds them to what is there. */
template <int Count>
DEVICE void malc_leave_vector(float *to, const float (&from)[Count], bool adds) {
  float all[Count] = {};
  if (adds) malc_load_vector(all, to);
  malc_add_vector(all, from);
  malc_store_vector(to, all);
}

/* The bits of elements side by side, as one number. */
template <int Bytes>
struct malc_bits {
  static_assert(Bytes == 16, "an instruction's most");
  typedef uint4 type;
};
template <>
struct malc_bits<8> {
  typedef uint2 type;
};

/* Elements of a long row, which are kept besides as far as `room` goes: each thread finds its own there again. */
template <class Element, int Count>
DEVICE void malc_load_keeping(float (&to)[Count], Element *kept, int column, int room, const Element *from) {
  typedef typename malc_bits<sizeof(Element) * Count>::type bits;
  const bits read = *reinterpret_cast<const bits *>(from);
  if (column < room) *reinterpret_cast<bits *>(kept + column) = read;
  malc_load_vector(to, reinterpret_cast<const Element *>(&read));
}
template <class Element, int Count>
DEVICE void malc_load_kept(float (&to)[Count], const Element *kept, int column, int room, const Element *from) {
  if (column < room) malc_load_vector(to, kept + column);
  else malc_load_vector(to, from);
}

struct malc_sum_of {
  static constexpr float none = 0.0f;
  DEVICE static float both(float a, float b) { return a + b; }
};
struct malc_max_of {
  static constexpr float none = -INFINITY;
  DEVICE static float both(float a, float b) { return malc_max(a, b); }
};

/* The sum or maximum over the `Lanes` threads that share a row: a part of a warp, or the whole block, all of whose
 * threads must come here. Every lane gets it, and always the same: the order of addition is that of a tree. */
template <int Lanes, class Operation>
static DEVICE float malc_over_lanes(float value) {
  static_assert(Lanes % 32 == 0 || (Lanes < 32 && (Lanes & (Lanes - 1)) == 0), "whole warps, or a power of two");
  constexpr int together = Lanes < 32 ? Lanes : 32;
  const unsigned group = 0xffffffffu >> (32 - together) << (threadIdx.x % 32 / together * together);
#pragma unroll
  for (int distance = together / 2; distance > 0; distance /= 2)
    value = Operation::both(value, __shfl_xor_sync(group, value, distance));
  if constexpr (Lanes > 32) {
    __shared__ float of_warps[32];
    __syncthreads(); // an earlier reduction may still be read
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    const int warp = threadIdx.x % 32;
    value = warp < Lanes / 32 ? of_warps[warp] : Operation::none;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      value = Operation::both(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

/* Parts that totals over so many rows are summed in: a number of the rows alone, so that the order of addition is. */
__host__ __device__ inline int64_t malc_parts(int64_t rows, int64_t most = 256) { return rows < most ? rows : most; }

/* The sum of `count` numbers that lie `stride` apart, in their order. */
DEVICE float malc_sum_of_parts(const float *parts, int64_t count, int64_t stride) {
  float sum = 0.0f;
  for (int64_t part = 0; part < count; part++) sum += parts[part * stride];
  return sum;
}

/* The total of a column over all parts, [parts][width], for the first 32 threads of a block of 1024, each of which has
 * a column, `i`: warps add parts by turns, and then what each has is added in their order. Every thread must come
 * here. */
static DEVICE float malc_total_of_parts(const float *parts, int64_t count, int64_t width, int64_t i) {
  __shared__ float of_warps[32][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float sum = 0.0f;
  if (i < width) {
#pragma unroll 8
    for (int64_t part = warp; part < count; part += 32) sum += parts[part * width + i];
  }
  __syncthreads(); // an earlier total may still be read
  of_warps[warp][lane] = sum;
  __syncthreads();
  double total = 0;
  if (warp == 0)
    for (const float(&others)[32] : of_warps) total += others[lane];
  return static_cast<float>(total);
}
