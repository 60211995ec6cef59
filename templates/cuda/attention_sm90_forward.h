// attention_sm90_forward.h - attention of bfloat16 products on sm_90a, forward.
#pragma once
#include "attention_sm90.h"

/* Leaves the output of the block's rows, and their log-sum-exp. */
template <class Shape, class Given>
DEVICE void attention_forward_sm90(const CUtensorMap *query_map, const CUtensorMap *key_map,
                                   const CUtensorMap *value_map, const CUtensorMap *output_map, const Given &given) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  typedef attention_sm90<Shape> frame;
  typedef typename frame::forward block;
  constexpr int groups = block::groups, columns = frame::forward_columns;
  typedef attention_sm90_layout<columns> layout;
  auto &memory = *reinterpret_cast<typename frame::forward_memory *>(dynamic_shared());

  const int head = blockIdx.y, sequence = blockIdx.z;
  const attention_rows<attention_of_head<Shape>> rows = {
      attention_find_text(sequence, given.time, nullptr, nullptr), head, given.extras};
  const int first_row = (gridDim.x - 1 - blockIdx.x) * block::own; // the longest first
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + block::own);
  const int blocks = attention_ceiling(last - first, columns);

  const uint32_t own_full = shared_address(&memory.own_full);
  if (threadIdx.x == 0) {
    mbarrier_init(own_full, 1);
    for (int stage = 0; stage < 2; stage++) {
      mbarrier_init(shared_address(&memory.keys_full[stage]), 1);
      mbarrier_init(shared_address(&memory.values_full[stage]), 1);
      mbarrier_init(shared_address(&memory.keys_empty[stage]), 4 * groups);
      mbarrier_init(shared_address(&memory.values_empty[stage]), 4 * groups);
    }
    mbarrier_init_fence();
  }
  __syncthreads();

  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); // the same register in all lanes
  if (warpgroup == 0) {
    registers_decrease<block::copying_registers>();
    if (threadIdx.x != 0) return;
    const int key_head = head / attention_rows<Shape>::group;
    mbarrier_arrive_expect(own_full, frame::key_chunks * block::own * 128);
    for (int n = 0; n < groups; n++)
      attention_load_sm90<frame::key_chunks>(memory.queries[n], query_map, own_full,
                                             first_row + n * attention_sm90_own, head, sequence);
    for (int n = 0; n < blocks; n++) {
      const int stage = n % 2, from = first + (blocks - 1 - n) * columns;
      const uint32_t parity = n / 2 % 2;
      const uint32_t keys_full = shared_address(&memory.keys_full[stage]);
      mbarrier_wait(shared_address(&memory.keys_empty[stage]), parity ^ 1);
      mbarrier_arrive_expect(keys_full, frame::key_chunks * columns * 128);
      attention_load_sm90<frame::key_chunks>(memory.keys[stage], key_map, keys_full, from, key_head, sequence);
      const uint32_t values_full = shared_address(&memory.values_full[stage]);
      mbarrier_wait(shared_address(&memory.values_empty[stage]), parity ^ 1);
      mbarrier_arrive_expect(values_full, frame::value_chunks * columns * 128);
      attention_load_sm90<frame::value_chunks>(memory.values[stage], value_map, values_full, from, key_head, sequence);
    }
    return;
  }

  registers_increase<block::multiplying_registers>();
  const int group = warpgroup - 1, own_row = first_row + group * attention_sm90_own;
  // Warpgroups issue their products in turn, so that one's softmax is computed while another's products are.
  const int my_turn = 1 + group, next_turn = 1 + (group + 1) % groups;
  if (group == groups - 1) barrier_arrive(next_turn, 256);

  auto &own = memory.queries[group];
  attention_running<layout> running;
  running.begin(rows, own_row, true);
  typename layout::scores scores;
  typename layout::packed weights;
  float sum[frame::value_width / 2] = {};
  float change[2];

  mbarrier_wait(own_full, 0);
  mbarrier_wait(shared_address(&memory.keys_full[0]), 0);
  wgmma_fence();
  attention_multiply_sm90<frame::depth, columns>(scores, own, memory.keys[0]);
  wgmma_commit();
  wgmma_wait<0>();
  attention_release_sm90(memory.keys_empty[0]);
  running.weigh(scores, change, rows, own_row, first + (blocks - 1) * columns);
  layout::pack(weights, scores);
#pragma unroll 1
  for (int n = 1; n < blocks; n++) {
    const int stage = n % 2, before = stage ^ 1;
    mbarrier_wait(shared_address(&memory.keys_full[stage]), n / 2 % 2);
    barrier_sync(my_turn, 256);
    wgmma_fence();
    attention_multiply_sm90<frame::depth, columns>(scores, own, memory.keys[stage]);
    wgmma_commit();
    mbarrier_wait(shared_address(&memory.values_full[before]), (n - 1) / 2 % 2);
    wgmma_fence(); // the sums and weights were changed since the last
    attention_accumulate_sm90<frame::value_width>(sum, weights, memory.values[before]);
    wgmma_commit();
    barrier_arrive(next_turn, 256);
    wgmma_wait<1>();
    attention_release_sm90(memory.keys_empty[stage]);
    running.weigh(scores, change, rows, own_row, first + (blocks - 1 - n) * columns); // while values are added
    wgmma_wait<0>();
    attention_release_sm90(memory.values_empty[before]);
    layout::pack(weights, scores);
#pragma unroll
    for (int e = 0; e < frame::value_width / 2; e++) sum[e] *= change[e / 2 % 2];
  }
  const int stage = (blocks - 1) % 2;
  mbarrier_wait(shared_address(&memory.values_full[stage]), (blocks - 1) / 2 % 2);
  wgmma_fence();
  attention_accumulate_sm90<frame::value_width>(sum, weights, memory.values[stage]);
  wgmma_commit();
  wgmma_wait<0>();
  if (group == 0) barrier_sync(my_turn, 256); // the last turn that it was given

  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    factor[i] = 1.0f / running.finish(i);
    const int row = own_row + layout::row(i);
    if (given.log_sum_exp && row < rows.count() && threadIdx.x % 4 == 0)
      given.log_sum_exp[rows.place(row)] = running.log_sum_exp(i);
  }
  attention_store_sm90<frame::value_width>(output_map, own, sum, factor, own_row, head, sequence, 1 + groups + group);
#else
  (void)query_map, (void)key_map, (void)value_map, (void)output_map, (void)given;
#endif
}
