// attention_sm90_forward.h - attention of bfloat16 products on sm_90a, forward.
//
// As many blocks as the GPU has multiprocessors take tiles one after another: of one head, the rows that a block's
// warpgroups own. The next tile's keys and values are copied while this one is finished. For each warpgroup that
// multiplies there is a warp that brings its queries, and takes its output from where they were.
#pragma once
#include "attention_sm90.h"

/* The tiles of a block. A head's follow one another, the longest first, so that its keys stay in the second-level
 * cache; every other round the blocks take them backwards, so that who had a long one gets a short one. */
template <class Shape>
struct attention_tiles_sm90 {
  static constexpr int own = attention_sm90<Shape>::forward::own;
  int of_head, count, tile, place;

  template <class Given>
  DEVICE explicit attention_tiles_sm90(const Given &given)
      : of_head(attention_ceiling(static_cast<int>(given.time), own)),
        count(static_cast<int>(given.texts) * Shape::heads * of_head), tile(blockIdx.x), place(blockIdx.x) {}
  DEVICE bool more() const { return tile < count; }
  DEVICE void next() {
    tile += 2 * (gridDim.x - 1 - place) + 1; // to the last but `place` of the next round
    place = gridDim.x - 1 - place;
  }
  DEVICE int first_row() const { return (of_head - 1 - tile % of_head) * own; }
  DEVICE int head() const { return tile / of_head % Shape::heads; }
  DEVICE int sequence() const { return tile / of_head / Shape::heads; }
  template <class Given>
  DEVICE auto rows(const Given &given) const {
    const attention_text text = attention_find_text(sequence(), given.time, nullptr, nullptr);
    return attention_rows<attention_of_head<Shape>>{text, head(), given.extras};
  }
};

/* Leaves the output of the tiles' rows, and their log-sum-exp. What is given, `give` reads and returns. */
template <class Shape, class Give>
DEVICE void attention_forward_sm90(const CUtensorMap *query_map, const CUtensorMap *key_map,
                                   const CUtensorMap *value_map, const CUtensorMap *output_map, const Give &give) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  typedef attention_sm90<Shape> frame;
  typedef typename frame::forward block;
  constexpr int groups = block::groups, columns = frame::forward_columns;
  typedef attention_sm90_layout<columns> layout;
  auto &memory = *reinterpret_cast<typename frame::forward_memory *>(dynamic_shared());
  const auto prepare = [&] {
    for (int group = 0; group < groups; group++) {
      mbarrier_init(shared_address(&memory.own_full[group]), 1);
      mbarrier_init(shared_address(&memory.own_done[group]), 128);
    }
    for (int stage = 0; stage < 2; stage++) {
      mbarrier_init(shared_address(&memory.keys_full[stage]), 1);
      mbarrier_init(shared_address(&memory.values_full[stage]), 1);
      mbarrier_init(shared_address(&memory.keys_empty[stage]), 4 * groups);
      mbarrier_init(shared_address(&memory.values_empty[stage]), 4 * groups);
    }
  };
  attention_follow_sm90(prepare, query_map, key_map, value_map, output_map);
  const auto given = give();
  attention_tiles_sm90<Shape> tiles(given);

  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); // the same register in all lanes
  if (warpgroup == 0) {
    registers_decrease<block::copying_registers>();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 != 0 || warp > groups) return;
    if (warp == 0) {
      for (int step = 0; tiles.more(); tiles.next()) {
        const auto rows = tiles.rows(given);
        const int first = rows.first_key(tiles.first_row()), last = rows.last_key(tiles.first_row() + block::own);
        const int key_head = tiles.head() / attention_rows<Shape>::group;
        for (int n = attention_ceiling(last - first, columns); n-- > 0; step++) {
          const int stage = step % 2, from = first + n * columns;
          const uint32_t parity = step / 2 % 2;
          const uint32_t keys_full = shared_address(&memory.keys_full[stage]);
          mbarrier_wait(shared_address(&memory.keys_empty[stage]), parity ^ 1);
          mbarrier_arrive_expect(keys_full, sizeof(memory.keys[stage]));
          attention_load_sm90<frame::box>(memory.keys[stage], key_map, keys_full, from, key_head, tiles.sequence());
          const uint32_t values_full = shared_address(&memory.values_full[stage]);
          mbarrier_wait(shared_address(&memory.values_empty[stage]), parity ^ 1);
          mbarrier_arrive_expect(values_full, sizeof(memory.values[stage]));
          attention_load_sm90<frame::box>(memory.values[stage], value_map, values_full, from, key_head,
                                          tiles.sequence());
        }
      }
      grid_dependency_launch(); // what the block still does is the end of its last tile
    } else {
      const int group = warp - 1;
      auto &own = memory.queries[group];
      const uint32_t own_full = shared_address(&memory.own_full[group]);
      for (uint32_t parity = 0; tiles.more(); tiles.next(), parity ^= 1) {
        const int own_row = tiles.first_row() + group * attention_sm90_own;
        mbarrier_arrive_expect(own_full, sizeof(own));
        attention_load_sm90<frame::box>(own, query_map, own_full, own_row, tiles.head(), tiles.sequence());
        mbarrier_wait(shared_address(&memory.own_done[group]), parity);
        attention_take_sm90<frame::box, frame::value_chunks>(output_map, own, own_row, tiles.head(), tiles.sequence());
        bulk_commit();
        bulk_wait_read<0>();
      }
      bulk_wait<0>();
    }
    return;
  }

  registers_increase<block::multiplying_registers>();
  const int group = warpgroup - 1;
  // Warpgroups issue their products in turn, so that one's softmax is computed while another's products are.
  const int my_turn = 1 + group, next_turn = 1 + (group + 1) % groups;
  if (group == groups - 1) barrier_arrive(next_turn, 256);

  auto &own = memory.queries[group];
  int step = 0; // the block of keys, of all tiles'
#pragma unroll 1
  for (uint32_t parity = 0; tiles.more(); tiles.next(), parity ^= 1) {
    const auto rows = tiles.rows(given);
    const int first_row = tiles.first_row(), own_row = first_row + group * attention_sm90_own;
    const int first = rows.first_key(first_row), last = rows.last_key(first_row + block::own);
    int from = first + (attention_ceiling(last - first, columns) - 1) * columns;
    attention_running<layout> running;
    running.begin(rows, own_row, true);
    const attention_documents<layout, attention_of_head<Shape>> documents(
        rows, [&](int i) { return rows.position(own_row + layout::row(i)); });
    typename layout::scores scores;
    typename layout::packed weights;
    float sum[frame::value_sums / 2] = {};
    float change[2];

    mbarrier_wait(shared_address(&memory.own_full[group]), parity);
    mbarrier_wait(shared_address(&memory.keys_full[step % 2]), step / 2 % 2);
    wgmma_fence();
    attention_multiply_sm90<frame::key_depth>(scores, own, memory.keys[step % 2]);
    wgmma_commit();
    wgmma_wait<0>();
    attention_release_sm90(memory.keys_empty[step % 2]);
    running.weigh(scores, change, rows, documents, own_row, from);
    layout::pack(weights, scores);
#pragma unroll 1
    for (from -= columns; from >= first; from -= columns) {
      const int before = step % 2, values_parity = step / 2 % 2;
      step++;
      const int stage = step % 2;
      mbarrier_wait(shared_address(&memory.keys_full[stage]), step / 2 % 2);
      barrier_sync(my_turn, 256);
      wgmma_fence();
      attention_multiply_sm90<frame::key_depth>(scores, own, memory.keys[stage]);
      wgmma_commit();
      mbarrier_wait(shared_address(&memory.values_full[before]), values_parity);
      wgmma_fence(); // the sums and weights were changed since the last
      attention_accumulate_sm90(sum, weights, memory.values[before]);
      wgmma_commit();
      barrier_arrive(next_turn, 256);
      wgmma_wait<1>();
      attention_release_sm90(memory.keys_empty[stage]);
      running.weigh(scores, change, rows, documents, own_row, from); // while values are added
      wgmma_wait<0>();
      attention_release_sm90(memory.values_empty[before]);
      layout::pack(weights, scores);
#pragma unroll
      for (int e = 0; e < frame::value_sums / 2; e++) sum[e] *= change[e / 2 % 2];
    }
    mbarrier_wait(shared_address(&memory.values_full[step % 2]), step / 2 % 2);
    wgmma_fence();
    attention_accumulate_sm90(sum, weights, memory.values[step % 2]);
    wgmma_commit();
    wgmma_wait<0>();
    attention_release_sm90(memory.values_empty[step % 2]);
    step++;

    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      factor[i] = 1.0f / running.finish(i);
      const int row = own_row + layout::row(i);
      if (given.log_sum_exp && row < rows.count() && threadIdx.x % 4 == 0)
        given.log_sum_exp[rows.place(row)] = running.log_sum_exp(i);
    }
    attention_leave_sm90(own, sum, factor);
    mbarrier_arrive(shared_address(&memory.own_done[group]));
  }
  if (group == 0) barrier_sync(my_turn, 256); // the last turn that it was given
#else
  (void)query_map, (void)key_map, (void)value_map, (void)output_map, (void)give;
#endif
}
