// slots.h - the slots of a mixture of experts by their experts. A slot is one choice of one row; what sorts them leaves
// each expert's slots together and in their order, with no word from the host (MegaBlocks, Gale et al., 2022).
//
// Blocks first count the slots of each expert among their own; then each finds the places of its own by prefix sums
// over all counts. Integers alone are added, so that the result does not depend on who comes first.
#pragma once
#include "rows.h"

constexpr int malc_sorting_threads = 256, malc_sorting_warps = malc_sorting_threads / 32;
constexpr int malc_slots_of_block = 1024, malc_rounds_of_warp = malc_slots_of_block / malc_sorting_threads;

/* Blocks that sort so many slots. */
__host__ __device__ constexpr int64_t malc_sorting_blocks(int64_t slots) {
  return (slots + malc_slots_of_block - 1) / malc_slots_of_block;
}
/* Bytes of shared memory of such a block: a counter for each warp and expert, and one for each expert. */
constexpr int malc_sorting_bytes(int experts) { return (malc_sorting_warps + 1) * experts * 4; }

/* Sorted slots in a kernel's workspace, which holds experts + 1 + slots numbers and those of all counts. */
template <int Experts>
struct malc_slots {
  int count;       /* of slots */
  int32_t *bounds; /* [experts + 1]: slots of expert e are order[bounds[e]] to order[bounds[e + 1] - 1], ascending */
  int32_t *order;  /* [slots] */
  int32_t *counts; /* [block][expert]: what blocks found */

  DEVICE malc_slots(float *workspace, int64_t slots)
      : count(static_cast<int>(slots)), bounds(reinterpret_cast<int32_t *>(workspace)), order(bounds + Experts + 1),
        counts(order + slots) {}
};

/* counts[block][expert]: how many of the block's slots chose the expert. */
template <int Experts>
DEVICE void malc_count_slots(int32_t *counts, const int32_t *index, int slots) {
  int *const own = reinterpret_cast<int *>(dynamic_shared());
  for (int expert = threadIdx.x; expert < Experts; expert += malc_sorting_threads) own[expert] = 0;
  __syncthreads();
  const int first = blockIdx.x * malc_slots_of_block, end = min(first + malc_slots_of_block, slots);
  for (int slot = first + threadIdx.x; slot < end; slot += malc_sorting_threads) atomicAdd(&own[index[slot]], 1);
  __syncthreads();
  for (int expert = threadIdx.x; expert < Experts; expert += malc_sorting_threads)
    counts[blockIdx.x * Experts + expert] = own[expert];
}

/* The lanes of a warp that have the same number; numbers are less than `Limit`, or -1, which is no lane's equal. */
template <int Limit>
DEVICE unsigned malc_lanes_like(int number) {
  unsigned lanes = __ballot_sync(0xffffffffu, number >= 0);
#pragma unroll
  for (int bit = 1; bit < Limit; bit *= 2) {
    const unsigned set = __ballot_sync(0xffffffffu, (number & bit) != 0);
    lanes &= (number & bit) != 0 ? set : ~set;
  }
  return lanes;
}

/* Calls visit(slot, rank, place) for each of the block's slots: how many slots before it chose its expert, and where it
 * is once all are sorted. Block 0 leaves the experts' bounds, unless that is null. */
template <int Experts, class Visit>
DEVICE void malc_rank_slots(const int32_t *counts, const int32_t *index, int slots, int32_t *bounds,
                            const Visit &visit) {
  int *const begins = reinterpret_cast<int *>(dynamic_shared()); /* [expert]: where its slots begin */
  int *const of_warps = begins + Experts;                        /* [warp][expert]: where the warp's own begin */
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned earlier = (1u << lane) - 1;

  // What each warp finds of each expert.
  for (int n = lane; n < Experts; n += 32) of_warps[warp * Experts + n] = 0;
  __syncwarp();
  int experts[malc_rounds_of_warp];
  const int own_block = blockIdx.x, blocks = gridDim.x;
  const int first = (own_block * malc_sorting_warps + warp) * malc_rounds_of_warp * 32 + lane;
#pragma unroll
  for (int round = 0; round < malc_rounds_of_warp; round++) {
    const int slot = first + round * 32;
    experts[round] = slot < slots ? index[slot] : -1;
    const unsigned alike = malc_lanes_like<Experts>(experts[round]);
    if (experts[round] >= 0 && (alike & earlier) == 0) of_warps[warp * Experts + experts[round]] += __popc(alike);
    __syncwarp();
  }
  __syncthreads();

  // What earlier blocks and warps found, and all blocks.
  for (int expert = threadIdx.x; expert < Experts; expert += malc_sorting_threads) {
    int before = 0, all = 0;
    for (int block = 0; block < blocks; block++) {
      const int found = counts[block * Experts + expert];
      before += block < own_block ? found : 0;
      all += found;
    }
    for (int n = 0; n < malc_sorting_warps; n++) {
      const int found = of_warps[n * Experts + expert];
      of_warps[n * Experts + expert] = before;
      before += found;
    }
    begins[expert] = all;
  }
  __syncthreads();
  if (warp == 0) {
    int begin = 0;
    for (int base = 0; base < Experts; base += 32) {
      const int expert = base + lane, own = expert < Experts ? begins[expert] : 0;
      int through = own;
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, through, distance);
        if (lane >= distance) through += other;
      }
      if (expert < Experts) begins[expert] = begin + through - own;
      begin += __shfl_sync(0xffffffffu, through, 31);
    }
  }
  __syncthreads();
  if (bounds && own_block == 0)
    for (int expert = threadIdx.x; expert <= Experts; expert += malc_sorting_threads)
      bounds[expert] = expert < Experts ? begins[expert] : slots;

  // The same slots again, in their order.
#pragma unroll
  for (int round = 0; round < malc_rounds_of_warp; round++) {
    const int expert = experts[round];
    const unsigned alike = malc_lanes_like<Experts>(expert);
    int *const next = of_warps + warp * Experts + (expert >= 0 ? expert : 0);
    const int rank = *next + __popc(alike & earlier);
    if (expert >= 0) visit(first + round * 32, rank, begins[expert] + rank);
    __syncwarp();
    if (expert >= 0 && (alike & earlier) == 0) *next += __popc(alike);
    __syncwarp();
  }
}

/* Sorts slots whose experts' counts are there: their order, and the experts' bounds. */
template <int Experts>
DEVICE void malc_sort_slots(const malc_slots<Experts> &slots, const int32_t *index) {
  malc_rank_slots<Experts>(slots.counts, index, slots.count, slots.bounds,
                           [&](int slot, int, int place) { slots.order[place] = slot; });
}

/* fits[slot]: 1 while the slot's expert has room for it, then 0. It has room for `limit` slots a token, rounded up. */
template <int Experts>
DEVICE void malc_within_capacity(float *fits, const int32_t *counts, const int32_t *index, int slots, double limit,
                                 int64_t tokens) {
  const int capacity = static_cast<int>(ceil(limit * static_cast<double>(tokens)));
  malc_rank_slots<Experts>(counts, index, slots, nullptr,
                           [&](int slot, int rank, int) { fits[slot] = rank < capacity ? 1.0f : 0.0f; });
}
