// program.h - what every generated program does besides launching its kernels: copies, random
// initial weights, sums of losses, the gradient's norm and the optimizer.
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

// ---- What a step returns, and what moves its weights ----

struct malc_results {
  double loss, auxiliary; // sums over the step's micro-batches
  double norm;            // of all gradients
  float scale;            // clips the gradient
  int32_t moves;          // 0 where the norm is not finite
};

/* Adds the losses of a micro-batch's parts, in their order, and its share of the auxiliary loss. */
static __global__ void malc_add_losses(malc_results *results, const float *losses, int64_t count,
                                       const float *auxiliary, const float *share) {
  malc_follow();
  for (int64_t n = 0; n < count; n++) results->loss += losses[n];
  results->auxiliary += (double)*auxiliary * *share;
}

/* What a step moves the weights by; it is sent with the inputs. */
struct malc_adamw_terms {
  float rate, beta1, beta2, epsilon;
  float keep;                     // 1 - rate * weight decay
  float correction1, correction2; // 1 / (1 - beta^update)
  float most;                     // the gradient's norm, clipped; 0 for no limit
};

enum { MALC_NORM_PART = 1 << 16, MALC_NORM_THREADS = 256 }; // elements that a block sums: fixed, so that the order is

/* The sum over a block's threads, for thread 0. */
static DEVICE double malc_over_block(double value) {
  __shared__ double of_warps[32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < MALC_NORM_THREADS / 32; warp++) sum += of_warps[warp];
  return sum;
}

/* Parameters end with whole fours, whose gradients are zero. Another pass over all gradients, which are read once: that
 * is 4 bytes of the 34 that an update moves for each parameter. */
static __global__ void malc_norm_parts(const float *gradients, int64_t count, double *parts) {
  malc_follow();
  const int64_t first = (int64_t)blockIdx.x * MALC_NORM_PART;
  const int64_t end = first + MALC_NORM_PART < count ? first + MALC_NORM_PART : count;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = first + 4 * threadIdx.x; i < end; i += 4 * MALC_NORM_THREADS) {
    float four[4];
    malc_load_4(four, gradients + i);
#pragma unroll
    for (int n = 0; n < 4; n++) sum += (double)four[n] * four[n];
  }
  sum = malc_over_block(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/* One block: the norm, and by what the gradient is scaled so that it is clipped. */
static __global__ void malc_norm(const double *parts, int64_t count, const malc_adamw_terms *terms,
                                 malc_results *results) {
  malc_follow();
  double sum = 0;
  for (int64_t n = threadIdx.x; n < count; n += MALC_NORM_THREADS) sum += parts[n];
  sum = malc_over_block(sum);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sum), most = terms->most;
  results->norm = norm;
  results->scale = (float)(most > 0 && norm > most ? most / (norm + 1e-6) : 1.0);
  results->moves = isfinite(norm);
}

// ---- The optimizer ----

/* A piece of one parameter: of all weights, moments and gradients alike, and of the copy that products read. */
struct malc_task {
  int64_t offset;
  int32_t count;
  int32_t moves, decays;   // whether gradients move it, and whether weight decay applies
  __nv_bfloat16 *copy;     // of the whole parameter; NULL where there is none
  int64_t first;           // the piece's first element, of the parameter's
  int32_t columns, stride; // elements of a row, and from row to row of the copy
};

/* Writes four weights from the task's i-th on, a multiple of four, to the copy. A row whose elements fill whole pieces
 * of 16 bytes is not padded: then the copy lies as the parameter does, which ends with such a piece. */
static DEVICE void malc_copy_weights(const malc_task &task, int i, const float (&weights)[4]) {
  if (task.columns == task.stride) {
    malc_store_4(task.copy + task.first + i, weights);
    return;
  }
#pragma unroll
  for (int n = 0; n < 4; n++) {
    if (i + n >= task.count) break;
    const int64_t at = task.first + i + n;
    task.copy[at / task.columns * task.stride + at % task.columns] = __float2bfloat16_rn(weights[n]);
  }
}

/* Makes the copies of weights that something else than AdamW changed; a block has a task. */
[[maybe_unused]] static __global__ void malc_make_copies(const malc_task *tasks, const float *weights) {
  const malc_task task = tasks[blockIdx.x];
  if (!task.copy) return;
  for (int i = 4 * threadIdx.x; i < task.count; i += 4 * blockDim.x) {
    float weight[4];
    malc_load_4(weight, weights + task.offset + i);
    malc_copy_weights(task, i, weight);
  }
}

/* AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019), in PyTorch's order of operations. A block
 * has a task; each parameter's end is padded to whole fours, whose gradients are zero. */
static __global__ void malc_adamw_update(const malc_task *tasks, float *weights, const float *gradients, float *first,
                                         float *second, const malc_adamw_terms *given, const malc_results *results) {
  malc_follow();
  if (!results->moves) return;
  const malc_adamw_terms terms = *given;
  const malc_task task = tasks[blockIdx.x];
  if (!task.moves) return;
  const float keep = task.decays ? terms.keep : 1.0f, scale = results->scale;
  for (int i = 4 * threadIdx.x; i < task.count; i += 4 * blockDim.x) {
    const int64_t at = task.offset + i;
    float weight[4], gradient[4], mean[4], square[4];
    malc_load_4(weight, weights + at);
    malc_load_4(gradient, gradients + at);
    malc_load_4(mean, first + at);
    malc_load_4(square, second + at);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const float slope = gradient[n] * scale;
      mean[n] = terms.beta1 * mean[n] + (1.0f - terms.beta1) * slope;
      square[n] = terms.beta2 * square[n] + (1.0f - terms.beta2) * slope * slope;
      const float denominator = sqrtf(square[n] * terms.correction2) + terms.epsilon;
      weight[n] = weight[n] * keep - terms.rate * terms.correction1 * mean[n] / denominator;
    }
    malc_store_4(weights + at, weight);
    if (task.copy) malc_copy_weights(task, i, weight);
    malc_store_4(first + at, mean);
    malc_store_4(second + at, square);
  }
}

/* Moves the biases that balance experts: up for those that got less than the mean load, down for the others
 * (Wang et al., Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts, 2024). One block. */
static __global__ void malc_balance(float *bias, const float *load, int64_t experts, float rate,
                                    const malc_results *results) {
  if (!results->moves) return;
  double mean = 0;
  for (int64_t i = 0; i < experts; i++) mean += load[i] / (double)experts;
  for (int64_t i = threadIdx.x; i < experts; i += blockDim.x)
    bias[i] += rate * (float)((load[i] < mean) - (load[i] > mean));
}
