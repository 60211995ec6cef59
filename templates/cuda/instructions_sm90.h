// instructions_sm90.h - the instructions that sm_90a adds: mbarriers, TMA, clusters, stmatrix (wgmma.h has the wgmma).
//
// The protocol of a pipeline stage: mbarrier_arrive_expect on `full` by the producer, its tma_loads, mbarrier_wait on
// `full` by the consumers, who arrive on `empty`, for which the producer waits. mbarrier_wait(barrier, parity) passes
// once the phase of that parity has completed: a fresh barrier passes parity 1 and holds parity 0.
#pragma once

// ---- Barriers in shared memory: 8 bytes, 8-byte aligned ----

/* By one thread; mbarrier_init_fence and a barrier of block or cluster must follow before another one uses it. */
DEVICE void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
  PTX(simt::mbarrier_init(barrier, arrivals), "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
      : "memory");
}
DEVICE void mbarrier_init_fence() {
  PTX(simt::mbarrier_init_fence(), "fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void mbarrier_arrive(uint32_t barrier) {
  PTX(simt::mbarrier_arrive(barrier), "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/* Arrives at the same barrier of the block with this rank in the cluster. */
DEVICE void mbarrier_arrive_remote(uint32_t barrier, uint32_t rank) {
  PTX(simt::mbarrier_arrive_remote(barrier, rank), "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1; "
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote]; }" ::"r"(barrier), "r"(rank) : "memory");
}
/* Arrives, and has the phase wait for `bytes` more bytes of asynchronous copies into this block. */
DEVICE void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  PTX(simt::mbarrier_arrive_expect(barrier, bytes), "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::
      "r"(barrier), "r"(bytes) : "memory");
}
/* Waits until the phase of this parity has completed. */
DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  PTX(simt::mbarrier_wait(barrier, parity), "{ .reg .pred completed;\nwait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 completed, [%0], %1;\n@!completed bra wait; }" ::"r"(barrier),
      "r"(parity) : "memory");
}

/* Makes this thread's ordinary writes to shared memory visible to TMA and wgmma: between the writes and the barrier
 * that hands them over. */
DEVICE void fence_async() { PTX(simt::fence_async(), "fence.proxy.async.shared::cta;" ::: "memory"); }
/* Has this thread's bulk copies from or to global memory come after what it knows of other blocks' copies. */
DEVICE void fence_async_global() { PTX(simt::fence_async_global(), "fence.proxy.async.global;" ::: "memory"); }

// ---- Turns of blocks: a number in global memory, zero at first ----

/* Waits until it is `mine`; what the threads that passed it on had written is there then. Blocks before this one must
 * be sure to run: see attention_sm90_gradient.h. */
DEVICE void turn_wait(const int32_t *turn, int32_t mine) {
#ifdef MALC_SIMT
  simt::turn_wait(turn, mine);
#else
  int32_t now;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
  } while (now != mine);
#endif
}
/* Adds one to it, after all that this thread has written, and waited for. */
DEVICE void turn_pass(int32_t *turn) {
  PTX(simt::turn_pass(turn), "red.release.gpu.global.add.s32 [%0], 1;" ::"l"(turn) : "memory");
}

// ---- TMA: boxes of a tensor (encode_tensor_map in launch.h) to and from shared memory, by one thread ----

/* Fetches a map, before the first copy that needs it. */
DEVICE void tma_prefetch(const CUtensorMap *map) {
  PTX((void)map, "prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/* Coordinates are in elements, innermost first. Elements outside the tensor arrive as zeros, and count as bytes. */
DEVICE void tma_load_2d(uint32_t shared, const CUtensorMap *map, uint32_t barrier, int x, int y) {
  PTX(simt::tma_load(shared, map, barrier, 2, x, y, 0, 0, 0), "cp.async.bulk.tensor.2d.shared::cluster.global.tile."
      "mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(shared), "l"(map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
DEVICE void tma_load_3d(uint32_t shared, const CUtensorMap *map, uint32_t barrier, int x, int y, int z) {
  PTX(simt::tma_load(shared, map, barrier, 3, x, y, z, 0, 0), "cp.async.bulk.tensor.3d.shared::cluster.global.tile."
      "mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared), "l"(map), "r"(barrier), "r"(x),
      "r"(y), "r"(z) : "memory");
}
DEVICE void tma_load_4d(uint32_t shared, const CUtensorMap *map, uint32_t barrier, int x, int y, int z, int w) {
  PTX(simt::tma_load(shared, map, barrier, 4, x, y, z, w, 0), "cp.async.bulk.tensor.4d.shared::cluster.global.tile."
      "mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared), "l"(map), "r"(barrier),
      "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
/* The box lands at the same address, and completes on the same barrier, in every block of the cluster whose bit is set
 * in `ranks`. */
DEVICE void tma_load_2d_multicast(uint32_t shared, const CUtensorMap *map, uint32_t barrier, int x, int y,
                                  uint16_t ranks) {
  PTX(simt::tma_load(shared, map, barrier, 2, x, y, 0, 0, ranks), "cp.async.bulk.tensor.2d.shared::cluster.global.tile."
      "mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared), "l"(map),
      "r"(barrier), "r"(x), "r"(y), "h"(ranks) : "memory");
}
DEVICE void tma_load_3d_multicast(uint32_t shared, const CUtensorMap *map, uint32_t barrier, int x, int y, int z,
                                  uint16_t ranks) {
  PTX(simt::tma_load(shared, map, barrier, 3, x, y, z, 0, ranks), "cp.async.bulk.tensor.3d.shared::cluster.global.tile."
      "mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared), "l"(map),
      "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(ranks) : "memory");
}
/* What lies outside the tensor is not written. fence_async by every writer and a barrier come before. */
DEVICE void tma_store_2d(const CUtensorMap *map, uint32_t shared, int x, int y) {
  PTX(simt::tma_store(map, shared, 2, x, y, 0, 0), "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group "
      "[%0, {%2, %3}], [%1];" ::"l"(map), "r"(shared), "r"(x), "r"(y) : "memory");
}
DEVICE void tma_store_3d(const CUtensorMap *map, uint32_t shared, int x, int y, int z) {
  PTX(simt::tma_store(map, shared, 3, x, y, z, 0), "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group "
      "[%0, {%2, %3, %4}], [%1];" ::"l"(map), "r"(shared), "r"(x), "r"(y), "r"(z) : "memory");
}
DEVICE void tma_store_4d(const CUtensorMap *map, uint32_t shared, int x, int y, int z, int w) {
  PTX(simt::tma_store(map, shared, 4, x, y, z, w), "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group "
      "[%0, {%2, %3, %4, %5}], [%1];" ::"l"(map), "r"(shared), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
/* Copies `bytes` contiguous bytes; addresses and size are multiples of 16. */
DEVICE void bulk_load(uint32_t shared, const void *global, uint32_t bytes, uint32_t barrier) {
  PTX(simt::bulk_load(shared, global, bytes, barrier), "cp.async.bulk.shared::cluster.global."
      "mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared), "l"(global), "r"(bytes), "r"(barrier)
      : "memory");
}
/* The other way; fence_async by every writer and a barrier come before. */
DEVICE void bulk_store(void *global, uint32_t shared, uint32_t bytes) {
  PTX(simt::bulk_store(global, shared, bytes), "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::
      "l"(global), "r"(shared), "r"(bytes) : "memory");
}
/* Likewise, but adds floats to those that are there, each at once. */
DEVICE void bulk_add(float *global, uint32_t shared, uint32_t bytes) {
  PTX(simt::bulk_add(global, shared, bytes), "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 "
      "[%0], [%1], %2;" ::"l"(global), "r"(shared), "r"(bytes) : "memory");
}
/* Closes this thread's group of stores. */
DEVICE void bulk_commit() { PTX(simt::bulk_commit(), "cp.async.bulk.commit_group;" ::: "memory"); }
/* Waits until all but the `Pending` newest groups of this thread have read their shared memory, or were written. */
template <int Pending>
DEVICE void bulk_wait_read() {
  PTX(simt::bulk_wait(Pending, true), "cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}
template <int Pending>
DEVICE void bulk_wait() {
  PTX(simt::bulk_wait(Pending, false), "cp.async.bulk.wait_group %0;" ::"n"(Pending) : "memory");
}

// ---- Clusters of blocks, and grids that overlap ----

DEVICE uint32_t cluster_rank() {
  uint32_t rank;
  PTX(rank = simt::cluster_rank(), "mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/* A barrier of all threads of the cluster. */
DEVICE void cluster_sync() {
  PTX(simt::cluster_sync(), "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" :::
      "memory");
}
/* Waits for what the grids before this one wrote; before the first access to it where the launch overlaps them. */
DEVICE void grid_dependency_wait() { PTX(simt::grid_dependency_wait(), "griddepcontrol.wait;" ::: "memory"); }
/* Lets the next grid start its blocks. */
DEVICE void grid_dependency_launch() {
  PTX(simt::grid_dependency_launch(), "griddepcontrol.launch_dependents;" ::: "memory");
}

// ---- Registers ----

/* Gives registers of every thread of this warpgroup back, or takes them: 24 to 256, a multiple of 8. The kernel needs
 * __launch_bounds__, or they do nothing. */
template <int Registers>
DEVICE void registers_decrease() {
  static_assert(Registers >= 24 && Registers <= 256 && Registers % 8 == 0, "24 to 256 registers, a multiple of 8");
  PTX((void)0, "setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
DEVICE void registers_increase() {
  static_assert(Registers >= 24 && Registers <= 256 && Registers % 8 == 0, "24 to 256 registers, a multiple of 8");
  PTX((void)0, "setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

/* Stores 1, 2 or 4 matrices of 8x8 16-bit elements: the inverse of ldmatrix. */
DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[1]) {
  PTX(simt::stmatrix(r, 1, row, false), "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(row), "r"(r[0])
      : "memory");
}
DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[2]) {
  PTX(simt::stmatrix(r, 2, row, false), "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(row),
      "r"(r[0]), "r"(r[1]) : "memory");
}
DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[4]) {
  PTX(simt::stmatrix(r, 4, row, false), "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
      "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}
/* The same, each matrix transposed on its way. */
DEVICE void stmatrix_transposed(uint32_t row, const uint32_t (&r)[1]) {
  PTX(simt::stmatrix(r, 1, row, true), "stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row),
      "r"(r[0]) : "memory");
}
DEVICE void stmatrix_transposed(uint32_t row, const uint32_t (&r)[2]) {
  PTX(simt::stmatrix(r, 2, row, true), "stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row),
      "r"(r[0]), "r"(r[1]) : "memory");
}
DEVICE void stmatrix_transposed(uint32_t row, const uint32_t (&r)[4]) {
  PTX(simt::stmatrix(r, 4, row, true), "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::
      "r"(row), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

#include "wgmma.h"
