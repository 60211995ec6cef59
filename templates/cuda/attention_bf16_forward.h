// attention_bf16_forward.h - attention of bfloat16 products, forward.
#pragma once
#include "attention_bf16.h"

/* Leaves the output of a block's rows, and their log-sum-exp. */
template <class Shape, class Given>
DEVICE void attention_forward_bf16(const Given &given, const attention_text &text, int first_row) {
  typedef attention_bf16<Shape> frame;
  constexpr int columns = frame::forward_columns;
  typedef attention_bf16_layout<columns> layout;
  constexpr int key_tile = columns * frame::key_pitch, value_tile = columns * frame::value_pitch;
  __nv_bfloat16 *const own = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  __nv_bfloat16 *const key_tiles = own + attention_bf16_rows * frame::key_pitch;
  __nv_bfloat16 *const value_tiles = key_tiles + 2 * key_tile;

  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  const auto queries = attention_of_rows<Shape::dim>(given.query, rows);
  const auto keys = attention_of_keys<Shape::dim, Shape::dim>(given.key, given.context, rows);
  const auto values = attention_of_keys<Shape::value_dim, Shape::value_width>(given.value, given.context, rows);
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + attention_bf16_rows);
  const int blocks = attention_ceiling(last - first, columns);
  const auto load = [&](int n) {
    const int from = first + n * columns;
    attention_stage_bf16<columns, frame::dim>(key_tiles + n % 2 * key_tile, keys, from, last);
    attention_stage_bf16<columns, frame::value_dim>(value_tiles + n % 2 * value_tile, values, from, last);
    cp_async_commit();
  };
  attention_stage_bf16<attention_bf16_rows, frame::dim>(own, queries, first_row, rows.count());
  load(0);

  attention_left<frame::dim, frame::dim <= 128> left(own);
  attention_running<layout> running;
  running.begin(rows, first_row, true);
  const attention_documents<layout, Shape> documents(
      rows, [&](int i) { return rows.position(first_row + layout::row(i)); });
  float sum[frame::value_dim / 8][4] = {};
#pragma unroll 1
  for (int n = 0; n < blocks; n++) {
    cp_async_wait<0>();
    __syncthreads(); // the next block's room has been read
    if (n + 1 < blocks) load(n + 1);
    if (n == 0) left.hold();
    typename layout::scores scores;
    attention_multiply_bf16<layout>(scores, left, key_tiles + n % 2 * key_tile);
    float change[2];
    running.weigh(scores, change, rows, documents, first_row, first + n * columns);
#pragma unroll
    for (int d = 0; d < frame::value_dim / 8; d++)
#pragma unroll
      for (int e = 0; e < 4; e++) sum[d][e] *= change[e / 2];
    attention_accumulate_bf16<layout, frame::value_dim, frame::value_pitch>(sum, scores,
                                                                            value_tiles + n % 2 * value_tile);
  }

  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    factor[i] = 1.0f / running.finish(i);
    const int row = first_row + layout::row(i);
    if (given.log_sum_exp && row < rows.count() && threadIdx.x % 4 == 0)
      given.log_sum_exp[rows.place(row)] = running.log_sum_exp(i);
  }
  const auto to = attention_of_rows<Shape::value_dim>(given.output, rows);
  attention_store_sums_bf16<layout, frame::value_dim>(to, sum, first_row, rows.count(), 0, factor);
}
