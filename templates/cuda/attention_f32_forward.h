// attention_f32_forward.h - attention of float32 products, forward; and decoding, where a text has few queries and its
// keys are divided among blocks.
#pragma once
#include "attention_f32.h"

/* The block of queries that rows from first_row are, over keys [first, last): `leave` gets the sums of values, of
 * each slice, row and element, and what is known of the rows. */
template <class Shape, int Rows, class Given, class Leave>
DEVICE void attention_pass(const Given &given, const attention_rows<Shape> &rows, int first_row, int first, int last,
                           bool counts_sink, Leave leave) {
  typedef attention_f32<Shape> frame;
  typedef attention_f32_layout<Rows> layout;
  constexpr int slice = frame::slice;
  float *const own = reinterpret_cast<float *>(dynamic_shared());
  float *const weights = own + Rows * frame::key_pitch, *const tiles = weights + Rows * frame::weight_pitch;

  const auto queries = attention_of_rows<Shape::dim>(given.query, rows);
  const auto keys = attention_of_keys<Shape::dim, Shape::dim>(given.key, given.context, rows);
  const auto values = attention_of_keys<Shape::value_dim, Shape::value_width>(given.value, given.context, rows);
  attention_stage<Rows, frame::key_pitch - 4, frame::key_pitch>(own, queries, first_row, rows.count(), 0);
  attention_slices<decltype(keys), decltype(values), slice, 0, 1> slices(keys, values, tiles, first, last);

  attention_running<layout> running;
  running.begin(rows, first_row, counts_sink);
  const attention_documents<layout, Shape> documents(
      rows, [&](int i) { return rows.position(first_row + layout::row(i)); });
  float sum[frame::value_slices][layout::rows][frame::elements] = {};
  for (int from = first; from < last; from += attention_f32_columns) {
    typename layout::scores scores;
    attention_clear<layout>(scores);
#pragma unroll 1
    for (int s = 0; s < frame::key_slices; s++)
      attention_multiply<layout, slice>(scores, own + s * slice, frame::key_pitch, slices.next());
    float change[layout::rows];
    running.weigh(scores, change, rows, documents, first_row, from);
    attention_share<layout>(weights, scores);
#pragma unroll
    for (int s = 0; s < frame::value_slices; s++) {
#pragma unroll
      for (int i = 0; i < layout::rows; i++)
#pragma unroll
        for (int e = 0; e < frame::elements; e++) sum[s][i][e] *= change[i];
      attention_accumulate<layout, slice>(sum[s], weights, slices.next());
    }
  }
  cp_async_wait<0>(); // where there are no keys, nothing has waited for the block's own vectors
  leave(sum, running);
}

/* Leaves the output of a block's rows, and their log-sum-exp. */
template <class Shape, class Given>
DEVICE void attention_forward_f32(const Given &given, const attention_text &text, int first_row) {
  typedef attention_f32<Shape> frame;
  constexpr int most = frame::forward_rows;
  typedef attention_f32_layout<most> layout;
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + most);
  attention_pass<Shape, most>(given, rows, first_row, first, last, true, [&](auto &sum, auto &running) {
#pragma unroll
    for (int i = 0; i < layout::rows; i++) {
      const int row = first_row + layout::row(i);
      const float factor = 1.0f / running.finish(i);
      if (row >= rows.count()) continue;
      const int64_t place = rows.place(row);
      if (given.log_sum_exp && threadIdx.x % layout::lanes == 0) given.log_sum_exp[place] = running.log_sum_exp(i);
#pragma unroll
      for (int s = 0; s < frame::value_slices; s++)
#pragma unroll
        for (int e = 0; e < frame::elements; e++) {
          const int d = s * frame::slice + threadIdx.x % 16 * frame::elements + e;
          if (d < Shape::value_dim)
            attention_store(given.output + place * Shape::value_dim + d, factor * sum[s][i][e]);
        }
    }
  });
}

/* Which block of which text a block of texts_grid is: of `rows` rows; texts of few queries have none. */
template <class Shape, class Given>
DEVICE bool attention_find_block(const Given &given, int rows, attention_text &text, int &first_row) {
  int block = blockIdx.x;
  for (int32_t sequence = 0; sequence < given.texts; sequence++) {
    text = attention_find_text(sequence, given.time, given.starts, given.ends);
    const int count = text.queries * attention_rows<Shape>::group;
    const int blocks = count <= attention_f32<Shape>::few ? 0 : attention_ceiling(count, rows);
    first_row = block * rows;
    if (block < blocks) return true;
    block -= blocks;
  }
  return false;
}

/* A part of the keys of a text with few queries: what they give is left in `parts`. */
template <class Shape, class Given>
DEVICE void attention_few_part(const Given &given) {
  typedef attention_f32<Shape> frame;
  constexpr int most = frame::few_rows, blocks = frame::few / most;
  typedef attention_f32_layout<most> layout;
  const int sequence = blockIdx.x / blocks, split = blockIdx.z;
  const attention_text text = attention_find_text(sequence, given.time, given.starts, given.ends);
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  const int first_row = blockIdx.x % blocks * most;
  if (rows.count() > frame::few || first_row >= rows.count()) return;
  // Keys are divided in whole blocks.
  const int first = rows.first_key(first_row), last = rows.last_key(first_row + most);
  const int each =
      attention_ceiling(attention_ceiling(last - first, attention_f32_columns), attention_few_splits) *
      attention_f32_columns;
  const int from = min(first + split * each, last), to = min(from + each, last);
  attention_pass<Shape, most>(given, rows, first_row, from, to, split == 0, [&](auto &sum, auto &running) {
    const int64_t all = static_cast<int64_t>(sequence) * Shape::kv_heads + rows.shared; // key heads before this one
    const int64_t part = all * attention_few_splits + split;
#pragma unroll
    for (int i = 0; i < layout::rows; i++) {
      const float total = attention_sum<layout::lanes>(running.total[i]);
      const int row = first_row + layout::row(i);
      if (row >= rows.count()) continue;
      float *const own = given.parts + (part * frame::few + row) * frame::part;
      if (threadIdx.x % layout::lanes == 0) {
        own[Shape::value_dim] = running.maximum[i];
        own[Shape::value_dim + 1] = total;
      }
      if (from == to) continue;
#pragma unroll
      for (int s = 0; s < frame::value_slices; s++)
#pragma unroll
        for (int e = 0; e < frame::elements; e++) {
          const int d = s * frame::slice + threadIdx.x % 16 * frame::elements + e;
          if (d < Shape::value_dim) own[d] = sum[s][i][e];
        }
    }
  });
}

/* The output of a row of a text with few queries, from its parts: a block of a warp each. */
template <class Shape, class Given>
DEVICE void attention_few_join(const Given &given) {
  typedef attention_f32<Shape> frame;
  const int sequence = blockIdx.x / frame::few, row = blockIdx.x % frame::few;
  const attention_text text = attention_find_text(sequence, given.time, given.starts, given.ends);
  const attention_rows<Shape> rows = {text, static_cast<int32_t>(blockIdx.y), given.extras};
  if (rows.count() > frame::few || row >= rows.count()) return;
  const int64_t first_part = (static_cast<int64_t>(sequence) * Shape::kv_heads + rows.shared) * attention_few_splits;
  const float *const own = given.parts + (first_part * frame::few + row) * frame::part;
  constexpr int next = frame::few * frame::part;
  float maximum = attention_lowest, total = 0.0f;
  for (int n = 0; n < attention_few_splits; n++) maximum = fmaxf(maximum, own[n * next + Shape::value_dim]);
  for (int n = 0; n < attention_few_splits; n++)
    total += exp2_approximate(own[n * next + Shape::value_dim] - maximum) * own[n * next + Shape::value_dim + 1];
  if (total == 0.0f) total = 1.0f; // it sees nothing
  const int64_t place = rows.place(row);
  if (given.log_sum_exp && threadIdx.x == 0) given.log_sum_exp[place] = attention_ln_2 * maximum + logf(total);
  for (int d = threadIdx.x; d < Shape::value_dim; d += 32) {
    float sum = 0.0f;
    for (int n = 0; n < attention_few_splits; n++)
      if (own[n * next + Shape::value_dim + 1] > 0.0f)
        sum = fmaf(exp2_approximate(own[n * next + Shape::value_dim] - maximum), own[n * next + d], sum);
    attention_store(given.output + place * Shape::value_dim + d, sum / total);
  }
}
