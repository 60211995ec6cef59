// attention_sm90_gradient.h - the gradients of attention on sm_90a by one kernel of five products (FlashAttention-3's
// backward pass, arXiv:2407.08608), for vectors and values of up to 128 elements, without formulas of the model's.
//
// A block owns 128 keys and sums their dK and dV in registers, while the queries of every head that shares them pass.
// Scores are transposed, so that weights and their gradients dS are, packed, the left operands of dV and dK. dQ is a
// sum over blocks of keys: each leaves its part, dS K, in shared memory, and a thread has it added to float32 sums in
// memory.
//
// Either the parts of a block of queries are added in turn, the last keys' first: results are the same bits in any
// order of blocks, and the first part is stored, so that sums need no zeros. The last one takes the sum into shared
// memory, adds its part, and rounds. Or parts are added as they come (InTurn false), to sums that begin as zeros, and a
// launch of its own rounds.
//
// There are as many blocks as run at once. They take their keys by tickets, of which the keys behind others have
// earlier ones: who waits for a turn, waits for one that runs. Causal blocks begin at their own keys' queries, so that
// blocks that begin together are never at the same queries, and none waits for long. Who has copied all queries of its
// keys takes the next ticket, and copies the first of that while the others finish.
#pragma once
#include "attention_sm90_sums.h"

#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* From products q k, of rows that are keys and columns that are queries, to weights, packed as left operands. */
template <class Layout, class Shape>
DEVICE void attention_weigh_sm90(typename Layout::packed &weights, typename Layout::scores &products,
                                 const attention_rows<Shape> &rows, int first_row, int first_key,
                                 const attention_documents<Layout, Shape> &documents, const float *log_sums) {
  const int last_row = first_row + Layout::all_columns;
  if (!rows.reaches_all(first_row, last_row, first_key, first_key + Layout::all_rows) ||
      !documents.have(first_row, last_row)) {
#pragma unroll
    for (int c = 0; c < Layout::columns; c++)
#pragma unroll
      for (int i = 0; i < Layout::rows; i++)
        if (!rows.reaches(first_row + Layout::column(c), first_key + Layout::row(i)) ||
            !documents.has(i, first_row + Layout::column(c)))
          Layout::at(products, i, c) = Shape::scale > 0 ? -INFINITY : INFINITY;
  }
#pragma unroll
  for (int c = 0; c < Layout::columns; c += 2) {
    const float2 log_sum = *reinterpret_cast<const float2 *>(log_sums + Layout::column(c));
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      constexpr float factor = Shape::scale * attention_log2_e;
      const float first = exp2_approximate(fmaf(factor, Layout::at(products, i, c), -log_sum.x));
      const float second = exp2_approximate(fmaf(factor, Layout::at(products, i, c + 1), -log_sum.y));
      weights[c / 4][c / 2 % 2 * 2 + i] = pack_bf16(first, second);
    }
  }
}

/* From the gradients of weights to those of products q k, but for `scale`: packed, where the weights are, packed, which
 * takes no more registers while dV is multiplied. */
template <class Layout>
DEVICE void attention_differentiate_sm90(typename Layout::packed &weights, typename Layout::scores &by_weight,
                                         const float *deltas) {
#pragma unroll
  for (int c = 0; c < Layout::columns; c += 2) {
    const float2 delta = *reinterpret_cast<const float2 *>(deltas + Layout::column(c));
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      uint32_t &two = weights[c / 4][c / 2 % 2 * 2 + i];
      const float first = __uint_as_float(two << 16) * (Layout::at(by_weight, i, c) - delta.x);
      const float second = __uint_as_float(two & 0xffff0000u) * (Layout::at(by_weight, i, c + 1) - delta.y);
      two = pack_bf16(first, second);
    }
  }
}

/* Leaves a warpgroup's packed rows, of 64 keys, as columns that wgmma reads transposed. */
template <int Columns>
DEVICE void attention_spread_sm90(attention_sm90_tile<128, Columns / 64> &to, const uint32_t (&packed)[Columns / 16][4],
                                  int group) {
  const int lane = threadIdx.x % 32, row = group * 64 + threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int n = 0; n < Columns / 16; n++) {
    const int sixteen_bytes = (n % 4 * 2 + lane / 16) ^ row % 8; // the swizzle
    stmatrix(shared_address(to.elements[n / 4][row]) + sixteen_bytes * 16, packed[n]);
  }
}

/* Brings keys, and the queries that pass them with their statistics, ticket after ticket. By a warp. */
template <class Shape, class Given>
DEVICE void attention_bring_sm90(typename attention_all_gradients_sm90_frame<Shape>::memory &memory,
                                 const attention_query_sums<Shape> &sums, const CUtensorMap *query_map,
                                 const CUtensorMap *key_map, const CUtensorMap *value_map,
                                 const CUtensorMap *output_map, const Given &given) {
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  constexpr int groups = frame::groups, columns = frame::columns, box = attention_sm90_own;
  const uint32_t own_full = shared_address(&memory.own_full), own_empty = shared_address(&memory.own_empty);
  const int tickets = attention_ceiling(static_cast<int>(given.time), frame::own) * Shape::kv_heads *
                      static_cast<int>(given.texts);
  int step = 0; // the block of queries, of all tickets'
  for (uint32_t parity = 0;; parity ^= 1) {
    int ticket = threadIdx.x == 0 ? atomicAdd(sums.ticket(), 1) : 0;
    ticket = __shfl_sync(0xffffffffu, ticket, 0);
    if (ticket >= tickets) {
      grid_dependency_launch(); // what the block still does is its last keys
      if (threadIdx.x != 0) return;
      mbarrier_wait(own_empty, parity ^ 1);
      memory.ticket = -1;
      mbarrier_arrive(own_full);
      return;
    }
    attention_passing_sm90<Shape> passing(given, ticket);
    for (; passing.more(); passing.next(), step++) {
      const int stage = step % 2, from = passing.first_query();
      const uint32_t full = shared_address(&memory.full[stage]);
      mbarrier_wait(shared_address(&memory.empty[stage]), step / 2 % 2 ^ 1);
      if (threadIdx.x == 0) {
        mbarrier_arrive_expect(full, sizeof(memory.queries[0]) + sizeof(memory.outputs[0]));
        attention_load_sm90<box>(memory.queries[stage], query_map, full, from, passing.head, passing.sequence);
        attention_load_sm90<box>(memory.outputs[stage], output_map, full, from, passing.head, passing.sequence);
      }
      const auto rows = passing.rows(given);
      for (int i = threadIdx.x; i < columns; i += 32) {
        const float2 statistics = attention_statistics(given, rows, from + i);
        memory.log_sums[stage][i] = statistics.x;
        memory.deltas[stage][i] = statistics.y;
      }
      mbarrier_arrive(full);
      if (passing.n == 0 && threadIdx.x == 0) {
        mbarrier_wait(own_empty, parity ^ 1);
        memory.ticket = ticket;
        mbarrier_arrive_expect(own_full, sizeof(memory.keys) + sizeof(memory.values));
        for (int group = 0; group < groups; group++) {
          const int key = passing.first_key() + group * attention_sm90_own;
          attention_load_sm90<box>(memory.keys[group], key_map, own_full, key, passing.key_head, passing.sequence);
          attention_load_sm90<box>(memory.values[group], value_map, own_full, key, passing.key_head,
                                   passing.sequence);
        }
      }
      __syncwarp();
    }
  }
}

/* Has the block's parts of dQ added to the sums, or dQ stored where it finishes them. By one thread. */
template <class Shape, bool InTurn, class Given>
DEVICE void attention_add_parts_sm90(typename attention_all_gradients_sm90_frame<Shape>::memory &memory,
                                     const attention_query_sums<Shape> &sums, const CUtensorMap *query_gradient_map,
                                     const Given &given) {
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  constexpr int groups = frame::groups;
  const uint32_t own_full = shared_address(&memory.own_full), own_empty = shared_address(&memory.own_empty);
  const uint32_t part_full = shared_address(&memory.part_full), part_empty = shared_address(&memory.part_empty);
  const uint32_t sum_full = shared_address(&memory.sum_full);
  const uint32_t part = shared_address(memory.query_gradient);
  constexpr uint32_t bytes = sizeof(memory.query_gradient);
  int step = 0;
  for (uint32_t parity = 0;; parity ^= 1) {
    mbarrier_wait(own_full, parity);
    const int ticket = memory.ticket;
    mbarrier_arrive(own_empty);
    if (ticket < 0) break;
    attention_passing_sm90<Shape> passing(given, ticket);
    for (; passing.more(); passing.next(), step++) {
      const int64_t index = sums.index(passing.sequence, passing.head, passing.block);
      const int turn = passing.turn();
      const uint32_t part_parity = step % 2;
      if (!InTurn) {
        mbarrier_wait(part_full, part_parity);
        bulk_add(sums.of(index), part, bytes);
      } else if (!passing.finishes(given)) {
        mbarrier_wait(part_full, part_parity);
        if (turn == 0) {
          bulk_store(sums.of(index), part, bytes);
        } else {
          turn_wait(sums.turn(index), turn);
          fence_async_global();
          bulk_add(sums.of(index), part, bytes);
        }
      } else {
        if (turn > 0) {
          turn_wait(sums.turn(index), turn);
          fence_async_global();
          mbarrier_arrive_expect(sum_full, bytes);
          bulk_load(part, sums.of(index), bytes, sum_full);
        }
        mbarrier_wait(part_full, part_parity);
        for (int group = 0; group < groups; group++)
          tma_store_4d(query_gradient_map, part + group * bytes / groups, frame::chunks == 1 ? 0 : group * 64,
                       passing.first_query() + (frame::chunks == 1 ? group * 64 : 0), passing.head, passing.sequence);
      }
      bulk_commit();
      bulk_wait_read<0>();
      mbarrier_arrive(part_empty);
      if (!InTurn || passing.finishes(given)) continue;
      bulk_wait<0>();
      turn_pass(sums.turn(index));
    }
  }
  bulk_wait<0>();
}
#endif

/* dK and dV of the keys that the block's tickets say, and their part of dQ; dQ too, where the parts come in turn. */
template <class Shape, bool InTurn, class Give>
DEVICE void attention_all_gradients_sm90(const CUtensorMap *query_map, const CUtensorMap *key_map,
                                         const CUtensorMap *value_map, const CUtensorMap *output_map,
                                         const CUtensorMap *query_gradient_map, const CUtensorMap *key_gradient_map,
                                         const CUtensorMap *value_gradient_map, const Give &give) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  typedef typename frame::widths widths;
  typedef typename frame::block block;
  constexpr int groups = block::groups, columns = frame::columns, box = attention_sm90_own;
  typedef attention_sm90_layout<columns> layout;
  auto &memory = *reinterpret_cast<typename frame::memory *>(dynamic_shared());
  const uint32_t own_full = shared_address(&memory.own_full), own_empty = shared_address(&memory.own_empty);
  const uint32_t part_full = shared_address(&memory.part_full), part_empty = shared_address(&memory.part_empty);
  const uint32_t sum_full = shared_address(&memory.sum_full);
  const auto prepare = [&] {
    // A stage is full when its copies and the 32 lanes that bring its statistics have arrived.
    attention_barriers_sm90(memory.own_full, memory.full, memory.empty, 1 + 32, 4 * groups);
    mbarrier_init(own_empty, groups + 1);
    mbarrier_init(part_full, 128 * groups);
    mbarrier_init(part_empty, 1);
    mbarrier_init(sum_full, 1);
  };
  attention_follow_sm90(prepare, query_map, key_map, value_map, output_map, query_gradient_map, key_gradient_map,
                        value_gradient_map);
  const auto given = give();
  const attention_query_sums<Shape> sums(given.workspace, given.texts, given.time);

  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); // the same register in all lanes
  if (warpgroup == 0) {
    registers_decrease<block::copying_registers>();
    if (threadIdx.x < 32)
      attention_bring_sm90<Shape>(memory, sums, query_map, key_map, value_map, output_map, given);
    else if (threadIdx.x == 32)
      attention_add_parts_sm90<Shape, InTurn>(memory, sums, query_gradient_map, given);
    return;
  }

  registers_increase<block::multiplying_registers>();
  const int group = warpgroup - 1;
  // What this warpgroup has of a block's dQ: a chunk of elements, or of queries.
  const int chunk = frame::chunks == 1 ? 0 : group, queries = frame::chunks == 1 ? group : 0;
  int step = 0, sums_taken = 0;
#pragma unroll 1
  for (uint32_t parity = 0;; parity ^= 1) {
    mbarrier_wait(own_full, parity);
    const int ticket = __shfl_sync(0xffffffffu, memory.ticket, 0); // the same register in all lanes
    if (ticket < 0) break;
    attention_passing_sm90<Shape> passing(given, ticket);
    const int own_key = passing.first_key() + group * attention_sm90_own;
    float key_sum[widths::key_sums / 2] = {}, value_sum[widths::value_sums / 2] = {};
    const attention_documents<layout, attention_of_head<Shape>> documents(
        passing.rows(given), [&](int i) { return own_key + layout::row(i); });
#pragma unroll 1
    for (; passing.more(); passing.next(), step++) {
      const int stage = step % 2, from = passing.first_query();
      const auto rows = passing.rows(given);
      typename layout::scores products, by_weight;
      typename layout::packed weights, by_product;
      mbarrier_wait(shared_address(&memory.full[stage]), step / 2 % 2);
      wgmma_fence();
      attention_multiply_sm90<widths::key_depth>(products, memory.keys[group], memory.queries[stage]);
      wgmma_commit();
      attention_multiply_sm90<widths::value_depth>(by_weight, memory.values[group], memory.outputs[stage]);
      wgmma_commit();
      wgmma_wait<1>();
      attention_weigh_sm90<layout>(weights, products, rows, from, own_key, documents, memory.log_sums[stage]);
      wgmma_copy(by_product, weights);
      wgmma_fence();
      attention_accumulate_sm90(value_sum, weights, memory.outputs[stage]);
      wgmma_commit();
      wgmma_wait<1>(); // while values' gradients are added up
      attention_differentiate_sm90<layout>(by_product, by_weight, memory.deltas[stage]);
      attention_spread_sm90<columns>(memory.scores[stage], by_product, group);
      fence_async();
      // All of dS is there; and all products of the block of queries before have read theirs.
      barrier_sync(1, 128 * groups);
      float part[frame::width / 2];
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < frame::own / 16; k++) {
        const uint32_t left = shared_address(memory.scores[stage].elements[queries]);
        const uint32_t right = shared_address(memory.keys[k / 4].elements[chunk]);
        wgmma<frame::width, 1, 1>(part, wgmma_descriptor(left + k * 2048, 0, 1024),
                                  wgmma_descriptor(right + k % 4 * 2048, 0, 1024), k != 0);
      }
      wgmma_commit();
      attention_accumulate_sm90(key_sum, by_product, memory.queries[stage]);
      wgmma_commit();
      wgmma_wait<1>();
      mbarrier_wait(part_empty, step % 2 ^ 1);
      float *const to = memory.query_gradient + group * (frame::part / groups);
      float4 *const four = reinterpret_cast<float4 *>(to) + threadIdx.x % 128;
      if (!InTurn || !passing.finishes(given)) {
#pragma unroll
        for (int i = 0; i < frame::width / 8; i++)
          four[i * 128] = make_float4(part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3]);
      } else {
        if (passing.turn() > 0) {
          mbarrier_wait(sum_full, sums_taken++ % 2);
#pragma unroll
          for (int i = 0; i < frame::width / 8; i++) {
            const float4 sum = four[i * 128];
            part[4 * i] += sum.x, part[4 * i + 1] += sum.y, part[4 * i + 2] += sum.z, part[4 * i + 3] += sum.w;
          }
          barrier_sync(2 + group, 128); // all of the warpgroup have read: dQ takes the sum's place
        }
        attention_leave_sm90(*reinterpret_cast<attention_sm90_tile<attention_sm90_own, 1> *>(to), part,
                             {Shape::scale, Shape::scale});
      }
      fence_async();
      mbarrier_arrive(part_full);
      wgmma_wait<0>();
      attention_release_sm90(memory.empty[stage]);
    }
    attention_leave_sm90(memory.values[group], value_sum, {1.0f, 1.0f});
    barrier_sync(1, 128 * groups); // keys are read by both warpgroups
    attention_leave_sm90(memory.keys[group], key_sum, {Shape::scale, Shape::scale});
    barrier_sync(2 + group, 128);
    if (threadIdx.x % 128 == 0) {
      attention_take_sm90<box, frame::chunks>(value_gradient_map, memory.values[group], own_key, passing.key_head,
                                              passing.sequence);
      attention_take_sm90<box, frame::chunks>(key_gradient_map, memory.keys[group], own_key, passing.key_head,
                                              passing.sequence);
      bulk_commit();
      bulk_wait_read<0>();
      mbarrier_arrive(own_empty);
    }
  }
  if (threadIdx.x % 128 == 0) bulk_wait<0>();
#else
  (void)query_map, (void)key_map, (void)value_map, (void)output_map;
  (void)query_gradient_map, (void)key_gradient_map, (void)value_gradient_map, (void)give;
#endif
}
