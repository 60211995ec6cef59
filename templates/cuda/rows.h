// rows.h - what row kernels are made of: elements, one or four at a time, and sums and maxima over the lanes of a row.
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

struct malc_sum_of {
  static constexpr float none = 0.0f;
  DEVICE static float both(float a, float b) { return a + b; }
};
struct malc_max_of {
  static constexpr float none = -INFINITY;
  DEVICE static float both(float a, float b) { return malc_max(a, b); }
};

/* The sum or maximum over the `Lanes` threads that share a row: a warp, or the whole block, all of whose threads must
 * come here. Every lane gets it, and always the same: the order of addition is that of a tree. */
template <int Lanes, class Operation>
static DEVICE float malc_over_lanes(float value) {
  static_assert(Lanes % 32 == 0, "whole warps");
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = Operation::both(value, __shfl_xor_sync(0xffffffffu, value, distance));
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
__host__ __device__ inline int64_t malc_parts(int64_t rows) {
  const int64_t most = 256;
  return rows < most ? rows : most;
}

/* The sum of `count` numbers that lie `stride` apart, in their order. */
DEVICE float malc_sum_of_parts(const float *parts, int64_t count, int64_t stride) {
  float sum = 0.0f;
  for (int64_t part = 0; part < count; part++) sum += parts[part * stride];
  return sum;
}
