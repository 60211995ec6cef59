// scatter.h - rows added to the rows of a table, at places that integers give: the gradient of an embedding.
//
// A radix sort orders the updates by place, and those of one place as they came (slots.h ranks by one digit). Then each
// block adds as many updates as any other, in their order: however often a place occurs, nobody has more to do. Sums
// that go on from an earlier block are left as partial rows, which the block where they begin adds at last. So the
// order of addition is a function of the places alone.
#pragma once
#include "slots.h"

constexpr int malc_updates_of_block = 32; /* one a lane: their places are looked up by one warp */
constexpr int malc_updates_in_flight = 4; /* whose elements a thread loads before it adds the first */

/* Blocks that add so many updates. */
__host__ __device__ constexpr int64_t malc_scatter_blocks(int64_t updates) {
  return (updates + malc_updates_of_block - 1) / malc_updates_of_block;
}

/* The workspace of a scatter: updates by place, and rows of sums that go on from one block to the next. Places are
 * sorted by `Bits` of them at a time, the lowest first. */
template <int Bits, int Width>
struct malc_updates {
  static constexpr int digits = 1 << Bits;
  static constexpr int some = Width % 4 == 0 ? 4 : 1; /* elements of a row that a thread has at once */

  int count;
  float *partials;     /* [block][Width] */
  int32_t *orders[2];  /* [count]: updates in order; a pass reads one and writes the other, pass 0 writes the first */
  int32_t *current[2]; /* [count]: the digit by which each is sorted next, likewise */
  int32_t *counts;     /* [block][digit]: malc_count_slots */

  DEVICE malc_updates(float *workspace, int64_t updates) : count(static_cast<int>(updates)), partials(workspace) {
    orders[0] = reinterpret_cast<int32_t *>(workspace + malc_scatter_blocks(updates) * Width);
    orders[1] = orders[0] + updates;
    current[0] = orders[1] + updates;
    current[1] = current[0] + updates;
    counts = current[1] + updates;
  }
};

/* The first digit of each place. */
template <int Bits, int Width>
DEVICE void malc_first_digits(const malc_updates<Bits, Width> &updates, const int32_t *index) {
  const int update = blockIdx.x * blockDim.x + threadIdx.x;
  if (update < updates.count) updates.current[1][update] = index[update] & (updates.digits - 1);
}

/* Counts the updates of each digit of a pass. */
template <int Pass, int Bits, int Width>
DEVICE void malc_count_digits(const malc_updates<Bits, Width> &updates) {
  malc_count_slots<malc_updates<Bits, Width>::digits>(updates.counts, updates.current[(Pass + 1) % 2], updates.count);
}

/* Orders the updates by the digit of a pass, and leaves each one's next. */
template <int Pass, int Bits, int Width>
DEVICE void malc_order_by_digit(const malc_updates<Bits, Width> &updates, const int32_t *index) {
  constexpr int digits = malc_updates<Bits, Width>::digits;
  const int32_t *const before = updates.orders[(Pass + 1) % 2], *const own = updates.current[(Pass + 1) % 2];
  int32_t *const after = updates.orders[Pass % 2], *const next = updates.current[Pass % 2];
  malc_rank_slots<digits>(updates.counts, own, updates.count, nullptr, [&](int slot, int, int place) {
    const int update = Pass == 0 ? slot : before[slot];
    after[place] = update;
    next[place] = index[update] >> Bits * (Pass + 1) & (digits - 1);
  });
}

/* Adds the block's own updates, in order, to the rows of the table where their sums begin. */
template <int Bits, int Width>
DEVICE void malc_add_updates(float *table, const malc_updates<Bits, Width> &updates, const int32_t *order,
                             const int32_t *index, const float *rows) {
  constexpr int some = malc_updates<Bits, Width>::some;
  __shared__ int32_t sources[malc_updates_of_block], places[malc_updates_of_block + 1];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * malc_updates_of_block;
  const int own = static_cast<int>(min(static_cast<int64_t>(malc_updates_of_block), updates.count - first));
  const int thread = threadIdx.x;
  if (thread < own) {
    sources[thread] = order[first + thread];
    places[thread] = index[sources[thread]];
  }
  if (thread == own) places[own] = -1; // ends the last sum; there are more threads than updates
  const int32_t earlier = first > 0 ? index[order[first - 1]] : -1;
  __syncthreads();
  for (int column = some * threadIdx.x; column < Width; column += some * blockDim.x) {
    bool goes_on = places[0] == earlier;
    float sum[some] = {};
    for (int n = 0; n < own; n += malc_updates_in_flight) {
      float loaded[malc_updates_in_flight][some] = {};
#pragma unroll
      for (int k = 0; k < malc_updates_in_flight; k++)
        if (n + k < own) malc_load_vector(loaded[k], rows + static_cast<int64_t>(sources[n + k]) * Width + column);
#pragma unroll
      for (int k = 0; k < malc_updates_in_flight; k++) {
        if (n + k >= own) break;
        malc_add_vector(sum, loaded[k]);
        if (places[n + k + 1] == places[n + k]) continue;
        float *target = updates.partials + static_cast<int64_t>(blockIdx.x) * Width + column;
        if (!goes_on) {
          target = table + static_cast<int64_t>(places[n + k]) * Width + column;
          float before[some];
          malc_load_vector(before, target);
          malc_add_vector(sum, before);
        }
        malc_store_vector(target, sum);
#pragma unroll
        for (float &element : sum) element = 0.0f;
        goes_on = false;
      }
    }
  }
}

/* Adds what later blocks have of the sum with which this block ends, if it begins here. */
template <int Bits, int Width>
DEVICE void malc_add_partials(float *table, const malc_updates<Bits, Width> &updates, const int32_t *order,
                              const int32_t *index) {
  constexpr int some = malc_updates<Bits, Width>::some;
  const int blocks = static_cast<int>(malc_scatter_blocks(updates.count)), own = blockIdx.x, lane = threadIdx.x % 32;
  const auto place_of = [&](int64_t n) { return index[order[n]]; };
  const int64_t first = static_cast<int64_t>(own) * malc_updates_of_block, end = first + malc_updates_of_block;
  if (own + 1 == blocks) return;
  const int32_t place = place_of(end - 1);
  const bool begins_earlier = first > 0 && place_of(first - 1) == place;
  if (begins_earlier || place_of(end) != place) return;
  // Equal places lie together: those of the following blocks that begin with this one.
  int following = 0;
  for (bool all = true; all; ) {
    const int block = own + 1 + following + lane;
    const bool same = block < blocks && place_of(static_cast<int64_t>(block) * malc_updates_of_block) == place;
    const unsigned found = __ballot_sync(0xffffffffu, same);
    following += __popc(found);
    all = found == 0xffffffffu;
  }
  const float *const partials = updates.partials + static_cast<int64_t>(own + 1) * Width;
  for (int column = some * threadIdx.x; column < Width; column += some * blockDim.x) {
    float *const target = table + static_cast<int64_t>(place) * Width + column;
    float sum[some];
    malc_load_vector(sum, target);
#pragma unroll 4
    for (int n = 0; n < following; n++) {
      float part[some];
      malc_load_vector(part, partials + static_cast<int64_t>(n) * Width + column);
      malc_add_vector(sum, part);
    }
    malc_store_vector(target, sum);
  }
}
