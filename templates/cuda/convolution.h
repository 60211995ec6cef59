// convolution.h - convolutions along time, each channel with a filter of its own: a thread has a channel, and
// neighbouring threads neighbouring channels.
#pragma once
#include "rows.h"
#include "sequences.h"

constexpr int convolution_positions = 8; // that a thread computes
constexpr int convolution_taps = 16;     // of a filter that a thread holds, at most

/* y[t] = sum over k of weight[k] x[t - Taps + 1 + k], or, reversed, x[t + Taps - 1 - k]. Blocks: positions of all
 * sequences, and channels. */
template <int Channels, int Taps, bool Reverse, class X, class Y>
static DEVICE void convolve(int64_t tokens, int64_t time, const X *__restrict__ x, const float *__restrict__ weight,
                            const float *__restrict__ state, const int32_t *__restrict__ ends, Y *__restrict__ y) {
  constexpr int memory = Taps - 1;
  constexpr bool held = Taps <= convolution_taps;
  const int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (channel >= Channels) return;
  float filter[held ? Taps : 1];
  if constexpr (held)
#pragma unroll
    for (int k = 0; k < Taps; k++) filter[k] = weight[channel * Taps + k];

  const int64_t first = (int64_t)blockIdx.x * convolution_positions;
  int64_t sequence = malc_sequence_of(first, time, ends);
  malc_piece piece = malc_piece_of(sequence, time, ends);
  for (int64_t token = first; token < first + convolution_positions && token < tokens; token++) {
    while (token >= piece.first + piece.count) piece = malc_piece_of(++sequence, time, ends);
    const int64_t t = token - piece.first;
    float sum = 0.0f;
    const auto add = [&](int k, float factor) {
      const int64_t at = Reverse ? t + memory - k : t - memory + k;
      if (Reverse ? at < piece.count : at >= 0) sum += factor * malc_to_float(x[(piece.first + at) * Channels + channel]);
      else if (!Reverse && state) sum += factor * state[((sequence + 1) * memory + at) * Channels + channel];
    };
    if constexpr (held)
#pragma unroll
      for (int k = 0; k < Taps; k++) add(k, filter[k]);
    else
      for (int k = 0; k < Taps; k++) add(k, weight[channel * Taps + k]);
    malc_store(y + token * Channels + channel, sum);
  }
}

/* The gradient of the filters, in parts [gridDim.x][Channels][Taps] of some positions each: sums over positions of
 * x[t - Taps + 1 + k] y_gradient[t]. Blocks: parts, channels and groups of taps. */
template <int Channels, int Taps, class X, class Y>
static DEVICE void convolution_gradient(int64_t tokens, int64_t time, const X *__restrict__ x,
                                        const Y *__restrict__ y_gradient, float *__restrict__ parts) {
  constexpr int memory = Taps - 1, group = Taps < convolution_taps ? Taps : convolution_taps;
  const int channel = blockIdx.y * blockDim.x + threadIdx.x, first_tap = blockIdx.z * group;
  if (channel >= Channels) return;
  const int64_t first = tokens * blockIdx.x / gridDim.x, end = tokens * (blockIdx.x + 1) / gridDim.x;
  int64_t t = first % time;
  float sums[group] = {};
  for (int64_t token = first; token < end; token++) {
    const float slope = malc_to_float(y_gradient[token * Channels + channel]);
#pragma unroll
    for (int k = 0; k < group; k++) {
      const int64_t back = memory - first_tap - k; // by so many positions
      if (back >= 0 && back <= t) sums[k] += slope * malc_to_float(x[(token - back) * Channels + channel]);
    }
    if (++t == time) t = 0;
  }
#pragma unroll
  for (int k = 0; k < group; k++)
    if (first_tap + k < Taps) parts[((int64_t)blockIdx.x * Channels + channel) * Taps + first_tap + k] = sums[k];
}
