// language.cu.cpp - tests of the emulator: CUDA's language, warps, barriers of threads, atomics, bfloat16.
#include "check.h"

using check::Device;
using check::expect;

__global__ void write_indices(unsigned *out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      blockIdx.z * 10000 + threadIdx.z * 1000 + threadIdx.y * 100 + threadIdx.x;
}
TEST(indices) {
  const dim3 grid(2, 3, 2), block(8, 2, 3);
  Device<unsigned> out(12 * 48);
  LAUNCH(write_indices, grid, block, 0, nullptr, out);
  const auto values = out.read();
  for (unsigned b = 0; b < 12; b++)
    for (unsigned t = 0; t < 48; t++)
      expect(values[b * 48 + t], b / 6 * 10000 + t / 16 * 1000 + t / 8 % 2 * 100 + t % 8, "index");
}

__global__ void sum_block(const float *x, float *out, int n) {
  __shared__ float partial[8];
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = threadIdx.x < 8 ? partial[threadIdx.x] : 0;
  for (int offset = 4; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset, 8);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
TEST(block_reduction) {
  std::vector<float> x(1000);
  float expected = 0;
  for (size_t i = 0; i < x.size(); i++) expected += x[i] = check::number(i);
  Device<float> in(x), out(5);
  LAUNCH(sum_block, 5, 256, 0, nullptr, in, out, 1000);
  for (const float sum : out.read()) expect(sum, expected, "sum");
}

__global__ void reverse(int *data) { // through dynamic shared memory, and through static
  int *const tile = reinterpret_cast<int *>(dynamic_shared());
  __shared__ int again[64];
  tile[threadIdx.x] = data[threadIdx.x];
  __syncthreads();
  again[threadIdx.x] = tile[63 - threadIdx.x];
  __syncthreads();
  data[threadIdx.x] = again[threadIdx.x] + again[63 - threadIdx.x] * 1000;
}
TEST(shared_memory) {
  std::vector<int> values(64);
  for (int i = 0; i < 64; i++) values[i] = i;
  Device<int> data(values);
  LAUNCH(reverse, 1, 64, 256, nullptr, data);
  const auto out = data.read();
  for (int i = 0; i < 64; i++) expect(out[i], 63 - i + i * 1000, "element");
}

__global__ void shuffles(int *out) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(0xffffffffu, lane, 5);
  out[32 + lane] = __shfl_sync(0xffffffffu, lane, lane + 1, 8);
  out[64 + lane] = __shfl_up_sync(0xffffffffu, lane, 3);
  out[96 + lane] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
  out[128 + lane] = __shfl_xor_sync(0xffffffffu, lane, 9);
  out[160 + lane] = static_cast<int>(__shfl_xor_sync(0xffffffffu, static_cast<double>(lane), 16));
  if (lane < 16)
    out[192 + lane] = __shfl_xor_sync(0x0000ffffu, lane, 1); // half a warp
  else
    out[192 + lane] = __shfl_xor_sync(0xffff0000u, lane, 2);
}
TEST(warp_shuffles) {
  Device<int> out(224);
  LAUNCH(shuffles, 1, 32, 0, nullptr, out);
  const auto v = out.read();
  for (int lane = 0; lane < 32; lane++) {
    expect(v[lane], 5, "index");
    expect(v[32 + lane], lane / 8 * 8 + (lane + 1) % 8, "index in eights");
    expect(v[64 + lane], lane < 3 ? lane : lane - 3, "up");
    expect(v[96 + lane], lane % 16 + 3 < 16 ? lane + 3 : lane, "down in sixteens");
    expect(v[128 + lane], lane ^ 9, "xor");
    expect(v[160 + lane], lane ^ 16, "xor of doubles");
    expect(v[192 + lane], lane ^ (lane < 16 ? 1 : 2), "half a warp");
  }
}

__global__ void votes(unsigned *out) {
  const unsigned lane = threadIdx.x;
  const int value = static_cast<int>(lane * 7 % 32) - 16;
  const unsigned results[] = {__ballot_sync(0xffffffffu, lane % 3 == 0),
                              static_cast<unsigned>(__all_sync(0xffffffffu, lane < 32)),
                              static_cast<unsigned>(__all_sync(0xffffffffu, lane < 31)),
                              static_cast<unsigned>(__any_sync(0xffffffffu, lane == 7)),
                              static_cast<unsigned>(__any_sync(0xffffffffu, 0)),
                              __reduce_add_sync(0xffffffffu, lane),
                              static_cast<unsigned>(__reduce_min_sync(0xffffffffu, value)),
                              static_cast<unsigned>(__reduce_max_sync(0xffffffffu, value)),
                              __reduce_min_sync(0xffffffffu, lane + 3),
                              __reduce_max_sync(0xffffffffu, lane + 3),
                              __reduce_and_sync(0xffffffffu, lane | 32),
                              __reduce_or_sync(0xffffffffu, lane),
                              __reduce_xor_sync(0xffffffffu, lane == 4 ? 6u : 0u)};
  for (int i = 0; i < 13; i++) out[i * 32 + lane] = results[i];
}
TEST(warp_votes_and_reductions) {
  Device<unsigned> out(13 * 32);
  LAUNCH(votes, 1, 32, 0, nullptr, out);
  const auto v = out.read();
  const unsigned expected[] = {0x49249249u, 1, 0, 1, 0, 496, static_cast<unsigned>(-16), 15, 3, 34, 32, 31, 6};
  for (int i = 0; i < 13; i++)
    for (int lane = 0; lane < 32; lane++) expect(v[i * 32 + lane], expected[i], "result " + std::to_string(i));
}

__global__ void warp_exchange(int *out) { // through shared memory, ordered by __syncwarp alone
  __shared__ int slots[64];
  slots[threadIdx.x] = threadIdx.x;
  __syncwarp();
  const int value = slots[threadIdx.x ^ 31];
  __syncwarp();
  slots[threadIdx.x] = value * 2;
  __syncwarp();
  out[threadIdx.x] = slots[threadIdx.x ^ 1];
}
TEST(sync_warp) {
  Device<int> out(64);
  LAUNCH(warp_exchange, 1, 64, 0, nullptr, out);
  const auto v = out.read();
  for (int i = 0; i < 64; i++) expect(v[i], (i ^ 1 ^ 31) * 2, "element");
}

__global__ void hand_over(int *out) { // warp 0 produces, warp 1 consumes; warp 2 has nothing to do with it
  __shared__ int slot[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp == 2) return;
  for (int round = 0; round < 4; round++) {
    if (warp == 0) {
      barrier_sync(2, 64); // free
      slot[lane] = lane + round;
      barrier_arrive(1, 64); // full
    } else {
      barrier_arrive(2, 64);
      barrier_sync(1, 64);
      out[round * 32 + lane] = slot[31 - lane];
    }
  }
}
TEST(named_barriers) {
  Device<int> out(128);
  LAUNCH(hand_over, 1, 96, 0, nullptr, out);
  const auto v = out.read();
  for (int i = 0; i < 128; i++) expect(v[i], 31 - i % 32 + i / 32, "element");
}

__global__ void count(unsigned *counters, int *extremes, unsigned long long *wide) {
  __shared__ unsigned local;
  if (threadIdx.x == 0) local = 0;
  __syncthreads();
  atomicAdd(&local, 2u);
  __syncthreads();
  if (threadIdx.x == 0) counters[4 + blockIdx.x] = local;
  atomicAdd(&counters[0], threadIdx.x);
  atomicInc(&counters[1], 9);
  atomicOr(&counters[2], 1u << threadIdx.x % 32);
  atomicCAS(&counters[3], 0u, 77u);
  atomicMin(&extremes[0], -static_cast<int>(threadIdx.x));
  atomicMax(&extremes[1], static_cast<int>(threadIdx.x));
  atomicAdd(wide, 1ull << 33);
}
TEST(atomics) {
  Device<unsigned> counters(std::vector<unsigned>(7, 0));
  Device<int> extremes(std::vector<int>{5, -5});
  Device<unsigned long long> wide(std::vector<unsigned long long>{1});
  LAUNCH(count, 3, 64, 0, nullptr, counters, extremes, wide);
  const auto v = counters.read();
  expect(v[0], 3 * 2016, "sum");
  expect(v[1], 192 % 10, "increments");
  expect(v[2], 0xffffffffu, "bits");
  expect(v[3], 77, "exchange");
  for (int block = 0; block < 3; block++) expect(v[4 + block], 128, "shared counter");
  expect(extremes.read()[0], -63, "minimum");
  expect(extremes.read()[1], 63, "maximum");
  expect(static_cast<double>(wide.read()[0]), 1 + 192 * 8589934592.0, "64 bits");
}

__global__ void vectors(const float4 *in, uint4 *out, const __nv_bfloat16 *narrow, __nv_bfloat162 *pairs) {
  const float4 v = __ldg(in + threadIdx.x);
  out[threadIdx.x] = make_uint4(__float_as_uint(v.w), __float_as_uint(v.z), __float_as_uint(v.y), __float_as_uint(v.x));
  const __nv_bfloat162 pair = reinterpret_cast<const __nv_bfloat162 *>(narrow)[threadIdx.x];
  pairs[threadIdx.x] = __floats2bfloat162_rn(__high2float(pair) * 1.001953125f, __low2float(pair) + 512.0f);
}
TEST(vectors_and_bfloat16) {
  std::vector<float4> in(32);
  for (int i = 0; i < 32; i++) in[i] = {1.0f * i, 2.0f * i, 3.0f * i, 4.0f * i};
  Device<float4> source(in);
  Device<uint4> out(32);
  Device<__nv_bfloat16> narrow(check::bf16_numbers(64));
  Device<__nv_bfloat162> pairs(32);
  LAUNCH(vectors, 1, 32, 0, nullptr, source, out, narrow, pairs);
  const auto v = out.read();
  const auto p = pairs.read();
  for (int i = 0; i < 32; i++) {
    expect(__uint_as_float(v[i].x), 4.0f * i, "w");
    expect(__uint_as_float(v[i].w), 1.0f * i, "x");
    expect(p[i].x, check::number(2 * i + 1), "rounded down");
    expect(p[i].y, 512, "small part lost");
  }
  expect(__bfloat16_as_ushort(__float2bfloat16(NAN)), 0x7fff, "NaN");
  expect(__bfloat16_as_ushort(__float2bfloat16(1.01171875f)), 0x3f82, "tie to even, upwards");
  expect(__bfloat162float(__float2bfloat16(-INFINITY)), -INFINITY, "infinity");
}

__global__ void functions(float *out) {
  const float x = 0.5f + threadIdx.x;
  const float values[] = {rsqrtf(x),
                          __expf(-x),
                          __logf(x),
                          exp2_approximate(x),
                          tanh_approximate(x),
                          fmaf(x, x, 1.0f),
                          fmaxf(x, 2.0f),
                          min(x, 2.0f),
                          __fdividef(1.0f, x),
                          __saturatef(x),
                          static_cast<float>(__umulhi(1u << 31, 6)),
                          static_cast<float>(__popc(threadIdx.x)),
                          static_cast<float>(__clz(1 << threadIdx.x)),
                          static_cast<float>(__ffs(8)),
                          static_cast<float>(max(3u, threadIdx.x))};
  for (int i = 0; i < 15; i++) out[i * blockDim.x + threadIdx.x] = values[i];
}
TEST(arithmetic) {
  Device<float> out(15 * 4);
  LAUNCH(functions, 1, 4, 0, nullptr, out);
  const auto v = out.read();
  for (int t = 0; t < 4; t++) {
    const double x = 0.5 + t;
    const double expected[] = {1 / std::sqrt(x),
                               std::exp(-x),
                               std::log(x),
                               std::exp2(x),
                               std::tanh(x),
                               x * x + 1,
                               std::fmax(x, 2),
                               std::fmin(x, 2),
                               1 / x,
                               std::fmin(x, 1),
                               3,
                               t == 0   ? 0.0
                               : t == 3 ? 2.0
                                        : 1.0,
                               31.0 - t,
                               4,
                               3};
    for (int i = 0; i < 15; i++) check::expect_near(v[i * 4 + t], expected[i], 1e-5, "function " + std::to_string(i));
  }
}

__device__ unsigned ticket; // a variable of the program
__global__ void last_block_sums(const float *partial,
                                float *out) { // the last block to come reads what the others wrote
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; i++) sum += partial[i];
  *out = sum;
}
TEST(last_block) {
  Device<float> partial(std::vector<float>{1, 2, 3, 4, 5}), out(1);
  LAUNCH(last_block_sums, 5, 32, 0, nullptr, partial, out);
  expect(out.read()[0], 15, "sum");
}

__global__ void write_order(unsigned *counter, unsigned *turns) {
  __syncwarp();
  turns[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(counter, 1u);
}
/* The order in which 4 blocks of 64 threads have their turns. */
static std::vector<unsigned> order(unsigned seed) {
  simt::schedule(seed);
  Device<unsigned> counter(std::vector<unsigned>{0}), turns(256);
  LAUNCH(write_order, 4, 64, 0, nullptr, counter, turns);
  return turns.read();
}
TEST(schedules) {
  const auto first = order(0);
  for (unsigned i = 0; i < 256; i++) expect(first[i] / 64, i / 64, "blocks in order");
  if (order(0) != first || order(7) != order(7)) check::fail("a schedule is not the same twice");
  if (order(7) == first || order(7) == order(8)) check::fail("schedules do not differ");
}
