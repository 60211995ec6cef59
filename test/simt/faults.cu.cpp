// faults.cu.cpp - what a GPU would do wrong, planted: each fault must be reported in these words, under every schedule.
#include "check.h"

using check::Device;

// ---- Order ----

__global__ void sum_neighbours(int *out, bool first, bool second) {
  __shared__ int values[64];
  values[threadIdx.x] = 0;
  __syncthreads();
  values[threadIdx.x] = threadIdx.x;
  if (first) __syncthreads();
  const int sum = values[threadIdx.x] + values[(threadIdx.x + 1) % 64];
  if (second) __syncthreads();
  values[threadIdx.x] = sum;
  __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}
static void neighbours(bool first, bool second) {
  Device<int> out(64);
  LAUNCH(sum_neighbours, 1, 64, 0, nullptr, out, first, second);
}
TEST(both_barriers) { neighbours(true, true); }
FAULT(missing_barrier_before_reading, "race: ") { neighbours(false, true); }
FAULT(missing_barrier_before_writing, "race: writes __shared__ variables + ") { neighbours(true, false); }
FAULT(missing_barrier_line, "faults.cu.cpp:") { neighbours(false, true); }

__global__ void exchange_in_warp(int *out) {
  __shared__ int values[32];
  values[threadIdx.x] = threadIdx.x;
  __shfl_xor_sync(0xffffffffu, 1, 1); // orders nothing
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}
FAULT(missing_syncwarp, "race: reads") {
  Device<int> out(32);
  LAUNCH(exchange_in_warp, 1, 32, 0, nullptr, out);
}

__global__ void add_beside_atomics(int *out) {
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (threadIdx.x < 32)
    atomicAdd(&sum, 1);
  else
    sum += 1;
  out[threadIdx.x] = 0;
}
FAULT(plain_access_beside_atomics, "race: ") {
  Device<int> out(64);
  LAUNCH(add_beside_atomics, 1, 64, 0, nullptr, out);
}

__global__ void read_uninitialised(float *out) {
  __shared__ float values[33];
  values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x + 1];
}
FAULT(uninitialised_shared_memory, "which nobody has written") {
  Device<float> out(32);
  LAUNCH(read_uninitialised, 1, 32, 0, nullptr, out);
}

// ---- Bounds and alignment ----

__global__ void copy(const float *in, float *out, int from) {
  out[threadIdx.x] = in[static_cast<int>(threadIdx.x) + from];
}
static void copy_from(int from, int threads) {
  Device<float> in(std::vector<float>(64, 1.0f)), out(32);
  LAUNCH(copy, 1, threads, 0, nullptr, in, out, from);
}
FAULT(global_read_behind, "out of bounds: reads 4 bytes of global memory at byte 256 of an allocation of 256") {
  copy_from(33, 32);
}
FAULT(global_read_before, "out of bounds: reads 4 bytes of global memory") { copy_from(-1, 32); }
FAULT(global_write_behind, "thread (32,0,0), faults.cu.cpp:") { copy_from(0, 33); }
FAULT(freed_memory, "out of bounds") {
  Device<float> in(std::vector<float>(32, 1.0f));
  float *gone;
  cudaMalloc(reinterpret_cast<void **>(&gone), 128);
  cudaFree(gone);
  LAUNCH(copy, 1, 32, 0, nullptr, in, gone, 0);
}
FAULT(host_memory, "memory that a GPU does not reach") {
  static std::vector<float> host(32, 1.0f);
  Device<float> out(32);
  LAUNCH(copy, 1, 32, 0, nullptr, host.data(), out, 0);
}
FAULT(guarded_gap, "out of bounds: writes 4 bytes") {
  Device<float> in(std::vector<float>(64, 1.0f)), arena(64);
  malc_guard(arena + 20, 32);
  LAUNCH(copy, 1, 20, 0, nullptr, in, arena, 0); // up to the gap
  LAUNCH(copy, 1, 21, 0, nullptr, in, arena, 0);
}

__global__ void copy_wide(const float *in, float4 *out) {
  out[threadIdx.x] = *reinterpret_cast<const float4 *>(in + threadIdx.x);
}
FAULT(misaligned_vector, "a misaligned access") {
  Device<float> in(std::vector<float>(64, 1.0f));
  Device<float4> out(32);
  LAUNCH(copy_wide, 1, 32, 0, nullptr, in, out);
}

__global__ void index_static(int *out, int i) {
  __shared__ int values[8];
  values[threadIdx.x % 8 + i] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}
FAULT(static_shared_index, "an index that its array does not have") {
  Device<int> out(8);
  LAUNCH(index_static, 1, 8, 0, nullptr, out, 1);
}

__global__ void index_dynamic(int *out, int i) {
  int *const values = reinterpret_cast<int *>(dynamic_shared());
  values[static_cast<int>(threadIdx.x) + i] = 1;
  __syncthreads();
  out[threadIdx.x] = values[static_cast<int>(threadIdx.x) + i];
}
FAULT(dynamic_shared_behind, "out of bounds: 4 bytes at dynamic shared memory + 128, of which there are 128") {
  Device<int> out(32);
  LAUNCH(index_dynamic, 1, 32, 128, nullptr, out, 1);
}
FAULT(dynamic_shared_before, "out of bounds: 4 bytes at dynamic shared memory + -4") {
  Device<int> out(32);
  LAUNCH(index_dynamic, 1, 32, 128, nullptr, out, -1);
}

__global__ void load_misaligned(uint32_t *out) {
  for (int i = threadIdx.x; i < 256; i += 32) reinterpret_cast<int *>(dynamic_shared())[i] = i;
  __syncwarp();
  uint32_t r[1];
  ldmatrix(r, shared_address(dynamic_shared()) + threadIdx.x % 8 * 20);
  out[threadIdx.x] = r[0];
}
FAULT(misaligned_ldmatrix, "a misaligned shared address") {
  Device<uint32_t> out(32);
  LAUNCH(load_misaligned, 1, 32, 1024, nullptr, out);
}

// ---- Collectives ----

__global__ void sync_some(int *out, unsigned threads) {
  if (threadIdx.x >= threads) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
FAULT(divergent_syncthreads, "__syncthreads") {
  Device<int> out(64);
  LAUNCH(sync_some, 1, 64, 0, nullptr, out, 40u);
}

__global__ void wait_for_each_other(int *out) {
  if (threadIdx.x < 32)
    barrier_sync(1, 64);
  else
    barrier_sync(2, 64);
  out[threadIdx.x] = 1;
}
FAULT(deadlock, "block 0, threads 0 to 31: barrier_sync at faults.cu.cpp:") {
  Device<int> out(64);
  LAUNCH(wait_for_each_other, 1, 64, 0, nullptr, out);
}

__global__ void count_differently(int *out) {
  barrier_sync(1, threadIdx.x < 32 ? 64 : 96);
  out[threadIdx.x] = 1;
}
FAULT(barrier_counts_differ, "to which others came for") {
  Device<int> out(96);
  LAUNCH(count_differently, 1, 96, 0, nullptr, out);
}

__global__ void shuffle_some(int *out, unsigned lanes, unsigned mask) {
  if (threadIdx.x < lanes) out[threadIdx.x] = __shfl_xor_sync(mask, static_cast<int>(threadIdx.x), 1);
}
static void shuffle_among(unsigned lanes, unsigned mask) {
  Device<int> out(32);
  LAUNCH(shuffle_some, 1, 32, 0, nullptr, out, lanes, mask);
}
FAULT(divergent_shuffle, "leaves the kernel while lanes of its warp wait for it") { shuffle_among(31, 0xffffffffu); }
FAULT(shuffle_outside_its_mask, "is not in its own mask") { shuffle_among(32, 0x0000ffffu); }
FAULT(shuffle_from_outside_the_mask, "which is not in the mask") { shuffle_among(1, 1); }

__global__ void vote_or_shuffle(int *out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __any_sync(0xffffffffu, 1);
  else
    out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}
FAULT(two_collectives_at_once, "the warp has diverged") {
  Device<int> out(32);
  LAUNCH(vote_or_shuffle, 1, 32, 0, nullptr, out);
}

// ---- cp.async ----

enum CopyFault { no_fault, no_wait, one_group_short, no_barrier, source_behind };
__global__ void copy_in_stages(const float *in, float *out, int fault) {
  auto *const shared = reinterpret_cast<float *>(dynamic_shared());
  const uint32_t address = shared_address(shared) + threadIdx.x * 16;
  for (int stage = 0; stage < 2; stage++) {
    cp_async<16>(address + stage * 1024, in + (stage * 64 + threadIdx.x) * 4 + (fault == source_behind ? 4 : 0));
    cp_async_commit();
  }
  if (fault == one_group_short)
    cp_async_wait<1>();
  else if (fault != no_wait)
    cp_async_wait<0>();
  if (fault != no_barrier) __syncthreads();
  for (int i = 0; i < 8; i++) out[i * 64 + threadIdx.x] = shared[511 - i * 64 - threadIdx.x];
}
static void copy_with(CopyFault fault) {
  Device<float> in(std::vector<float>(512, 1.0f)), out(512);
  LAUNCH(copy_in_stages, 1, 64, 2048, nullptr, in, out, static_cast<int>(fault));
}
TEST(copies) { copy_with(no_fault); }
FAULT(cp_async_without_wait, "its cp_async_wait, or the barrier behind that, is missing") { copy_with(no_wait); }
FAULT(cp_async_wait_one_group_short, "its cp_async_wait, or the barrier behind that, is missing") {
  copy_with(one_group_short);
}
FAULT(cp_async_without_barrier, "which nobody has written") { copy_with(no_barrier); }
FAULT(cp_async_out_of_bounds, "out of bounds: cp_async reads 16 bytes") { copy_with(source_behind); }
