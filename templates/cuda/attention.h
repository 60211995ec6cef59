// attention.h - what all kernels of attention share: which pairs a block looks at, the softmax, and its gradient.
//
// Flash attention (Dao et al., 2022; Dao, 2023): a block owns some rows, and keys pass it in blocks with a running
// maximum and sum, so that memory grows with time only. The backward pass is two kernels, dK and dV by blocks of keys
// and dQ by blocks of rows: nothing is added to by two blocks, and the sums have one order. (attention_sm90_gradient.h
// has one kernel for both.)
//
// A row is a query of one of the `group` heads that share a key head: row r of a text is of query r / group and head
// r % group, so that keys and values are read once for all of them. attention_f32.h and attention_bf16.h multiply; a
// layout of theirs says which part of a block of scores a thread holds.
#pragma once
#include "instructions.h"
#include "random.h"

#ifndef MALC_INLINE
#define MALC_INLINE DEVICE // what the functions of pairs are marked with on every target
#endif

constexpr int attention_threads = 128;
constexpr float attention_log2_e = 1.44269504f, attention_ln_2 = 0.693147181f;
constexpr float attention_lowest = -1.5e30f; // where maxima begin: finite, as a block may show a row nothing

__host__ __device__ constexpr int attention_ceiling(int count, int step) { return (count + step - 1) / step; }

/* A query and a key, as formulas see them. */
struct attention_pair {
  int32_t query, key, head; /* positions in the text */
  float slope;              /* the head's */
  const int32_t *noise;     /* what dropout draws by */
  int64_t sequence;
};

/* What a shape of attention has besides its sizes heads, kv_heads, dim, value_dim and value_width (elements of a value
 * that are used, and that there are): what it does not define itself is as here. */
struct attention_shape {
  static constexpr float scale = 1;
  static constexpr int window = 0; /* a query sees no key before its own position - window + 1; 0: all */
  static constexpr bool causal = false;
  static constexpr bool sinks = false;  /* a head has a logit that is counted and has no value */
  static constexpr bool slopes = false; /* the score reads its head's slope */
  static constexpr bool tilts = false;  /* the slopes' gradient is wanted, in the backward pass */
  static constexpr bool scored = false, masked = false, drops = false;
  static constexpr bool documents = false; /* a query sees no key of another document than its own */
  /* What the softmax takes for a scaled product, where `scored`, and its derivatives by that and by the slope. */
  DEVICE static float score(float product, const attention_pair &) { return product; }
  DEVICE static float by_product(float, const attention_pair &) { return 1.0f; }
  DEVICE static float by_slope(float, const attention_pair &) { return 0.0f; }
  /* Whether a pair is looked at, where `masked`. */
  DEVICE static bool sees(const attention_pair &) { return true; }
  /* What dropout multiplies a weight by, where `drops`. */
  DEVICE static float kept(const attention_pair &) { return 1.0f; }
};

/* What attention may be given besides: [heads], [heads], dropout's words, and [tokens], where the document of each
 * begins and ends in its text; null for what it has not. */
struct attention_extras {
  const float *sinks, *slopes;
  const int32_t *noise;
  const int32_t *documents = nullptr;
};

/* A text: its first query's place among those of all, how many they are, and the position of the first. */
struct attention_text {
  int32_t sequence;
  int64_t token;
  int32_t queries, start;
};

/* A text of a batch whose texts are all as long; or, in decoding, one whose queries lie between the ends of the text
 * before it and its own, the first at position starts[sequence]. `ends` is null outside decoding. */
DEVICE attention_text attention_find_text(int32_t sequence, int64_t time, const int32_t *starts, const int32_t *ends) {
  if (!ends) return {sequence, sequence * time, static_cast<int32_t>(time), 0};
  const int32_t token = sequence > 0 ? ends[sequence - 1] : 0;
  return {sequence, token, ends[sequence] - token, starts[sequence]};
}

/* The rows of a text that share a key head, and the keys before their ends. */
template <class Shape>
struct attention_rows {
  static constexpr int group = Shape::heads / Shape::kv_heads;
  attention_text text;
  int32_t shared; /* the key head */
  attention_extras extras;

  DEVICE int count() const { return text.queries * group; }
  DEVICE int keys() const { return text.start + text.queries; }
  DEVICE int position(int row) const { return text.start + row / group; }
  DEVICE int head(int row) const { return shared * group + row % group; }
  /* Where a row's number lies among [tokens][heads]. */
  DEVICE int64_t place(int row) const { return (text.token + row / group) * Shape::heads + head(row); }

  /* Where the document at a position begins and ends: of the last position, for those beyond. */
  DEVICE int2 document(int position) const {
    return reinterpret_cast<const int2 *>(extras.documents)[text.token + min(position, text.queries - 1)];
  }

  /* The keys that rows from `first`, before `last`, may see lie in [first_key(first), last_key(last)). */
  DEVICE int first_key(int first) const {
    const int key = Shape::window > 0 ? max(0, position(first) - Shape::window + 1) : 0;
    if constexpr (Shape::documents) return max(key, document(position(first)).x);
    return key;
  }
  DEVICE int last_key(int last) const {
    if constexpr (Shape::documents && !Shape::causal) return document(position(last - 1)).y;
    return Shape::causal ? position(min(last, count()) - 1) + 1 : keys();
  }
  /* The rows that may see keys from `first`, before `last`, lie in [first_row(first), last_row(last)). */
  DEVICE int first_row(int first) const {
    if constexpr (Shape::documents && !Shape::causal) return document(first).x * group;
    return Shape::causal ? max(0, first - text.start) * group : 0;
  }
  DEVICE int last_row(int last) const {
    const int row = Shape::window > 0 ? min(text.queries, last + Shape::window - 1 - text.start) * group : count();
    if constexpr (Shape::documents) return min(row, document(last - 1).y * group);
    return row;
  }

  DEVICE attention_pair pair(int row, int key) const {
    const float slope = Shape::slopes ? extras.slopes[head(row)] : 0.0f;
    return {position(row), key, head(row), slope, extras.noise, text.sequence};
  }
  /* Whether a row sees a key, if both are of one document. */
  DEVICE bool reaches(int row, int key) const {
    const int distance = position(row) - key;
    const bool reached = row < count() && key < keys() && (!Shape::causal || distance >= 0) &&
                         (Shape::window == 0 || distance < Shape::window);
    return reached && (!Shape::masked || Shape::sees(pair(row, key)));
  }
  /* The same of each row of some and each key of some. */
  DEVICE bool reaches_all(int first_row, int last_row, int first_key, int last_key) const {
    return !Shape::masked && last_row <= count() && last_key <= keys() &&
           (!Shape::causal || last_key <= position(first_row) + 1) &&
           (Shape::window == 0 || position(last_row - 1) - first_key < Shape::window);
  }
  /* What dropout multiplies a weight by. */
  DEVICE float kept(int row, int key) const {
    return Shape::drops && extras.noise ? Shape::kept(pair(row, key)) : 1.0f;
  }
};

/* Vectors of Width elements, one for each row: those of a token lie Outer elements after the token's before, those of
 * the Group rows of a token Inner elements apart. */
template <class Element, int Width, int Group, int Outer, int Inner>
struct attention_vectors {
  typedef Element element;
  static constexpr int width = Width;
  /* Elements that can be read at once: 16 bytes or one. */
  static constexpr int step = (Width | Outer | Inner) * sizeof(Element) % 16 == 0 ? 16 / sizeof(Element) : 1;
  static constexpr bool even = (Width | Outer | Inner) % 2 == 0;
  Element *start;
  DEVICE Element *row(int row) const {
    return start + static_cast<int64_t>(row / Group) * Outer + static_cast<int64_t>(row % Group) * Inner;
  }
};

/* The vectors of a text's rows among [tokens][heads][Width]. */
template <int Width, class Shape, class Element>
DEVICE auto attention_of_rows(Element *start, const attention_rows<Shape> &rows) {
  typedef attention_vectors<Element, Width, attention_rows<Shape>::group, Shape::heads * Width, Width> vectors;
  return vectors{start + rows.place(0) * Width};
}
/* The vectors of a text's keys among [sequences][context][kv_heads][Inner]. */
template <int Width, int Inner, class Shape, class Element>
DEVICE auto attention_of_keys(Element *start, int64_t context, const attention_rows<Shape> &rows) {
  typedef attention_vectors<Element, Width, 1, Shape::kv_heads * Inner, Inner> vectors;
  return vectors{start + (rows.text.sequence * context * Shape::kv_heads + rows.shared) * Inner};
}

DEVICE void attention_store(float *to, float value) { *to = value; }
DEVICE void attention_store(__nv_bfloat16 *to, float value) { *to = __float2bfloat16_rn(value); }

/* The sum, and the greatest, of what consecutive lanes that share a row hold. */
template <int Lanes>
DEVICE float attention_sum(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
template <int Lanes>
DEVICE float attention_most(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/* Of the vectors that the rows of a thread's layout are, the documents, where these are kept apart: what passes is of
 * the same one if its position lies in there. */
template <class Layout, class Shape>
struct attention_documents {
  int2 bounds[Layout::rows];
  template <class Position>
  DEVICE attention_documents(const attention_rows<Shape> &rows, Position position) {
    if constexpr (Shape::documents) {
#pragma unroll
      for (int i = 0; i < Layout::rows; i++) bounds[i] = rows.document(position(i));
    }
  }
  DEVICE bool has(int i, int position) const {
    return !Shape::documents || (position >= bounds[i].x && position < bounds[i].y);
  }
  /* Whether all of the thread's have what lies at positions from `first`, before `last`: they begin in their order. */
  DEVICE bool have(int first, int last) const {
    return !Shape::documents || (first >= bounds[Layout::rows - 1].x && last <= bounds[0].y);
  }
};

/* What a thread knows of its rows while keys pass: the greatest score so far, as a power of two, and the part of the
 * sum of powers below it that is of its own columns. */
template <class Layout>
struct attention_running {
  float maximum[Layout::rows], total[Layout::rows];

  /* A head's sink is the first that is counted, once. */
  template <class Shape>
  DEVICE void begin(const attention_rows<Shape> &rows, int first_row, bool counts_sink) {
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      maximum[i] = attention_lowest;
      total[i] = 0.0f;
      if (Shape::sinks && counts_sink) {
        const float sink = rows.extras.sinks[rows.head(first_row + Layout::row(i))];
        maximum[i] = attention_log2_e * sink;
        total[i] = threadIdx.x % Layout::lanes == 0 ? 1.0f : 0.0f;
      }
    }
  }

  /* A block of products of rows from first_row and keys from first_key becomes weights under the maximum so far;
   * `change` is what earlier sums are to be multiplied by. */
  template <class Shape>
  DEVICE void weigh(typename Layout::scores &scores, float (&change)[Layout::rows], const attention_rows<Shape> &rows,
                    const attention_documents<Layout, Shape> &documents, int first_row, int first_key) {
    // The greatest product is the greatest score only where nothing turns their order.
    constexpr bool plain = !Shape::scored && Shape::scale > 0;
    constexpr float factor = plain ? Shape::scale * attention_log2_e : attention_log2_e;
    const int last_row = first_row + Layout::all_rows, last_key = first_key + Layout::all_columns;
    const bool whole =
        rows.reaches_all(first_row, last_row, first_key, last_key) && documents.have(first_key, last_key);
#pragma unroll
    for (int i = 0; i < Layout::rows; i++) {
      const int row = first_row + Layout::row(i);
      if constexpr (!plain) {
#pragma unroll
        for (int c = 0; c < Layout::columns; c++) {
          float &score = Layout::at(scores, i, c);
          score = Shape::score(Shape::scale * score, rows.pair(row, first_key + Layout::column(c)));
        }
      }
      if (!whole) {
#pragma unroll
        for (int c = 0; c < Layout::columns; c++) {
          const int key = first_key + Layout::column(c);
          if (!rows.reaches(row, key) || !documents.has(i, key)) Layout::at(scores, i, c) = -INFINITY;
        }
      }
      float most = -INFINITY;
#pragma unroll
      for (int c = 0; c < Layout::columns; c++) most = fmaxf(most, Layout::at(scores, i, c));
      most = fmaxf(maximum[i], factor * attention_most<Layout::lanes>(most));
      change[i] = exp2_approximate(maximum[i] - most);
      maximum[i] = most;
      total[i] *= change[i];
#pragma unroll
      for (int c = 0; c < Layout::columns; c++) {
        const float weight = exp2_approximate(fmaf(factor, Layout::at(scores, i, c), -most));
        total[i] += weight;
        Layout::at(scores, i, c) = weight * rows.kept(row, first_key + Layout::column(c));
      }
    }
  }

  /* Adds up the totals, and returns what sums of values are to be divided by. A row that has seen nothing is zero. */
  DEVICE float finish(int i) {
    total[i] = attention_sum<Layout::lanes>(total[i]);
    if (total[i] == 0.0f) total[i] = 1.0f;
    return total[i];
  }
  DEVICE float log_sum_exp(int i) const { return attention_ln_2 * maximum[i] + logf(total[i]); }
};

/* Of a block of pairs, from products q k to weights that values are added with, and from products of output gradients
 * and values to the gradients of the products q k, but for `scale`. For element (i, c) of the layout: `row` and `key`
 * say which pair it is, `shares` whether it is of one document, `log_sum` (as a power of two) and `delta` what is its
 * row's; `tilt` takes the gradient by the slope. `whole` where all pairs see one another. */
template <class Shape, class Layout, class Row, class Key, class Shares, class LogSum, class Delta, class Tilt>
DEVICE void attention_differentiate(typename Layout::scores &weights, typename Layout::scores &gradients,
                                    const attention_rows<Shape> &rows, bool whole, Row row, Key key, Shares shares,
                                    LogSum log_sum, Delta delta, Tilt tilt) {
#pragma unroll
  for (int i = 0; i < Layout::rows; i++) {
#pragma unroll
    for (int c = 0; c < Layout::columns; c++) {
      float &weight = Layout::at(weights, i, c), &gradient = Layout::at(gradients, i, c);
      const bool seen = whole || (rows.reaches(row(i, c), key(i, c)) && shares(i, c));
      float power = fmaf(Shape::scale * attention_log2_e, weight, -log_sum(i, c));
      float rise = 1.0f;
      if constexpr (Shape::scored) {
        const attention_pair pair = rows.pair(row(i, c), key(i, c));
        const float product = Shape::scale * weight;
        power = fmaf(attention_log2_e, Shape::score(product, pair), -log_sum(i, c));
        rise = Shape::by_product(product, pair);
      }
      const float probability = seen ? exp2_approximate(power) : 0.0f;
      const float kept = rows.kept(row(i, c), key(i, c));
      const float by_score = probability * fmaf(kept, gradient, -delta(i, c));
      if constexpr (Shape::tilts) {
        const float lean = Shape::by_slope(Shape::scale * weight, rows.pair(row(i, c), key(i, c)));
        tilt(i, seen ? lean * by_score : 0.0f);
      }
      gradient = seen ? rise * by_score : 0.0f;
      weight = kept * probability;
    }
  }
}

/* What the forward kernels are given, as attention_forward.cu.hbs and attention_decoding.cu.hbs say. */
template <class Query, class Key, class Value, class Output>
struct attention_forward_given {
  int64_t texts, time, context;
  const int32_t *starts, *ends;
  const Query *query;
  const Key *key;
  const Value *value;
  Output *output;
  float *log_sum_exp;
  attention_extras extras;
  float *parts; /* [texts][kv_heads][attention_few_splits][few][part], in decoding */
};

/* What the backward kernels are given, as attention_backward.cu.hbs says. */
template <class Query, class Key, class Value, class OutputGradient, class QueryGradient, class KeyGradient,
          class ValueGradient>
struct attention_backward_given {
  int64_t texts, time;
  const Query *query;
  const Key *key;
  const Value *value;
  const float *log_sum_exp;
  const OutputGradient *output_gradient;
  const float *delta;
  attention_extras extras;
  QueryGradient *query_gradient;
  KeyGradient *key_gradient;
  ValueGradient *value_gradient;
  float *slope_gradient; /* [texts][heads] */
  float *workspace;      /* [texts][time][heads], parts of slopes' gradients; or as attention_query_sums has it */
};

/* A row's statistics: its log-sum-exp as a power of two, and delta; zeros beyond the rows. */
template <class Shape, class Given>
DEVICE float2 attention_statistics(const Given &given, const attention_rows<Shape> &rows, int row) {
  if (row >= rows.count()) return make_float2(0.0f, 0.0f);
  const int64_t place = rows.place(row);
  return make_float2(attention_log2_e * given.log_sum_exp[place], given.delta[place]);
}

/* Zeros the gradient of what values hold beyond value_dim. */
template <class Shape, class Given>
DEVICE void attention_clear_unused(const Given &given, const attention_rows<Shape> &rows, int first_key, int count) {
  constexpr int unused = Shape::value_width - Shape::value_dim;
  if constexpr (unused > 0) {
    const auto to = attention_of_keys<Shape::value_width, Shape::value_width>(given.value_gradient, given.time, rows);
    for (int i = threadIdx.x; i < min(count, rows.keys() - first_key) * unused; i += attention_threads)
      attention_store(to.row(first_key + i / unused) + Shape::value_dim + i % unused, 0.0f);
  }
}

/* Leaves each row's part of its slope's gradient in the workspace. */
template <class Layout, class Shape, class Given>
DEVICE void attention_leave_tilts(const Given &given, const attention_rows<Shape> &rows, int first_row,
                                  float (&tilts)[Layout::rows]) {
#pragma unroll
  for (int i = 0; i < Layout::rows; i++) {
    const float tilt = attention_sum<Layout::lanes>(tilts[i]);
    const int row = first_row + Layout::row(i);
    if (row < rows.count() && threadIdx.x % Layout::lanes == 0) given.workspace[rows.place(row)] = tilt;
  }
}

/* The slopes' gradient from its parts: a block of a warp for each. */
template <class Shape, class Given>
DEVICE void attention_sum_tilts(const Given &given) {
  const int64_t head = blockIdx.x, sequence = blockIdx.y;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < given.time; i += 32)
    sum += given.workspace[(sequence * given.time + i) * Shape::heads + head];
  sum = attention_sum<32>(sum);
  if (threadIdx.x == 0) given.slope_gradient[sequence * Shape::heads + head] = sum;
}
