// attention_bf16_backward.h - the gradients of attention of bfloat16 products: dK and dV by blocks of keys, dQ by
// blocks of rows.
#pragma once
#include "attention_bf16.h"

/* dQ of a block of rows; in the workspace, where there are slopes, each row's part of its slope's gradient too. */
template <class Shape, class Given>
DEVICE void attention_query_gradient_bf16(const Given &given) {
  typedef attention_bf16<Shape> frame;
  constexpr int most = attention_bf16_rows, columns = frame::backward_columns;
  typedef attention_bf16_layout<columns> layout;
  constexpr int key_tile = columns * frame::key_pitch, value_tile = columns * frame::value_pitch;
  __nv_bfloat16 *const own_queries = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  __nv_bfloat16 *const own_outputs = own_queries + most * frame::key_pitch;
  __nv_bfloat16 *const key_tiles = own_outputs + most * frame::value_pitch;
  __nv_bfloat16 *const value_tiles = key_tiles + 2 * key_tile;

  const attention_text text = attention_find_text(blockIdx.z, given.time, nullptr, nullptr);
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  const int first_row = (gridDim.x - 1 - blockIdx.x) * most; // the longest first
  const auto queries = attention_of_rows<Shape::dim>(given.query, rows);
  const auto outputs = attention_of_rows<Shape::value_dim>(given.output_gradient, rows);
  const auto keys = attention_of_keys<Shape::dim, Shape::dim>(given.key, given.time, rows);
  const auto values = attention_of_keys<Shape::value_dim, Shape::value_width>(given.value, given.time, rows);
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + most);
  const int blocks = attention_ceiling(last - first, columns);
  const auto load = [&](int n) {
    const int from = first + n * columns;
    attention_stage_bf16<columns, frame::dim>(key_tiles + n % 2 * key_tile, keys, from, last);
    attention_stage_bf16<columns, frame::value_dim>(value_tiles + n % 2 * value_tile, values, from, last);
    cp_async_commit();
  };
  attention_stage_bf16<most, frame::dim>(own_queries, queries, first_row, rows.count());
  attention_stage_bf16<most, frame::value_dim>(own_outputs, outputs, first_row, rows.count());
  load(0);

  const attention_left<frame::dim, false> left_queries(own_queries);
  const attention_left<frame::value_dim, false> left_outputs(own_outputs);
  float2 statistics[2];
#pragma unroll
  for (int i = 0; i < 2; i++) statistics[i] = attention_statistics(given, rows, first_row + layout::row(i));
  const attention_documents<layout, Shape> documents(
      rows, [&](int i) { return rows.position(first_row + layout::row(i)); });
  float tilts[2] = {};
  float sum[frame::dim / 8][4] = {};
#pragma unroll 1
  for (int n = 0; n < blocks; n++) {
    cp_async_wait<0>();
    __syncthreads(); // the next block's room has been read
    if (n + 1 < blocks) load(n + 1);
    const int from = first + n * columns;
    const __nv_bfloat16 *const key_block = key_tiles + n % 2 * key_tile;
    typename layout::scores weights, gradients;
    attention_multiply_bf16<layout>(weights, left_queries, key_block);
    attention_multiply_bf16<layout>(gradients, left_outputs, value_tiles + n % 2 * value_tile);
    attention_differentiate<Shape, layout>(
        weights, gradients, rows,
        rows.reaches_all(first_row, first_row + most, from, from + columns) &&
            documents.have(from, from + columns),
        [&](int i, int) { return first_row + layout::row(i); }, [&](int, int c) { return from + layout::column(c); },
        [&](int i, int c) { return documents.has(i, from + layout::column(c)); },
        [&](int i, int) { return statistics[i].x; }, [&](int i, int) { return statistics[i].y; },
        [&](int i, float tilt) { tilts[i] += tilt; });
    attention_accumulate_bf16<layout, frame::dim, frame::key_pitch>(sum, gradients, key_block);
  }
  const auto to = attention_of_rows<Shape::dim>(given.query_gradient, rows);
  attention_store_sums_bf16<layout, frame::dim>(to, sum, first_row, rows.count(), 0, {Shape::scale, Shape::scale});
  if constexpr (Shape::tilts) attention_leave_tilts<layout>(given, rows, first_row, tilts);
}

/* dK and dV of a block of keys, or of one part of their elements, from all rows that see any of them. */
template <class Shape, class Given>
DEVICE void attention_key_gradient_bf16(const Given &given) {
  typedef attention_bf16<Shape> frame;
  constexpr int most = attention_bf16_rows, columns = frame::backward_columns;
  typedef attention_bf16_layout<columns> layout; // whose rows are keys, and whose columns are rows
  constexpr int key_tile = columns * frame::key_pitch, value_tile = columns * frame::value_pitch;
  constexpr int key_part = frame::dim / frame::parts, value_part = frame::value_dim / frame::parts;
  __nv_bfloat16 *const own_keys = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  __nv_bfloat16 *const own_values = own_keys + most * frame::key_pitch;
  __nv_bfloat16 *const query_tiles = own_values + most * frame::value_pitch;
  __nv_bfloat16 *const output_tiles = query_tiles + 2 * key_tile;
  float *const statistics = reinterpret_cast<float *>(output_tiles + 2 * value_tile); /* [2][2][columns] */

  const int part = blockIdx.y % frame::parts;
  const attention_text text = attention_find_text(blockIdx.z, given.time, nullptr, nullptr);
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y) / frame::parts, given.extras};
  const int first_key = blockIdx.x * most;
  const auto queries = attention_of_rows<Shape::dim>(given.query, rows);
  const auto outputs = attention_of_rows<Shape::value_dim>(given.output_gradient, rows);
  const auto log_sums = attention_of_rows<1>(given.log_sum_exp, rows), deltas = attention_of_rows<1>(given.delta, rows);
  const auto keys = attention_of_keys<Shape::dim, Shape::dim>(given.key, given.time, rows);
  const auto values = attention_of_keys<Shape::value_dim, Shape::value_width>(given.value, given.time, rows);
  const int first = rows.first_row(first_key), last = rows.last_row(min(first_key + most, rows.keys()));
  const int blocks = attention_ceiling(max(last - first, 0), columns);
  const auto load = [&](int n) {
    const int from = first + n * columns;
    attention_stage_bf16<columns, frame::dim>(query_tiles + n % 2 * key_tile, queries, from, last);
    attention_stage_bf16<columns, frame::value_dim>(output_tiles + n % 2 * value_tile, outputs, from, last);
    for (int i = threadIdx.x; i < 2 * columns; i += attention_threads) {
      const int row = from + i % columns;
      const auto &from_rows = i < columns ? log_sums : deltas;
      cp_async<4>(shared_address(statistics + n % 2 * 2 * columns + i),
                  row < last ? from_rows.row(row) : from_rows.start, row < last);
    }
    cp_async_commit();
  };
  attention_stage_bf16<most, frame::dim>(own_keys, keys, first_key, rows.keys());
  attention_stage_bf16<most, frame::value_dim>(own_values, values, first_key, rows.keys());
  if (blocks > 0) load(0);

  const attention_left<frame::dim, false> left_keys(own_keys);
  const attention_left<frame::value_dim, false> left_values(own_values);
  const attention_documents<layout, Shape> documents(rows, [&](int i) { return first_key + layout::row(i); });
  float key_sum[key_part / 8][4] = {}, value_sum[value_part / 8][4] = {};
#pragma unroll 1
  for (int n = 0; n < blocks; n++) {
    cp_async_wait<0>();
    __syncthreads(); // the next block's room has been read
    if (n + 1 < blocks) load(n + 1);
    const int from = first + n * columns;
    const __nv_bfloat16 *const query_block = query_tiles + n % 2 * key_tile;
    const __nv_bfloat16 *const output_block = output_tiles + n % 2 * value_tile;
    const float *const of_block = statistics + n % 2 * 2 * columns;
    typename layout::scores weights, gradients;
    attention_multiply_bf16<layout>(weights, left_keys, query_block);
    attention_multiply_bf16<layout>(gradients, left_values, output_block);
    attention_differentiate<Shape, layout>(
        weights, gradients, rows,
        rows.reaches_all(from, from + columns, first_key, first_key + most) &&
            documents.have(rows.position(from), rows.position(from + columns - 1) + 1),
        [&](int, int c) { return from + layout::column(c); }, [&](int i, int) { return first_key + layout::row(i); },
        [&](int i, int c) { return documents.has(i, rows.position(from + layout::column(c))); },
        [&](int, int c) { return attention_log2_e * of_block[layout::column(c)]; },
        [&](int, int c) { return of_block[columns + layout::column(c)]; }, [](int, float) {});
    attention_accumulate_bf16<layout, value_part, frame::value_pitch>(value_sum, weights,
                                                                      output_block + part * value_part);
    attention_accumulate_bf16<layout, key_part, frame::key_pitch>(key_sum, gradients, query_block + part * key_part);
  }
  const auto key_gradient = attention_of_keys<Shape::dim, Shape::dim>(given.key_gradient, given.time, rows);
  const auto value_gradient =
      attention_of_keys<Shape::value_dim, Shape::value_width>(given.value_gradient, given.time, rows);
  attention_store_sums_bf16<layout, key_part>(key_gradient, key_sum, first_key, rows.keys(), part * key_part,
                                              {Shape::scale, Shape::scale});
  attention_store_sums_bf16<layout, value_part>(value_gradient, value_sum, first_key, rows.keys(), part * value_part,
                                                {1.0f, 1.0f});
  if (part == 0) attention_clear_unused(given, rows, first_key, most);
}
