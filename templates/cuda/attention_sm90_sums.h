// attention_sm90_sums.h - what attention_sm90_gradient.h stands on: its sizes, the order in which keys and queries
// pass, the sums of dQ in memory, and what is launched before it and after.
#pragma once
#include "attention_sm90_backward.h"

/* The sizes of a shape's kernel, and what its shared memory holds. */
template <class Shape>
struct attention_all_gradients_sm90_frame {
  typedef attention_sm90<Shape> widths;
  static constexpr int chunks = widths::key_chunks;
  static_assert(chunks <= 2 && chunks == widths::value_chunks && !widths::formulas, "sums fit in registers");
  typedef attention_sm90_block<2, 56> block;
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
    uint64_t own_full, own_empty, full[2], empty[2], part_full, part_empty, sum_full;
    int32_t ticket; /* of these keys; -1 after the last */
  };
  static constexpr unsigned shared = sizeof(memory);

  static int64_t key_blocks(int64_t time) { return (time + own - 1) / own; }
  static unsigned grid(int64_t batch, int64_t time) {
    const int64_t tickets = key_blocks(time) * Shape::kv_heads * batch, most = malc_multiprocessors();
    return static_cast<unsigned>(tickets < most ? tickets : most);
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

  DEVICE attention_query_sums(float *workspace, int64_t batch, int64_t time)
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
  template <class Given>
  DEVICE bool finishes(const Given &given) const {
    return key_block == rows(given).first_key(first_query()) / frame::own;
  }
  template <class Given>
  DEVICE rows_of_head rows(const Given &given) const {
    return {attention_find_text(sequence, given.time, nullptr, nullptr), head, given.extras};
  }
};
