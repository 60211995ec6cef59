// scan.h - what both directions of the selective scan are made of: which thread has which numbers of which state, and
// the positions in shared memory.
#pragma once
#include "rows.h"
#include "sequences.h"

/* A shape is a type with the model's sizes, `channels` and `states` (numbers of a channel's state), and the compiler's
 * choices: `lanes` neighbouring threads share a channel and have `own` numbers of its state each; a block has
 * `threads`, and takes positions `chunk` at a time. lanes * own may exceed `states`, and a block's channels the
 * model's: the numbers beyond are zeros and stay zeros. */
template <class Shape>
struct scan_layout {
  static constexpr int channels = Shape::channels, states = Shape::states, lanes = Shape::lanes, own = Shape::own;
  static constexpr int threads = Shape::threads, chunk = Shape::chunk;
  static constexpr int width = threads / lanes, rows = lanes * own, blocks = (channels + width - 1) / width;
  static_assert(lanes <= 32 && (lanes & (lanes - 1)) == 0 && threads % 32 == 0, "a warp has whole channels");
  static constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;
  typedef float mixings[chunk][rows];  // b or c of some positions
  typedef float signals[chunk][width]; // x, delta or a gradient, of the block's channels

  DEVICE static int lane() { return threadIdx.x % lanes; }
  /* Of the thread's channel within the block's. */
  DEVICE static int column() { return threadIdx.x / lanes; }
  DEVICE static int64_t first_channel() { return (int64_t)blockIdx.y * width; }
  DEVICE static int64_t channel() { return first_channel() + column(); }
  /* Whether the thread's number `n` is one of the model's. */
  DEVICE static bool has(int n) { return channel() < channels && lane() * own + n < states; }
  /* Its place in [channels][states]. */
  DEVICE static int64_t place(int n) { return channel() * states + lane() * own + n; }

  /* The thread's numbers of [channels][states]; zeros where there is no such array. */
  DEVICE static void load(float (&to)[own], const float *from) {
#pragma unroll
    for (int n = 0; n < own; n++) to[n] = from && has(n) ? from[place(n)] : 0.0f;
  }

  DEVICE static void store(float *to, const float (&from)[own]) {
#pragma unroll
    for (int n = 0; n < own; n++)
      if (has(n)) to[place(n)] = from[n];
  }

  /* The thread's numbers of a, for powers of two: exp(delta a) = 2^(delta rate). */
  DEVICE static void load_rates(float (&to)[own], const float *a) {
    load(to, a);
#pragma unroll
    for (int n = 0; n < own; n++) to[n] *= log2_e;
  }

  /* The thread's numbers of a position's b or c. */
  DEVICE static void load_mixing(float (&to)[own], const float (&from)[rows]) {
    if constexpr (own % 4 == 0) {
#pragma unroll
      for (int n = 0; n < own; n += 4) {
        float four[4];
        malc_load_4(four, &from[lane() * own + n]);
        to[n] = four[0], to[n + 1] = four[1], to[n + 2] = four[2], to[n + 3] = four[3];
      }
    } else {
#pragma unroll
      for (int n = 0; n < own; n++) to[n] = from[lane() * own + n];
    }
  }

  /* Start to bring `count` positions, at most a chunk, from the first that `from` is at. */
  DEVICE static void fetch_signals(signals &to, const float *from, int64_t count) {
    fetch<channels, width>(to, from + first_channel(), count, channels - first_channel());
  }
  DEVICE static void fetch_mixings(mixings &to, const float *from, int64_t count) {
    fetch<states, rows>(to, from, count, states);
  }

private:
  /* Rows of `Stride` floats, of which `wanted` are there: zeros stand for those beyond them and beyond `count` rows. */
  template <int Stride, int Columns>
  DEVICE static void fetch(float (&to)[chunk][Columns], const float *from, int64_t count, int64_t wanted) {
    constexpr int floats = Stride % 4 == 0 && Columns % 4 == 0 ? 4 : 1, pieces = Columns / floats;
    for (int i = threadIdx.x; i < chunk * pieces; i += threads) {
      const int t = i / pieces, column = i % pieces * floats;
      const bool inside = t < count && column < wanted;
      cp_async<floats * 4>(shared_address(&to[t][column]), inside ? from + t * Stride + column : from, inside);
    }
  }
};

/* Adds up each of `Count` values, a power of two, over the lanes of a warp whose numbers differ in the bits from
 * Distance down to Least, and shares the sums out: while there are several, a lane goes on with half of them. Returns
 * which sum the first of the lane's `values` is; the next ones follow it. Lanes are left with the same sum where there
 * are more of them than sums. */
template <int Count, int Distance, int Least, int Most>
static DEVICE int malc_share_sums(float (&values)[Most]) {
  if constexpr (Distance < Least) return 0;
  else if constexpr (Count == 1) {
    values[0] += __shfl_xor_sync(0xffffffffu, values[0], Distance);
    return malc_share_sums<1, Distance / 2, Least>(values);
  } else {
    constexpr int half = Count / 2;
    const bool upper = threadIdx.x & Distance;
#pragma unroll
    for (int n = 0; n < half; n++) {
      const float given = upper ? values[n] : values[half + n], kept = upper ? values[half + n] : values[n];
      values[n] = kept + __shfl_xor_sync(0xffffffffu, given, Distance);
    }
    return (upper ? half : 0) + malc_share_sums<half, Distance / 2, Least>(values);
  }
}
