// program.h - what every generated program does besides launching its kernels: copies and random initial weights.
#pragma once
#include "graphs.h"
#include "launch.h"
#include "random.h"
#include "rows.h"
#include "sequences.h"
#include "status.h"

// ---- Copies ----

static __global__ void malc_add_floats(float *to, const float *from, int64_t count) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] += from[i];
}

/* Copies floats on the device, or adds them to what is there. */
inline cudaError_t malc_copy(float *to, const float *from, int64_t count, bool accumulate, cudaStream_t stream) {
  if (!accumulate)
    return cudaMemcpyAsync(to, from, (size_t)count * sizeof(float), cudaMemcpyDeviceToDevice, stream);
  return malc_launch(malc_add_floats, (unsigned)((count + 255) / 256), 256, 0, stream, to, from, count);
}

/* Copies rows of `width` floats to where they lie one after the other. */
static __global__ void malc_pick_rows(float *to, const float *from, const int32_t *rows, int64_t width) {
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) to[row * width + i] = from[rows[row] * width + i];
}

/* Keeps what texts are made of: history[text][position] of each token of the call. */
static __global__ void malc_remember(const int32_t *tokens, const int32_t *positions, const int32_t *ends,
                                     int64_t count, int32_t *history, int64_t context) {
  const int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (n < count) history[malc_sequence_of(n, 0, ends) * context + positions[n]] = tokens[n];
}

// ---- Random initial weights ----

/* Normal numbers by Box and Muller (1958). Element i depends on seed, stream and i alone. */
static __global__ void malc_normal(float *values, int64_t count, float deviation, uint64_t seed, uint32_t stream) {
  const int64_t quad = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t bits[4] = {(uint32_t)quad, (uint32_t)(quad >> 32), stream, 0};
  malc_philox(bits, (uint32_t)seed, (uint32_t)(seed >> 32));
  for (int n = 0; n < 4 && quad * 4 + n < count; n++) {
    const double radius = sqrt(-2.0 * log((bits[n & 2] + 1.0) / 4294967296.0));
    const double half_turns = bits[n | 1] / 2147483648.0;
    values[quad * 4 + n] = (float)(deviation * radius * (n & 1 ? sinpi(half_turns) : cospi(half_turns)));
  }
}

/* Numbers whose softplus is uniform between 0.001 and 0.1 on a logarithmic scale: where Mamba's step sizes start. */
static __global__ void malc_time_steps(float *values, int64_t count, uint64_t seed, uint32_t stream) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint32_t bits[4] = {(uint32_t)i, (uint32_t)(i >> 32), stream, 0};
  malc_philox(bits, (uint32_t)seed, (uint32_t)(seed >> 32));
  const double step = 0.001 * pow(100.0, bits[0] / 4294967296.0);
  values[i] = (float)(step + log(-expm1(-step))); // softplus inverted
}
