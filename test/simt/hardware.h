// hardware.h - the emulated instructions: what templates/cuda/instructions.h calls where nvcc would find PTX.
#pragma once
#include "language.h"
#include "numbers.h"

struct CUtensorMap;

namespace simt {
// Shared memory.
unsigned char *dynamic_shared();
uint32_t shared_address(const void *pointer);

// Copies, matrices and multiplications of a warp.
void cp_async(uint32_t shared, const void *global, unsigned bytes, int read);
void cp_async_commit();
void cp_async_wait(unsigned pending);
void ldmatrix(uint32_t *registers, unsigned count, uint32_t row, bool transposed);
void stmatrix(const uint32_t *registers, unsigned count, uint32_t row, bool transposed);
void mma_bf16(float *d, const uint32_t *a, uint32_t b0, uint32_t b1);
void mma_tf32(float *d, const uint32_t *a, uint32_t b0, uint32_t b1);

/* Rounds to 10 bits of fraction, ties away from zero. */
SIMT_INLINE uint32_t to_tf32(float value) {
  const uint32_t bits = __float_as_uint(value);
  return isfinite(value) ? (bits + 0x1000u) & 0xffffe000u : bits;
}
SIMT_INLINE uint32_t pack_bf16(float low, float high) {
  return __nv_bfloat16(low).bits | static_cast<uint32_t>(__nv_bfloat16(high).bits) << 16;
}

// Barriers.
void barrier_sync(int id, int threads);
void barrier_arrive(int id, int threads);
void mbarrier_init(uint32_t barrier, uint32_t arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t barrier);
void mbarrier_arrive_remote(uint32_t barrier, uint32_t rank);
void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes);
void mbarrier_wait(uint32_t barrier, uint32_t parity);
void fence_async();
void turn_wait(const int32_t *turn, int32_t mine);
void turn_pass(int32_t *turn);
uint32_t cluster_rank();
void cluster_sync();
/* Global memory is not looked at for what is ordered. */
SIMT_INLINE void fence_async_global() {}
/* Grids never overlap here, but a thread of one that might must not touch global memory before it waits. */
void grid_dependency_wait();
SIMT_INLINE void grid_dependency_launch() {}

// The asynchronous engines.
void tma_load(uint32_t shared, const CUtensorMap *map, uint32_t barrier, unsigned rank, int x, int y, int z, int w,
              uint16_t ranks);
void tma_store(const CUtensorMap *map, uint32_t shared, unsigned rank, int x, int y, int z, int w);
void bulk_load(uint32_t shared, const void *global, uint32_t bytes, uint32_t barrier);
void bulk_store(void *global, uint32_t shared, uint32_t bytes);
void bulk_add(float *global, uint32_t shared, uint32_t bytes);
void bulk_commit();
void bulk_wait(unsigned pending, bool read);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(unsigned pending);
/* `a` in registers, or null where descriptor `a_shared` says where it lies. */
void wgmma(float *d, unsigned n, const uint32_t *a, uint64_t a_shared, uint64_t b_shared, bool a_transposed,
           bool b_transposed, bool accumulate);
} // namespace simt
