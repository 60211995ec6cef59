// attention_sm90_backward.h - the gradients of attention of bfloat16 products on sm_90a, by two kernels: what
// attention_sm90_gradient.h does in one, where that has no room.
//
// dK and dV by blocks of keys, from the queries of every head that shares them; dQ by blocks of a head's queries, in a
// pass of its own. Each sum has one owner and one order, whatever comes first.
#pragma once
#include "attention_sm90.h"

/* The barriers of both kernels: own vectors arrive once, those that pass in two stages. By one thread. */
DEVICE void attention_barriers_sm90(uint64_t &own_full, uint64_t (&full)[2], uint64_t (&empty)[2], int arrivals,
                                    int warps) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  mbarrier_init(shared_address(&own_full), 1);
  for (int stage = 0; stage < 2; stage++) {
    mbarrier_init(shared_address(&full[stage]), arrivals);
    mbarrier_init(shared_address(&empty[stage]), warps);
  }
#endif
}

/* dK and dV of the block's keys, from all queries that see any of them: scores are transposed, their rows are keys. */
template <class Shape, class Give>
DEVICE void attention_key_gradient_sm90(const CUtensorMap *query_map, const CUtensorMap *key_map,
                                        const CUtensorMap *value_map, const CUtensorMap *output_map,
                                        const CUtensorMap *key_gradient_map, const CUtensorMap *value_gradient_map,
                                        const Give &give) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  typedef attention_sm90<Shape> frame;
  typedef typename frame::key_gradient block;
  constexpr int groups = block::groups, columns = frame::key_gradient_columns;
  constexpr int sharing = attention_rows<Shape>::group; // heads
  typedef attention_sm90_layout<columns> layout;
  auto &memory = *reinterpret_cast<typename frame::key_gradient_memory *>(dynamic_shared());
  // A stage is full when its copies and the 32 lanes that bring its statistics have arrived.
  const auto prepare = [&] {
    attention_barriers_sm90(memory.own_full, memory.full, memory.empty, 1 + 32, 4 * groups);
  };
  attention_follow_sm90(prepare, query_map, key_map, value_map, output_map, key_gradient_map, value_gradient_map);
  grid_dependency_launch(); // all blocks have one tile
  const auto given = give();

  const int key_head = blockIdx.y, sequence = blockIdx.z, first_key = blockIdx.x * block::own;
  typedef attention_rows<attention_of_head<Shape>> rows_of_head;
  const rows_of_head some = {attention_find_text(sequence, given.time, nullptr, nullptr), 0, given.extras};
  const int first = some.first_row(first_key), last = some.last_row(min(first_key + block::own, some.keys()));
  const int blocks = attention_ceiling(max(last - first, 0), columns);
  const auto rows_at = [&](int n) { return rows_of_head{some.text, key_head * sharing + n / blocks, given.extras}; };
  const auto first_at = [&](int n) { return first + n % blocks * columns; };

  const uint32_t own_full = shared_address(&memory.own_full);

  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); // the same register in all lanes
  if (warpgroup == 0) {
    registers_decrease<block::copying_registers>();
    if (threadIdx.x >= 32) return;
    if (threadIdx.x == 0) {
      mbarrier_arrive_expect(own_full, sizeof(memory.keys) + sizeof(memory.values));
      for (int n = 0; n < groups; n++) {
        const int from = first_key + n * attention_sm90_own;
        attention_load_sm90<frame::box>(memory.keys[n], key_map, own_full, from, key_head, sequence);
        attention_load_sm90<frame::box>(memory.values[n], value_map, own_full, from, key_head, sequence);
      }
    }
    for (int n = 0; n < sharing * blocks; n++) {
      const int stage = n % 2, from = first_at(n);
      const rows_of_head rows = rows_at(n);
      const uint32_t full = shared_address(&memory.full[stage]);
      mbarrier_wait(shared_address(&memory.empty[stage]), n / 2 % 2 ^ 1);
      if (threadIdx.x == 0) {
        mbarrier_arrive_expect(full, sizeof(memory.queries[0]) + sizeof(memory.outputs[0]));
        attention_load_sm90<frame::box>(memory.queries[stage], query_map, full, from, rows.shared, sequence);
        attention_load_sm90<frame::box>(memory.outputs[stage], output_map, full, from, rows.shared, sequence);
      }
      for (int i = threadIdx.x; i < columns; i += 32)
        memory.statistics[stage][i] = attention_statistics(given, rows, from + i);
      mbarrier_arrive(full);
    }
    return;
  }

  registers_increase<block::multiplying_registers>();
  const int group = warpgroup - 1, own_key = first_key + group * attention_sm90_own;
  const attention_documents<layout, attention_of_head<Shape>> documents(
      some, [&](int i) { return own_key + layout::row(i); });
  float key_sum[frame::key_sums / 2] = {}, value_sum[frame::value_sums / 2] = {};
  mbarrier_wait(own_full, 0);
#pragma unroll 1
  for (int n = 0; n < sharing * blocks; n++) {
    const int stage = n % 2, from = first_at(n);
    const rows_of_head rows = rows_at(n);
    typename layout::scores weights, gradients;
    mbarrier_wait(shared_address(&memory.full[stage]), n / 2 % 2);
    wgmma_fence();
    attention_multiply_sm90<frame::key_depth>(weights, memory.keys[group], memory.queries[stage]);
    attention_multiply_sm90<frame::value_depth>(gradients, memory.values[group], memory.outputs[stage]);
    wgmma_commit();
    wgmma_wait<0>();
    const float2 *const of_block = memory.statistics[stage];
    attention_differentiate<attention_of_head<Shape>, layout>(
        weights, gradients, rows,
        rows.reaches_all(from, from + columns, own_key, own_key + attention_sm90_own) &&
            documents.have(from, from + columns),
        [&](int, int c) { return from + layout::column(c); }, [&](int i, int) { return own_key + layout::row(i); },
        [&](int i, int c) { return documents.has(i, from + layout::column(c)); },
        [&](int, int c) { return of_block[layout::column(c)].x; },
        [&](int, int c) { return of_block[layout::column(c)].y; }, [](int, float) {});
    typename layout::packed by_value, by_key;
    layout::pack(by_value, weights);
    layout::pack(by_key, gradients);
    wgmma_fence();
    attention_accumulate_sm90(value_sum, by_value, memory.outputs[stage]);
    attention_accumulate_sm90(key_sum, by_key, memory.queries[stage]);
    wgmma_commit();
    wgmma_wait<0>();
    attention_release_sm90(memory.empty[stage]);
  }
  attention_store_sm90<frame::box>(key_gradient_map, memory.keys[group], key_sum, {Shape::scale, Shape::scale}, own_key,
                                   key_head, sequence, 1 + group);
  attention_store_sm90<frame::box>(value_gradient_map, memory.values[group], value_sum, {1.0f, 1.0f}, own_key, key_head,
                                   sequence, 1 + group);
#else
  (void)query_map, (void)key_map, (void)value_map, (void)output_map;
  (void)key_gradient_map, (void)value_gradient_map, (void)give;
#endif
}

/* dQ of the block's rows; in the workspace, where there are slopes, each row's part of its slope's gradient too. */
template <class Shape, class Give>
DEVICE void attention_query_gradient_sm90(const CUtensorMap *query_map, const CUtensorMap *key_map,
                                          const CUtensorMap *value_map, const CUtensorMap *output_map,
                                          const CUtensorMap *query_gradient_map, const Give &give) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  typedef attention_sm90<Shape> frame;
  typedef typename frame::query_gradient block;
  constexpr int groups = block::groups, columns = frame::query_gradient_columns;
  typedef attention_sm90_layout<columns> layout;
  auto &memory = *reinterpret_cast<typename frame::query_gradient_memory *>(dynamic_shared());
  const auto prepare = [&] {
    attention_barriers_sm90(memory.own_full, memory.full, memory.empty, 1, 4 * groups);
  };
  attention_follow_sm90(prepare, query_map, key_map, value_map, output_map, query_gradient_map);
  grid_dependency_launch(); // all blocks have one tile
  const auto given = give();

  const int head = blockIdx.y, sequence = blockIdx.z;
  const attention_rows<attention_of_head<Shape>> rows = {
      attention_find_text(sequence, given.time, nullptr, nullptr), head, given.extras};
  const int first_row = (gridDim.x - 1 - blockIdx.x) * block::own; // the longest first
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + block::own);
  const int blocks = attention_ceiling(last - first, columns);

  const uint32_t own_full = shared_address(&memory.own_full);

  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); // the same register in all lanes
  if (warpgroup == 0) {
    registers_decrease<block::copying_registers>();
    if (threadIdx.x != 0) return;
    const int key_head = head / attention_rows<Shape>::group;
    mbarrier_arrive_expect(own_full, sizeof(memory.queries) + sizeof(memory.outputs));
    for (int n = 0; n < groups; n++) {
      const int from = first_row + n * attention_sm90_own;
      attention_load_sm90<frame::box>(memory.queries[n], query_map, own_full, from, head, sequence);
      attention_load_sm90<frame::box>(memory.outputs[n], output_map, own_full, from, head, sequence);
    }
    for (int n = 0; n < blocks; n++) {
      const int stage = n % 2, from = first + n * columns;
      const uint32_t full = shared_address(&memory.full[stage]);
      mbarrier_wait(shared_address(&memory.empty[stage]), n / 2 % 2 ^ 1);
      mbarrier_arrive_expect(full, sizeof(memory.keys[0]) + sizeof(memory.values[0]));
      attention_load_sm90<frame::box>(memory.keys[stage], key_map, full, from, key_head, sequence);
      attention_load_sm90<frame::box>(memory.values[stage], value_map, full, from, key_head, sequence);
    }
    return;
  }

  registers_increase<block::multiplying_registers>();
  const int group = warpgroup - 1, own_row = first_row + group * attention_sm90_own;
  float2 statistics[2];
#pragma unroll
  for (int i = 0; i < 2; i++) statistics[i] = attention_statistics(given, rows, own_row + layout::row(i));
  const attention_documents<layout, attention_of_head<Shape>> documents(
      rows, [&](int i) { return rows.position(own_row + layout::row(i)); });
  float tilts[2] = {};
  float sum[frame::key_sums / 2] = {};
  mbarrier_wait(own_full, 0);
#pragma unroll 1
  for (int n = 0; n < blocks; n++) {
    const int stage = n % 2, from = first + n * columns;
    typename layout::scores weights, gradients;
    mbarrier_wait(shared_address(&memory.full[stage]), n / 2 % 2);
    wgmma_fence();
    attention_multiply_sm90<frame::key_depth>(weights, memory.queries[group], memory.keys[stage]);
    attention_multiply_sm90<frame::value_depth>(gradients, memory.outputs[group], memory.values[stage]);
    wgmma_commit();
    wgmma_wait<0>();
    attention_differentiate<attention_of_head<Shape>, layout>(
        weights, gradients, rows,
        rows.reaches_all(own_row, own_row + attention_sm90_own, from, from + columns) &&
            documents.have(from, from + columns),
        [&](int i, int) { return own_row + layout::row(i); }, [&](int, int c) { return from + layout::column(c); },
        [&](int i, int c) { return documents.has(i, from + layout::column(c)); },
        [&](int i, int) { return statistics[i].x; }, [&](int i, int) { return statistics[i].y; },
        [&](int i, float tilt) { tilts[i] += tilt; });
    typename layout::packed by_key;
    layout::pack(by_key, gradients);
    wgmma_fence();
    attention_accumulate_sm90(sum, by_key, memory.keys[stage]);
    wgmma_commit();
    wgmma_wait<0>();
    attention_release_sm90(memory.empty[stage]);
  }
  attention_store_sm90<frame::box>(query_gradient_map, memory.queries[group], sum, {Shape::scale, Shape::scale},
                                   own_row, head, sequence, 1 + group);
  if constexpr (Shape::tilts) attention_leave_tilts<layout>(given, rows, own_row, tilts);
#else
  (void)query_map, (void)key_map, (void)value_map, (void)output_map, (void)query_gradient_map, (void)give;
#endif
}
