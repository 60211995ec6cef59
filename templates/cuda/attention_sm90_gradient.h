// attention_sm90_gradient.h - the gradients of attention on sm_90a by one kernel of five products (FlashAttention-3's
// backward pass, arXiv:2407.08608), for vectors and values of up to 128 elements, without formulas of the model's.
//
// A block owns 128 keys and sums their dK and dV in registers, while the queries of every head that shares them pass.
// Scores are transposed, so that weights and their gradients dS are, packed, the left operands of dV and dK. dQ is a
// sum over blocks of keys: each leaves its part, dS K, in shared memory, and a thread has it added to float32 sums in
// memory.
//
// Either the parts of a block of queries are added in turn, the last keys' first: results are the same bits in any
// order of blocks, and the first part is stored, so that sums need no zeros. A block waits for those of keys behind its
// own, so it takes its keys by a ticket, of which those have earlier ones: who waits, waits for one that runs. Causal
// blocks begin at their own keys' queries, so blocks that begin together are never at the same queries, and none waits
// for long. The last one takes the sum into shared memory, adds its part, and rounds. Or parts are added as they come
// (InTurn false), to sums that begin as zeros, and a launch of its own rounds.
#pragma once
#include "attention_sm90_backward.h"

/* The sizes of a shape's kernel, and what its shared memory holds. */
template <class Shape>
struct attention_all_gradients_sm90_frame {
  typedef attention_sm90<Shape> widths;
  static constexpr int chunks = widths::key_chunks;
  static_assert(chunks <= 2 && chunks == widths::value_chunks && !widths::formulas, "sums fit in registers");
  typedef attention_sm90_block<2, 40> block;
  static constexpr int groups = block::groups, own = block::own;
  /* Queries that pass at a time. The warpgroups share their dQ: of one chunk by queries, of two by elements. */
  static constexpr int columns = 128 / chunks;
  /* Elements of dQ that a warpgroup has, of 64 queries; and floats of a block's. */
  static constexpr int width = chunks == 1 ? widths::key_sums : 64;
  static constexpr int part = groups * 64 * width;

  struct memory {
    attention_sm90_tile<attention_sm90_own, chunks> keys[groups];   /* then their gradient */
    attention_sm90_tile<attention_sm90_own, chunks> values[groups]; /* likewise */
    attention_sm90_tile<columns, chunks> queries[2], outputs[2];
    attention_sm90_tile<own, columns / 64> scores[2]; /* their gradients, [queries / 64][keys][64] */
    alignas(1024) float query_gradient[part];         /* this block's part, or the sum before it; then dQ */
    float log_sums[2][columns], deltas[2][columns];
    uint64_t own_full, full[2], empty[2], part_full, part_empty, sum_full;
    int32_t ticket;
  };
  static constexpr unsigned shared = sizeof(memory);

  static int64_t key_blocks(int64_t time) { return (time + own - 1) / own; }
  static unsigned grid(int64_t batch, int64_t time) {
    return static_cast<unsigned>(key_blocks(time) * Shape::kv_heads * batch);
  }
  /* Of the launches before and after it, for each block of queries. */
  static dim3 round_grid(int64_t batch, int64_t time) {
    return dim3(static_cast<unsigned>((time + columns - 1) / columns), Shape::heads, static_cast<unsigned>(batch));
  }
  static unsigned begin_grid(int64_t batch, int64_t time) {
    const int64_t each = (time + columns - 1) / columns * Shape::heads * batch;
    return static_cast<unsigned>(each < 1024 ? each : 1024);
  }
};

/* What blocks share in memory: the sums of dQ, as warpgroups hold them, by blocks of queries; whose turn it is at each;
 * and the next ticket. */
template <class Shape>
struct attention_query_sums {
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  float *sums;
  int query_blocks;
  int64_t blocks;

  __host__ __device__ attention_query_sums(float *workspace, int64_t batch, int64_t time)
      : sums(workspace), query_blocks(static_cast<int>((time + frame::columns - 1) / frame::columns)),
        blocks(batch * Shape::heads * query_blocks) {}
  DEVICE int64_t index(int sequence, int head, int query_block) const {
    return (static_cast<int64_t>(sequence) * Shape::heads + head) * query_blocks + query_block;
  }
  DEVICE float *of(int64_t index) const { return sums + index * frame::part; }
  DEVICE int32_t *turn(int64_t index) const { return reinterpret_cast<int32_t *>(of(blocks)) + index; }
  DEVICE int32_t *ticket() const { return turn(blocks); }
};

/* Zeros the tickets and turns, and the sums that parts are added to out of turn. */
template <class Shape, bool InTurn, class Given>
DEVICE void attention_begin_sm90(const Given &given) {
  const attention_query_sums<Shape> sums(given.workspace, given.texts, given.time);
  const int64_t first = InTurn ? sums.blocks * attention_query_sums<Shape>::frame::part : 0;
  const int64_t end = sums.blocks * (attention_query_sums<Shape>::frame::part + 1) + 1;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = first + static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < end; i += step)
    given.workspace[i] = 0.0f; // the integer 0 too
}

/* dQ of a block of queries from sums to which parts were added as they came: a thread has eight elements of two
 * vectors, which lie together. */
template <class Shape, class Given>
DEVICE void attention_round_sm90(const Given &given) {
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  const attention_query_sums<Shape> sums(given.workspace, given.texts, given.time);
  const int block = blockIdx.x, head = blockIdx.y, sequence = blockIdx.z;
  const float *const from = sums.of(sums.index(sequence, head, block));
  constexpr int eights = frame::width / 8;
  for (int i = threadIdx.x; i < frame::part / 16; i += blockDim.x) {
    const int eight = i % eights, lanes = i / eights % 32, group = i / eights / 32;
    const float4 *const four = reinterpret_cast<const float4 *>(from + ((group * eights + eight) * 32 + lanes) * 16);
    const int row = lanes / 8 * 16 + lanes % 8 + (frame::chunks == 1 ? group * 64 : 0);
    const int column = eight * 8 + (frame::chunks == 1 ? 0 : group * 64);
    uint32_t first[4], second[4];
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const float4 value = four[n];
      first[n] = pack_bf16(Shape::scale * value.x, Shape::scale * value.y);
      second[n] = pack_bf16(Shape::scale * value.z, Shape::scale * value.w);
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
      const int64_t query = static_cast<int64_t>(block) * frame::columns + row + 8 * n;
      if (query >= given.time || column >= Shape::dim) continue;
      auto *const to = given.query_gradient + ((sequence * given.time + query) * Shape::heads + head) * Shape::dim;
      const uint32_t(&vector)[4] = n == 0 ? first : second;
      *reinterpret_cast<uint4 *>(to + column) = make_uint4(vector[0], vector[1], vector[2], vector[3]);
    }
  }
}

#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* From products q k, of rows that are keys and columns that are queries, to weights, packed as left operands. */
template <class Layout, class Shape>
DEVICE void attention_weigh_sm90(typename Layout::packed &weights, typename Layout::scores &products,
                                 const attention_rows<Shape> &rows, int first_row, int first_key,
                                 const float *log_sums) {
  if (!rows.sees_all(first_row, first_row + Layout::all_columns, first_key, first_key + Layout::all_rows)) {
#pragma unroll
    for (int c = 0; c < Layout::columns; c++)
#pragma unroll
      for (int i = 0; i < Layout::rows; i++)
        if (!rows.sees(first_row + Layout::column(c), first_key + Layout::row(i)))
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

/* From the gradients of weights to those of products q k, but for `scale`: packed. They are taken from the weights as
 * these are packed, which leaves their registers free while dV is multiplied. */
template <class Layout>
DEVICE void attention_differentiate_sm90(typename Layout::packed &by_product, const typename Layout::packed &weights,
                                         typename Layout::scores &by_weight, const float *deltas) {
#pragma unroll
  for (int c = 0; c < Layout::columns; c += 2) {
    const float2 delta = *reinterpret_cast<const float2 *>(deltas + Layout::column(c));
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      const uint32_t two = weights[c / 4][c / 2 % 2 * 2 + i];
      const float first = __uint_as_float(two << 16) * (Layout::at(by_weight, i, c) - delta.x);
      const float second = __uint_as_float(two & 0xffff0000u) * (Layout::at(by_weight, i, c + 1) - delta.y);
      by_product[c / 4][c / 2 % 2 * 2 + i] = pack_bf16(first, second);
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

/* A block's keys, and the queries that pass them: blocks of one head's, then of the next's. */
template <class Shape>
struct attention_passing_sm90 {
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  typedef attention_rows<attention_of_head<Shape>> rows_of_head;
  static constexpr int sharing = Shape::heads / Shape::kv_heads;
  int sequence, key_head, key_block, key_blocks;
  int first, end, count; /* blocks of queries of each head, and of all */
  int n = 0, head, block; /* where it is */

  template <class Given>
  DEVICE attention_passing_sm90(const Given &given, int ticket)
      : key_blocks(attention_ceiling(static_cast<int>(given.time), frame::own)) {
    key_block = key_blocks - 1 - ticket % key_blocks;
    key_head = ticket / key_blocks % Shape::kv_heads;
    sequence = ticket / key_blocks / Shape::kv_heads;
    head = key_head * sharing;
    const rows_of_head some = rows(given);
    first = some.first_row(first_key()) / frame::columns;
    end = attention_ceiling(some.last_row(min(first_key() + frame::own, some.keys())), frame::columns);
    count = max(end - first, 0) * sharing;
    block = first;
  }
  DEVICE int first_key() const { return key_block * frame::own; }
  DEVICE int first_query() const { return block * frame::columns; }
  DEVICE bool more() const { return n < count; }
  DEVICE void next() {
    n++;
    if (++block < end) return;
    block = first;
    head++;
  }
  /* How many blocks of keys come before this one at these queries: those behind it that they see. */
  DEVICE int turn() const {
    return (Shape::causal ? min(key_blocks - 1, first_query() / frame::own) : key_blocks - 1) - key_block;
  }
  /* Whether none comes after it: they see no key before it. */
  DEVICE bool finishes() const {
    return key_block == (Shape::window > 0 ? max(0, first_query() - Shape::window + 1) / frame::own : 0);
  }
  template <class Given>
  DEVICE rows_of_head rows(const Given &given) const {
    return {attention_find_text(sequence, given.time, nullptr, nullptr), head, given.extras};
  }
};
#endif

/* dK and dV of the keys that the block's ticket says, and their part of dQ; dQ too, where the parts come in turn. */
template <class Shape, bool InTurn, class Given>
DEVICE void attention_all_gradients_sm90(const CUtensorMap *query_map, const CUtensorMap *key_map,
                                         const CUtensorMap *value_map, const CUtensorMap *output_map,
                                         const CUtensorMap *query_gradient_map, const CUtensorMap *key_gradient_map,
                                         const CUtensorMap *value_gradient_map, const Given &given) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  typedef attention_all_gradients_sm90_frame<Shape> frame;
  typedef typename frame::widths widths;
  typedef typename frame::block block;
  constexpr int groups = block::groups, columns = frame::columns, box = attention_sm90_own;
  typedef attention_sm90_layout<columns> layout;
  auto &memory = *reinterpret_cast<typename frame::memory *>(dynamic_shared());
  const attention_query_sums<Shape> sums(given.workspace, given.texts, given.time);

  const uint32_t own_full = shared_address(&memory.own_full);
  const uint32_t part_full = shared_address(&memory.part_full), part_empty = shared_address(&memory.part_empty);
  const uint32_t sum_full = shared_address(&memory.sum_full);
  if (threadIdx.x == 0) {
    memory.ticket = atomicAdd(sums.ticket(), 1);
    // A stage is full when its copies and the 32 lanes that bring its statistics have arrived.
    attention_barriers_sm90(memory.own_full, memory.full, memory.empty, 1 + 32, 4 * groups);
    mbarrier_init(part_full, 128 * groups);
    mbarrier_init(part_empty, 1);
    mbarrier_init(sum_full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  attention_passing_sm90<Shape> passing(given, memory.ticket);
  const int first_key = passing.first_key(), key_head = passing.key_head, sequence = passing.sequence;

  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0); // the same register in all lanes
  if (warpgroup == 0) {
    registers_decrease<block::copying_registers>();
    if (threadIdx.x < 32) {
      if (threadIdx.x == 0) {
        mbarrier_arrive_expect(own_full, sizeof(memory.keys) + sizeof(memory.values));
        for (int n = 0; n < groups; n++) {
          const int from = first_key + n * attention_sm90_own;
          attention_load_sm90<box>(memory.keys[n], key_map, own_full, from, key_head, sequence);
          attention_load_sm90<box>(memory.values[n], value_map, own_full, from, key_head, sequence);
        }
      }
      for (; passing.more(); passing.next()) {
        const int n = passing.n;
        const int stage = n % 2, from = passing.first_query();
        const uint32_t full = shared_address(&memory.full[stage]);
        mbarrier_wait(shared_address(&memory.empty[stage]), n / 2 % 2 ^ 1);
        if (threadIdx.x == 0) {
          mbarrier_arrive_expect(full, sizeof(memory.queries[0]) + sizeof(memory.outputs[0]));
          attention_load_sm90<box>(memory.queries[stage], query_map, full, from, passing.head, sequence);
          attention_load_sm90<box>(memory.outputs[stage], output_map, full, from, passing.head, sequence);
        }
        const auto rows = passing.rows(given);
        for (int i = threadIdx.x; i < columns; i += 32) {
          const float2 statistics = attention_statistics(given, rows, from + i);
          memory.log_sums[stage][i] = statistics.x;
          memory.deltas[stage][i] = statistics.y;
        }
        mbarrier_arrive(full);
      }
    } else if (threadIdx.x == 32) {
      const uint32_t part = shared_address(memory.query_gradient);
      constexpr uint32_t bytes = sizeof(memory.query_gradient);
      for (; passing.more(); passing.next()) {
        const int64_t index = sums.index(sequence, passing.head, passing.block);
        const int turn = passing.turn();
        const uint32_t parity = passing.n % 2;
        if (!InTurn) {
          mbarrier_wait(part_full, parity);
          bulk_add(sums.of(index), part, bytes);
        } else if (!passing.finishes()) {
          mbarrier_wait(part_full, parity);
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
          mbarrier_wait(part_full, parity);
          for (int group = 0; group < groups; group++)
            tma_store_4d(query_gradient_map, part + group * bytes / groups, frame::chunks == 1 ? 0 : group * 64,
                         passing.first_query() + (frame::chunks == 1 ? group * 64 : 0), passing.head, sequence);
        }
        bulk_commit();
        bulk_wait_read<0>();
        mbarrier_arrive(part_empty);
        if (!InTurn || passing.finishes()) continue;
        bulk_wait<0>();
        turn_pass(sums.turn(index));
      }
      bulk_wait<0>();
    }
    return;
  }

  registers_increase<block::multiplying_registers>();
  const int group = warpgroup - 1, own_key = first_key + group * attention_sm90_own;
  // What this warpgroup has of a block's dQ: a chunk of elements, or of queries.
  const int chunk = frame::chunks == 1 ? 0 : group, queries = frame::chunks == 1 ? group : 0;
  float key_sum[widths::key_sums / 2] = {}, value_sum[widths::value_sums / 2] = {};
  int sums_taken = 0;
  mbarrier_wait(own_full, 0);
#pragma unroll 1
  for (; passing.more(); passing.next()) {
    const int n = passing.n, stage = n % 2, from = passing.first_query();
    const auto rows = passing.rows(given);
    typename layout::scores products, by_weight;
    typename layout::packed weights, by_product;
    mbarrier_wait(shared_address(&memory.full[stage]), n / 2 % 2);
    wgmma_fence();
    attention_multiply_sm90<widths::key_depth>(products, memory.keys[group], memory.queries[stage]);
    wgmma_commit();
    attention_multiply_sm90<widths::value_depth>(by_weight, memory.values[group], memory.outputs[stage]);
    wgmma_commit();
    wgmma_wait<1>();
    attention_weigh_sm90<layout>(weights, products, rows, from, own_key, memory.log_sums[stage]);
    wgmma_fence();
    attention_accumulate_sm90(value_sum, weights, memory.outputs[stage]);
    wgmma_commit();
    wgmma_wait<1>(); // while values' gradients are added up
    attention_differentiate_sm90<layout>(by_product, weights, by_weight, memory.deltas[stage]);
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
    mbarrier_wait(part_empty, n % 2 ^ 1);
    float *const to = memory.query_gradient + group * (frame::part / groups);
    float4 *const four = reinterpret_cast<float4 *>(to) + threadIdx.x % 128;
    if (!InTurn || !passing.finishes()) {
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
  attention_store_sm90<box>(value_gradient_map, memory.values[group], value_sum, {1.0f, 1.0f}, own_key, key_head,
                            sequence, 2 + group);
  barrier_sync(1, 128 * groups); // keys are read by both warpgroups
  attention_store_sm90<box>(key_gradient_map, memory.keys[group], key_sum, {Shape::scale, Shape::scale}, own_key,
                            key_head, sequence, 2 + group);
#else
  (void)query_map, (void)key_map, (void)value_map, (void)output_map;
  (void)query_gradient_map, (void)key_gradient_map, (void)value_gradient_map, (void)given;
#endif
}
