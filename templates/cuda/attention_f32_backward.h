// attention_f32_backward.h - the gradients of attention of float32 products: dK and dV by blocks of keys, dQ by blocks
// of rows.
#pragma once
#include "attention_f32.h"

/* Stores `factor` times a block's sums, of each slice, row and element, to vectors from `first`, before `end`. */
template <class Layout, int Slice, int Slices, class Vectors>
DEVICE void attention_store_sums(const Vectors &to, float (&sum)[Slices][Layout::rows][Slice / 16], int first, int end,
                                 float factor) {
#pragma unroll
  for (int i = 0; i < Layout::rows; i++) {
    const int row = first + Layout::row(i);
    if (row >= end) continue;
#pragma unroll
    for (int s = 0; s < Slices; s++)
#pragma unroll
      for (int e = 0; e < Slice / 16; e++) {
        const int d = s * Slice + threadIdx.x % 16 * (Slice / 16) + e;
        if (d < Vectors::width) attention_store(to.row(row) + d, factor * sum[s][i][e]);
      }
  }
}

/* dQ of a block of rows: of what is in the workspace, each row's part of its slope's gradient too. */
template <class Shape, class Given>
DEVICE void attention_query_gradient_f32(const Given &given) {
  typedef attention_f32<Shape> frame;
  constexpr int most = frame::backward_rows, slice = frame::slice;
  typedef attention_f32_layout<most> layout;
  float *const own_queries = reinterpret_cast<float *>(dynamic_shared());
  float *const own_outputs = own_queries + most * frame::key_pitch;
  float *const shared_weights = own_outputs + most * frame::value_pitch;
  float *const tiles = shared_weights + most * frame::weight_pitch;

  const attention_text text = attention_find_text(blockIdx.z, given.time, nullptr, nullptr);
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  const int first_row = (gridDim.x - 1 - blockIdx.x) * most; // the longest first
  const auto queries = attention_of_rows<Shape::dim>(given.query, rows);
  const auto outputs = attention_of_rows<Shape::value_dim>(given.output_gradient, rows);
  const auto keys = attention_of_keys<Shape::dim, Shape::dim>(given.key, given.time, rows);
  const auto values = attention_of_keys<Shape::value_dim, Shape::value_width>(given.value, given.time, rows);
  attention_stage<most, frame::key_pitch - 4, frame::key_pitch>(own_queries, queries, first_row, rows.count(), 0);
  attention_stage<most, frame::value_pitch - 4, frame::value_pitch>(own_outputs, outputs, first_row, rows.count(), 0);
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + most);
  attention_slices<decltype(keys), decltype(values), slice, 0, 1, 0> slices(keys, values, tiles, first, last);

  float2 statistics[layout::rows];
  float tilts[layout::rows] = {};
#pragma unroll
  for (int i = 0; i < layout::rows; i++) statistics[i] = attention_statistics(given, rows, first_row + layout::row(i));
  const attention_documents<layout, Shape> documents(
      rows, [&](int i) { return rows.position(first_row + layout::row(i)); });
  float sum[frame::key_slices][layout::rows][frame::elements] = {};
  for (int from = first; from < last; from += attention_f32_columns) {
    typename layout::scores weights, gradients;
    attention_clear<layout>(weights);
    attention_clear<layout>(gradients);
#pragma unroll 1
    for (int s = 0; s < frame::key_slices; s++)
      attention_multiply<layout, slice>(weights, own_queries + s * slice, frame::key_pitch, slices.next());
#pragma unroll 1
    for (int s = 0; s < frame::value_slices; s++)
      attention_multiply<layout, slice>(gradients, own_outputs + s * slice, frame::value_pitch, slices.next());
    attention_differentiate<Shape, layout>(
        weights, gradients, rows,
        rows.reaches_all(first_row, first_row + most, from, from + attention_f32_columns) &&
            documents.have(from, from + attention_f32_columns),
        [&](int i, int) { return first_row + layout::row(i); }, [&](int, int c) { return from + layout::column(c); },
        [&](int i, int c) { return documents.has(i, from + layout::column(c)); },
        [&](int i, int) { return statistics[i].x; }, [&](int i, int) { return statistics[i].y; },
        [&](int i, float tilt) { tilts[i] += tilt; });
    attention_share<layout>(shared_weights, gradients);
#pragma unroll
    for (int s = 0; s < frame::key_slices; s++)
      attention_accumulate<layout, slice>(sum[s], shared_weights, slices.next());
  }
  const auto to = attention_of_rows<Shape::dim>(given.query_gradient, rows);
  attention_store_sums<layout, slice>(to, sum, first_row, rows.count(), Shape::scale);
  if constexpr (Shape::tilts) attention_leave_tilts<layout>(given, rows, first_row, tilts);
}

/* dK and dV of a block of keys, from all rows that see any of them. */
template <class Shape, class Given>
DEVICE void attention_key_gradient_f32(const Given &given) {
  typedef attention_f32<Shape> frame;
  constexpr int most = frame::backward_rows, slice = frame::slice;
  typedef attention_f32_layout<most> layout; // whose rows are keys, and whose columns are rows
  float *const own_keys = reinterpret_cast<float *>(dynamic_shared());
  float *const own_values = own_keys + most * frame::key_pitch;
  float *const shared_weights = own_values + most * frame::value_pitch;
  float *const tiles = shared_weights + most * frame::weight_pitch;
  float2 *const statistics = reinterpret_cast<float2 *>(tiles + frame::tiles);

  const attention_text text = attention_find_text(blockIdx.z, given.time, nullptr, nullptr);
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  const int first_key = blockIdx.x * most;
  const auto queries = attention_of_rows<Shape::dim>(given.query, rows);
  const auto outputs = attention_of_rows<Shape::value_dim>(given.output_gradient, rows);
  const auto keys = attention_of_keys<Shape::dim, Shape::dim>(given.key, given.time, rows);
  const auto values = attention_of_keys<Shape::value_dim, Shape::value_width>(given.value, given.time, rows);
  attention_stage<most, frame::key_pitch - 4, frame::key_pitch>(own_keys, keys, first_key, rows.keys(), 0);
  attention_stage<most, frame::value_pitch - 4, frame::value_pitch>(own_values, values, first_key, rows.keys(), 0);
  const int first = rows.first_row(first_key), last = rows.last_row(min(first_key + most, rows.keys()));
  attention_slices<decltype(queries), decltype(outputs), slice, 0, 1, 1, 0> slices(queries, outputs, tiles, first,
                                                                                  last);

  const attention_documents<layout, Shape> documents(rows, [&](int i) { return first_key + layout::row(i); });
  float key_sum[frame::key_slices][layout::rows][frame::elements] = {};
  float value_sum[frame::value_slices][layout::rows][frame::elements] = {};
  for (int from = first; from < last; from += attention_f32_columns) {
    typename layout::scores weights, gradients;
    attention_clear<layout>(weights);
    attention_clear<layout>(gradients);
    // Those of the block before have been read: every thread has asked for a slice since.
    if (threadIdx.x < attention_f32_columns)
      statistics[threadIdx.x] = attention_statistics(given, rows, from + static_cast<int>(threadIdx.x));
#pragma unroll 1
    for (int s = 0; s < frame::key_slices; s++)
      attention_multiply<layout, slice>(weights, own_keys + s * slice, frame::key_pitch, slices.next());
#pragma unroll 1
    for (int s = 0; s < frame::value_slices; s++)
      attention_multiply<layout, slice>(gradients, own_values + s * slice, frame::value_pitch, slices.next());
    attention_differentiate<Shape, layout>(
        weights, gradients, rows,
        rows.reaches_all(from, from + attention_f32_columns, first_key, first_key + most) &&
            documents.have(rows.position(from), rows.position(from + attention_f32_columns - 1) + 1),
        [&](int, int c) { return from + layout::column(c); }, [&](int i, int) { return first_key + layout::row(i); },
        [&](int i, int c) { return documents.has(i, rows.position(from + layout::column(c))); },
        [&](int, int c) { return statistics[layout::column(c)].x; },
        [&](int, int c) { return statistics[layout::column(c)].y; }, [](int, float) {});
    attention_share<layout>(shared_weights, weights);
#pragma unroll
    for (int s = 0; s < frame::value_slices; s++)
      attention_accumulate<layout, slice>(value_sum[s], shared_weights, slices.next());
    attention_share<layout>(shared_weights, gradients);
#pragma unroll
    for (int s = 0; s < frame::key_slices; s++)
      attention_accumulate<layout, slice>(key_sum[s], shared_weights, slices.next());
  }
  const auto key_gradient = attention_of_keys<Shape::dim, Shape::dim>(given.key_gradient, given.time, rows);
  const auto value_gradient =
      attention_of_keys<Shape::value_dim, Shape::value_width>(given.value_gradient, given.time, rows);
  attention_store_sums<layout, slice>(key_gradient, key_sum, first_key, rows.keys(), Shape::scale);
  attention_store_sums<layout, slice>(value_gradient, value_sum, first_key, rows.keys(), 1.0f);
  attention_clear_unused(given, rows, first_key, most);
}
