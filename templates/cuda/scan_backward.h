// scan_backward.h - the selective scan, backward: a block goes through all positions of some channels of a sequence to
// keep the state before every chunk, and then back, chunk by chunk, each of whose states it computes again.
#pragma once
#include "scan.h"

/* What the kernel is given: see its frame, scan_backward.cu.hbs. Gradients may be null. */
struct scan_backward_given {
  int64_t batch, time;
  const float *x, *delta, *a, *b, *c, *output_gradient;
  float *x_gradient, *delta_gradient, *a_gradient, *b_gradient, *c_gradient;
  float *workspace;
};

/* What blocks leave in the workspace: parts of gradients, and states. */
template <class Shape>
struct scan_parts {
  typedef scan_layout<Shape> layout;
  int64_t mixings; // numbers of b, and of c
  float *a;        // [batch][channels][states]
  float *b, *c;    // [blocks][batch][time][states]
  float *kept;     // [batch][blocks][chunks][own][threads]

  DEVICE explicit scan_parts(const scan_backward_given &given) {
    mixings = given.batch * given.time * layout::states;
    a = given.workspace;
    b = a + given.batch * layout::channels * layout::states;
    c = b + layout::blocks * mixings;
    kept = c + layout::blocks * mixings;
  }
};

template <class Shape>
struct scan_backward_memory {
  typedef scan_layout<Shape> layout;
  typename layout::mixings b[2], c[2];                        // of two chunks: one is on its way
  typename layout::signals x[2], delta[2], slope[2];          // slope: the output's gradient
  float h[layout::chunk][layout::own][layout::threads];       // each thread's numbers before each position
  float sums[layout::threads / 32][layout::chunk][2][layout::rows]; // gradients of b and c, of each warp's channels
};

/* h after another position. */
template <int Own>
static DEVICE void scan_advance(float (&h)[Own], const float (&rate)[Own], const float (&b)[Own], float step,
                                float drive) {
#pragma unroll
  for (int n = 0; n < Own; n++) h[n] = exp2_approximate(step * rate[n]) * h[n] + drive * b[n];
}

template <class Shape>
static DEVICE void scan_backward(const scan_backward_given &given) {
  typedef scan_layout<Shape> layout;
  typedef scan_backward_memory<Shape> memory_type;
  static_assert(sizeof(memory_type) == Shape::backward_bytes, "the launch asks for as much");
  constexpr int own = layout::own, chunk = layout::chunk, threads = layout::threads, warps = threads / 32;
  memory_type &memory = *reinterpret_cast<memory_type *>(dynamic_shared());
  const scan_parts<Shape> parts(given);
  const int64_t sequence = blockIdx.x, time = given.time, chunks = (time + chunk - 1) / chunk;
  const int64_t signals = sequence * time * layout::channels, mixings = sequence * time * layout::states;
  float *kept = parts.kept + (sequence * layout::blocks + blockIdx.y) * chunks * own * threads + threadIdx.x;
  const int column = layout::column();
  float rate[own], h[own];
  layout::load_rates(rate, given.a);
  layout::load(h, nullptr);

  /* Brings the chunk of a number; what only the way back reads where it is that. */
  const auto fetch = [&](int64_t number, bool back) {
    if (number >= 0 && number < chunks) {
      const int64_t first = number * chunk, count = time - first;
      const int64_t signal = signals + first * layout::channels, mixing = mixings + first * layout::states;
      const int which = number % 2;
      layout::fetch_signals(memory.x[which], given.x + signal, count);
      layout::fetch_signals(memory.delta[which], given.delta + signal, count);
      layout::fetch_mixings(memory.b[which], given.b + mixing, count);
      if (back) {
        layout::fetch_signals(memory.slope[which], given.output_gradient + signal, count);
        layout::fetch_mixings(memory.c[which], given.c + mixing, count);
      }
    }
    cp_async_commit();
  };

  fetch(0, false);
  for (int64_t number = 0; number < chunks; number++) {
#pragma unroll
    for (int n = 0; n < own; n++) kept[(number * own + n) * threads] = h[n];
    if (number == chunks - 1) break; // the state after the last chunk is not needed
    fetch(number + 1, false);
    cp_async_wait<1>();
    __syncthreads();
    const int which = number % 2;
#pragma unroll 4
    for (int t = 0; t < chunk; t++) {
      const float step = memory.delta[which][t][column];
      float b[own];
      layout::load_mixing(b, memory.b[which][t]);
      scan_advance(h, rate, b, step, step * memory.x[which][t][column]);
    }
    __syncthreads(); // the next chunk but one takes its place
  }
  cp_async_wait<0>();
  __syncthreads();

  float rate_sum[own] = {}, carried[own] = {}; // the gradient of a, and what h's hands to the position before
  fetch(chunks - 1, true);
  for (int64_t number = chunks - 1; number >= 0; number--) {
    fetch(number - 1, true);
    cp_async_wait<1>();
    __syncthreads();
    const int which = number % 2;
    const int64_t first = number * chunk;
    const int positions = time - first < chunk ? (int)(time - first) : chunk;
#pragma unroll
    for (int n = 0; n < own; n++) h[n] = kept[(number * own + n) * threads];
    for (int t = 0; t < positions; t++) {
      const float step = memory.delta[which][t][column];
      float b[own];
      layout::load_mixing(b, memory.b[which][t]);
#pragma unroll
      for (int n = 0; n < own; n++) memory.h[t][n][threadIdx.x] = h[n];
      scan_advance(h, rate, b, step, step * memory.x[which][t][column]);
    }

    for (int t = positions - 1; t >= 0; t--) { // h is the state after t
      const float x = memory.x[which][t][column], step = memory.delta[which][t][column];
      const float slope = memory.slope[which][t][column], drive = step * x;
      constexpr int values = Shape::values; // a power of two, 2 own or more
      float b[own], c[own], mixed[values] = {}, step_sum = 0.0f, drive_sum = 0.0f;
      layout::load_mixing(b, memory.b[which][t]);
      layout::load_mixing(c, memory.c[which][t]);
#pragma unroll
      for (int n = 0; n < own; n++) {
        const float before = memory.h[t][n][threadIdx.x];
        const float g = c[n] * slope + carried[n];
        const float decayed = exp2_approximate(step * rate[n]) * g, p = decayed * before;
        carried[n] = decayed;
        rate_sum[n] += p * step;
        step_sum += p * rate[n];
        drive_sum += g * b[n];
        mixed[n] = g * drive;
        mixed[own + n] = slope * h[n];
        h[n] = before;
      }

      /* Over the channel's threads: the gradients of x and delta. */
      float sums[2] = {step * drive_sum, layout::ln_2 * step_sum + x * drive_sum};
      const int which_sum = malc_share_sums<2, layout::lanes / 2, 1>(sums);
      const int64_t place = signals + (first + t) * layout::channels + layout::channel();
      if (layout::channel() < layout::channels && (layout::lanes < 4 || threadIdx.x % (layout::lanes / 2) == 0))
#pragma unroll
        for (int n = 0; n < (layout::lanes == 1 ? 2 : 1); n++) {
          float *gradient = which_sum + n == 0 ? given.x_gradient : given.delta_gradient;
          if (gradient) gradient[place] = sums[n];
        }

      /* Over the warp's channels: those of b and c. */
      constexpr int summed = 32 / layout::lanes, left = values > summed ? values / summed : 1;
      constexpr int alike = summed > values ? summed / values : 1; // lanes with the same sum
      const int first_sum = malc_share_sums<values, 16, layout::lanes>(mixed);
      if (column % alike == 0)
#pragma unroll
        for (int n = 0; n < left; n++) {
          const int sum = first_sum + n;
          if (sum < 2 * own)
            memory.sums[threadIdx.x / 32][t][sum / own][layout::lane() * own + sum % own] = mixed[n];
        }
    }
    __syncthreads();

    /* Over the block's warps. */
    const int64_t mixing = blockIdx.y * parts.mixings + mixings + first * layout::states;
    for (int i = threadIdx.x; i < positions * layout::states; i += threads) {
      const int t = i / layout::states, s = i % layout::states;
      float b = 0.0f, c = 0.0f;
#pragma unroll
      for (int warp = 0; warp < warps; warp++) b += memory.sums[warp][t][0][s], c += memory.sums[warp][t][1][s];
      parts.b[mixing + i] = b;
      parts.c[mixing + i] = c;
    }
  }
  layout::store(parts.a + sequence * layout::channels * layout::states, rate_sum);
}

/* Adds up the parts, each of them in order: a's gradient over sequences, b's and c's over blocks of channels. */
template <class Shape>
static DEVICE void scan_add_parts(const scan_backward_given &given, bool accumulates) {
  typedef scan_layout<Shape> layout;
  const scan_parts<Shape> parts(given);
  const int64_t rates = layout::channels * layout::states;
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rates) {
    if (given.a_gradient)
      given.a_gradient[i] =
          (accumulates ? given.a_gradient[i] : 0.0f) + malc_sum_of_parts(parts.a + i, given.batch, rates);
    return;
  }
  i -= rates;
  const bool is_b = i < parts.mixings;
  if (!is_b) i -= parts.mixings;
  float *gradient = is_b ? given.b_gradient : given.c_gradient;
  if (gradient && i < parts.mixings)
    gradient[i] = malc_sum_of_parts((is_b ? parts.b : parts.c) + i, layout::blocks, parts.mixings);
}
