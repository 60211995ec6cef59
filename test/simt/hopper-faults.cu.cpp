// hopper-faults.cu.cpp - faults planted in programs for sm_90a: mbarriers, TMA, clusters, wgmma.
#include "check.h"

using check::Device;

// ---- Launches that overlap ----

__global__ void follow_early(float *memory, int fault) {
  if (fault == 0) memory[threadIdx.x] = 1;
  if (fault == 1 && threadIdx.x == 7) return;
  grid_dependency_wait();
  memory[threadIdx.x] += 1;
}
static void follow(int fault) {
  Device<float> memory(std::vector<float>(32, 0.0f));
  LAUNCH(follow_early, malc_grid(1).overlapping(), 32, 0, nullptr, memory, fault);
}
FAULT(overlapping_launch_writes_early, "writes global memory before grid_dependency_wait") { follow(0); }
FAULT(overlapping_launch_does_not_wait, "leaves the kernel without grid_dependency_wait") { follow(1); }

// ---- mbarriers ----

enum BarrierFault { too_few_arrivals, not_initialised, not_ordered, overwritten, twice };
__global__ void misuse_barrier(int fault) {
  __shared__ uint64_t storage;
  const uint32_t barrier = shared_address(&storage);
  if (threadIdx.x == 0 && fault != not_initialised) mbarrier_init(barrier, fault == too_few_arrivals ? 65 : 32);
  if (threadIdx.x == 0 && fault == twice) mbarrier_init(barrier, 32);
  if (fault != not_ordered) __syncthreads();
  if (fault == overwritten && threadIdx.x == 5) storage = 0;
  mbarrier_arrive(barrier);
  mbarrier_wait(barrier, 0);
}
static void misuse(BarrierFault fault) { LAUNCH(misuse_barrier, 1, 64, 0, nullptr, static_cast<int>(fault)); }
FAULT(mbarrier_never_completes, "deadlock") { misuse(too_few_arrivals); }
FAULT(mbarrier_not_initialised, "is no mbarrier") { misuse(not_initialised); }
FAULT(mbarrier_initialisation_not_ordered, "with no barrier in between") { misuse(not_ordered); }
FAULT(mbarrier_overwritten, "an ordinary instruction writes an mbarrier") { misuse(overwritten); }
FAULT(mbarrier_initialised_twice, "which is an mbarrier already") { misuse(twice); }

__global__ void arrive_twice() {
  __shared__ uint64_t storage;
  const uint32_t barrier = shared_address(&storage);
  mbarrier_init(barrier, 1);
  mbarrier_arrive_expect(barrier, 16);
  mbarrier_arrive(barrier); // the phase still waits for the bytes
}
FAULT(mbarrier_too_many_arrivals, "which all 1 arrivals of this phase have come to") {
  LAUNCH(arrive_twice, 1, 1, 0, nullptr);
}

__global__ void remote_after_end() {
  __shared__ uint64_t storage;
  const uint32_t barrier = shared_address(&storage);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
  }
  cluster_sync();
  if (cluster_rank() == 1) return;
  for (int turn = 0; turn < 40; turn++) __syncwarp(); // the other block ends meanwhile
  if (threadIdx.x == 0) mbarrier_arrive_remote(barrier, 1);
}
FAULT(block_of_cluster_ends_early, "which has ended") {
  LAUNCH(remote_after_end, malc_grid(2).clusters_of(2), 32, 0, nullptr);
}

// ---- TMA ----

enum LoadFault {
  correct,
  no_init_fence,
  expects_too_little,
  no_wait_for_full,
  not_aligned,
  not_encoded,
  overwrites_unread,
  into_nothing,
  over_fenced_writes,
  over_unfenced_writes
};
__global__ void load_twice(const __grid_constant__ CUtensorMap map, float *out, int fault) {
  auto *const tile = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  __shared__ uint64_t storage[2];
  const uint32_t full = shared_address(&storage[0]), empty = shared_address(&storage[1]);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init(empty, 32);
    if (fault != no_init_fence) mbarrier_init_fence();
  }
  if (fault == over_fenced_writes || fault == over_unfenced_writes) tile[threadIdx.x] = 0.0f;
  if (fault == over_fenced_writes) fence_async();
  __syncthreads();
  const uint32_t address = shared_address(tile) + (fault == not_aligned ? 128 : fault == into_nothing ? 2048 : 0);
  for (int round = 0; round < 2; round++) {
    if (threadIdx.x == 32) {
      if (fault != overwrites_unread) mbarrier_wait(empty, round ^ 1);
      mbarrier_arrive_expect(full, fault == expects_too_little ? 512 : 1024);
      tma_load_2d(address, &map, full, 0, round * 8);
    } else if (threadIdx.x < 32) {
      if (fault != no_wait_for_full) mbarrier_wait(full, round);
      for (int i = 0; i < 16; i++) out[round * 512 + threadIdx.x * 16 + i] = tile[threadIdx.x * 16 + i];
      mbarrier_arrive(empty);
    }
  }
}
static void load_with(LoadFault fault) {
  Device<__nv_bfloat16> in(check::bf16_numbers(64 * 16));
  Device<float> out(1024);
  CUtensorMap map = {};
  if (fault != not_encoded)
    check::succeeded(encode_tensor_map(&map, in, 2, {64, 16, 1}, {64, 0}, 64, 8), "encode_tensor_map");
  LAUNCH(load_twice, 1, 64, 2048, nullptr, map, out, static_cast<int>(fault));
}
TEST(loads) { load_with(correct); }
TEST(loads_over_ordinary_writes) { load_with(over_fenced_writes); }
FAULT(missing_fence_before_load, "asynchronously, which thread (0,0,0) wrote with ordinary instructions") {
  load_with(over_unfenced_writes);
}
FAULT(mbarrier_init_without_fence, "its mbarrier_init_fence is missing") { load_with(no_init_fence); }
FAULT(expects_too_few_bytes, "deadlock") { load_with(expects_too_little); }
FAULT(tma_load_read_before_wait, "which nobody has written") { load_with(no_wait_for_full); }
FAULT(tma_tile_not_aligned, "a misaligned shared address") { load_with(not_aligned); }
FAULT(tensor_map_not_encoded, "this is no tensor map") { load_with(not_encoded); }
FAULT(tma_load_overwrites_what_is_read, "") { load_with(overwrites_unread); }
FAULT(tma_load_out_of_bounds, "out of bounds: 1024 bytes at dynamic shared memory + 2048") { load_with(into_nothing); }

enum StoreFault { none, no_fence, early_fence, fence_of_one, reused_early, left_early };
__global__ void store_twice(const __grid_constant__ CUtensorMap map, int fault) {
  auto *const tile = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  for (int round = 0; round < 2; round++) {
    if (fault == early_fence) fence_async();
    for (int i = threadIdx.x; i < 512; i += 32) tile[i] = 1.0f * round;
    if (fault != no_fence && fault != early_fence && fault != fence_of_one) fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
      if (fault == fence_of_one) fence_async();
      tma_store_2d(&map, shared_address(tile), 0, round * 8);
      bulk_commit();
      if (fault != reused_early && !(fault == left_early && round == 1)) bulk_wait_read<0>();
    }
    __syncthreads();
  }
}
static void store_with(StoreFault fault) {
  Device<__nv_bfloat16> out(64 * 16);
  CUtensorMap map;
  check::succeeded(encode_tensor_map(&map, out, 2, {64, 16, 1}, {64, 0}, 64, 8), "encode_tensor_map");
  LAUNCH(store_twice, 1, 32, 1024, nullptr, map, static_cast<int>(fault));
}
TEST(stores) { store_with(none); }
FAULT(missing_fence_async, "its fence_async is missing") { store_with(no_fence); }
FAULT(fence_async_before_the_write, "its fence_async is missing") { store_with(early_fence); }
FAULT(fence_async_by_another_thread, "its fence_async is missing") { store_with(fence_of_one); }
FAULT(tma_store_source_reused, "which the tma_store of thread (0,0,0) reads") { store_with(reused_early); }
FAULT(kernel_left_during_store, "bulk_wait is missing") { store_with(left_early); }

// ---- wgmma ----

enum ProductFault {
  no_product_fault,
  no_wgmma_fence,
  no_async_fence,
  overwritten_operand,
  operand_outside,
  one_warp_waits,
  descriptors_differ
};
__global__ void __launch_bounds__(128) product(float *out, int fault) {
  auto *const tile = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  for (int i = threadIdx.x; i < 4096; i += 128) tile[i] = 1.0f; // all alike: the swizzle does not show
  if (fault != no_async_fence) fence_async();
  if (fault != one_warp_waits) __syncthreads();
  float sums[4];
  const uint32_t address = shared_address(tile) + (fault == operand_outside ? 1024 : 0);
  const uint64_t a = wgmma_descriptor(address, 16, 1024);
  const uint64_t b = wgmma_descriptor(address + (fault == descriptors_differ && threadIdx.x == 9 ? 32 : 0), 16, 1024);
  if (fault != no_wgmma_fence) wgmma_fence();
  wgmma<8, 0, 0>(sums, a, b, 0);
  wgmma_commit();
  if (fault == overwritten_operand && threadIdx.x == 127) tile[0] = 2.0f;
  out[512 + threadIdx.x] = sums[0]; // too early: a NaN
  wgmma_wait<0>();
  for (int i = 0; i < 4; i++) out[i * 128 + threadIdx.x] = sums[i];
}
static std::vector<float> product_with(ProductFault fault) {
  Device<float> out(640);
  LAUNCH(product, 1, 128, 8192, nullptr, out, static_cast<int>(fault));
  return cudaDeviceSynchronize() == cudaSuccess ? out.read() : std::vector<float>();
}
TEST(accumulators_before_the_wait) {
  const auto out = product_with(no_product_fault);
  for (int i = 0; i < 512; i++) check::expect(out[i], 16, "sum");
  for (int i = 512; i < 640; i++)
    if (!std::isnan(out[i])) check::fail("an accumulator had its value before the wait");
}
FAULT(missing_wgmma_fence, "without a wgmma_fence") { product_with(no_wgmma_fence); }
FAULT(missing_fence_before_wgmma, "its fence_async is missing") { product_with(no_async_fence); }
FAULT(wgmma_operand_overwritten,
      "race: writes dynamic shared memory + 0, which the wgmma of the warpgroup of thread (0,0,0) reads") {
  product_with(overwritten_operand);
}
FAULT(wgmma_operand_out_of_bounds, "out of bounds: 16 bytes at dynamic shared memory + 8192") {
  product_with(operand_outside);
}
FAULT(wgmma_operand_not_ordered, "race: reads dynamic shared memory") { product_with(one_warp_waits); }
FAULT(wgmma_operands_differ, "disagree") { product_with(descriptors_differ); }
