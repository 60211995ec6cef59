// optimizer.h - what a step returns and how it moves weights: sums of losses, the gradient's norm, the optimizers'
// rules, averages and copies of weights.
#pragma once
#include "launch.h"
#include "rows.h"
#include "status.h"

// ---- What a step returns ----

struct malc_results {
  double loss, auxiliary; // sums over the step's micro-batches
  double norm;            // of all gradients
  float scale;            // clips the gradient
  int32_t moves;          // 0 where the norm is not finite
};

/* Adds the losses of a micro-batch's parts, in their order, and its share of the auxiliary loss. */
[[maybe_unused]] static __global__ void malc_add_losses(malc_results *results, const float *losses, int64_t count,
                                                        const float *auxiliary, const float *share) {
  malc_follow();
  for (int64_t n = 0; n < count; n++) results->loss += losses[n];
  results->auxiliary += (double)*auxiliary * *share;
}

/* What an update moves weights by: malc_update of malc.h, and what follows from it. It is sent with the inputs. */
struct malc_terms {
  float rate, decay;              // the latter of what decays
  float beta1, beta2, epsilon, momentum;
  float correction1, correction2; // 1 / (1 - beta^update)
  float average;                  // what an average keeps of itself
  float most;                     // the gradient's norm, clipped; 0 for no limit
};

// ---- The gradient's norm ----

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
 * is 4 bytes of the 34 that AdamW moves for each parameter. */
[[maybe_unused]] static __global__ void malc_norm_parts(const float *gradients, int64_t count, double *parts) {
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
[[maybe_unused]] static __global__ void malc_norm(const double *parts, int64_t count, const malc_terms *terms,
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

// ---- What moves ----

/* A piece of one parameter: of all that is kept of it, and of the copy that products read. */
struct malc_task {
  int64_t offset;
  int32_t count;
  int32_t moves, decays;   // whether gradients move it, and whether weight decay applies
  __nv_bfloat16 *copy;     // of the whole parameter; NULL where there is none
  int64_t first;           // the piece's first element, of the parameter's
  int32_t columns, stride; // elements of a row, and from row to row of the copy
  int32_t longer;          // the longer side of a matrix that Muon moves; 0 for all else
};

/* All parameters and what is kept of them, NULL for what is not. */
struct malc_values {
  float *weights;
  const float *gradients;
  float *first, *second, *averages;
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

/* Makes the copies of weights that something else than an update changed; a block has a task. */
[[maybe_unused]] static __global__ void malc_make_copies(const malc_task *tasks, const float *weights) {
  const malc_task task = tasks[blockIdx.x];
  if (!task.copy) return;
  for (int i = 4 * threadIdx.x; i < task.count; i += 4 * blockDim.x) {
    float weight[4];
    malc_load_4(weight, weights + task.offset + i);
    malc_copy_weights(task, i, weight);
  }
}

/* An average of weights in which each step counts by a factor less than the one after it (Polyak and Juditsky,
 * Acceleration of Stochastic Approximation by Averaging, 1992). */
static DEVICE float malc_averaged(float average, float weight, float keep) {
  return average + (1.0f - keep) * (weight - average);
}

[[maybe_unused]] static __global__ void malc_swap(float *a, float *b, int64_t count) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float old = a[i];
  a[i] = b[i];
  b[i] = old;
}

// ---- Rules ----
// A rule moves one weight, given its gradient, clipped, and as many moments as it keeps. `decay` is 0 for what does not
// decay. Each weight is computed by itself: no result depends on how parameters are cut into tasks.

/* AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019), in PyTorch's order of operations:
 *
 *   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *   w = (1 - rate decay) w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) */
struct malc_adamw {
  static constexpr int moments = 2;
  static DEVICE void move(float &weight, float slope, float &mean, float &square, float decay,
                          const malc_terms &terms) {
    mean = terms.beta1 * mean + (1.0f - terms.beta1) * slope;
    square = terms.beta2 * square + (1.0f - terms.beta2) * slope * slope;
    const float denominator = sqrtf(square * terms.correction2) + terms.epsilon;
    weight = weight * (1.0f - terms.rate * decay) - terms.rate * terms.correction1 * mean / denominator;
  }
};

/* Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, algorithm 2):
 *
 *   w = (1 - rate decay) w - rate sign(beta1 m + (1 - beta1) g),  m = beta2 m + (1 - beta2) g */
struct malc_lion {
  static constexpr int moments = 1;
  static DEVICE void move(float &weight, float slope, float &mean, float &, float decay, const malc_terms &terms) {
    const float direction = terms.beta1 * mean + (1.0f - terms.beta1) * slope;
    const float sign = (direction > 0.0f ? 1.0f : 0.0f) - (direction < 0.0f ? 1.0f : 0.0f);
    mean = terms.beta2 * mean + (1.0f - terms.beta2) * slope;
    weight = weight * (1.0f - terms.rate * decay) - terms.rate * sign;
  }
};

/* Stochastic gradient descent with momentum (Sutskever et al., On the Importance of Initialization and Momentum in Deep
 * Learning, 2013) as PyTorch has it, where decay is part of the gradient:
 *
 *   m = momentum m + g + decay w,  w = w - rate m */
struct malc_sgd {
  static constexpr int moments = 1;
  static DEVICE void move(float &weight, float slope, float &mean, float &, float decay, const malc_terms &terms) {
    mean = terms.momentum * mean + (slope + decay * weight);
    weight -= terms.rate * mean;
  }
};

/* The same without momentum: w = w - rate (g + decay w). */
struct malc_plain {
  static constexpr int moments = 0;
  static DEVICE void move(float &weight, float slope, float &, float &, float decay, const malc_terms &terms) {
    weight -= terms.rate * (slope + decay * weight);
  }
};

/* Moves a task's weights by a rule, their averages and their copy along with them: a block's work. Each parameter's end
 * is padded to whole fours, whose gradients are zero. `scale` clips gradients. */
template <class Rule>
static DEVICE void malc_move(const malc_task &task, const malc_values &values, const malc_terms &terms, float scale) {
  const float decay = task.decays ? terms.decay : 0.0f;
  for (int i = 4 * threadIdx.x; i < task.count; i += 4 * blockDim.x) {
    const int64_t at = task.offset + i;
    float weight[4], gradient[4], first[4] = {}, second[4] = {};
    malc_load_4(weight, values.weights + at);
    malc_load_4(gradient, values.gradients + at);
    if constexpr (Rule::moments > 0) malc_load_4(first, values.first + at);
    if constexpr (Rule::moments > 1) malc_load_4(second, values.second + at);
#pragma unroll
    for (int n = 0; n < 4; n++) Rule::move(weight[n], gradient[n] * scale, first[n], second[n], decay, terms);
    malc_store_4(values.weights + at, weight);
    if (task.copy) malc_copy_weights(task, i, weight);
    if constexpr (Rule::moments > 0) malc_store_4(values.first + at, first);
    if constexpr (Rule::moments > 1) malc_store_4(values.second + at, second);
    if (!values.averages) continue;
    float average[4];
    malc_load_4(average, values.averages + at);
#pragma unroll
    for (int n = 0; n < 4; n++) average[n] = malc_averaged(average[n], weight[n], terms.average);
    malc_store_4(values.averages + at, average);
  }
}

/* An update by one rule; a block has a task. */
template <class Rule>
static __global__ void malc_update_weights(const malc_task *tasks, malc_values values, const malc_terms *given,
                                           const malc_results *results) {
  malc_follow();
  const malc_task task = tasks[blockIdx.x];
  if (task.moves && results->moves) malc_move<Rule>(task, values, *given, results->scale);
}

/* Moves the biases that balance experts: up for those that got less than the mean load, down for the others
 * (Wang et al., Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts, 2024); and their averages, where
 * there are any. One block. */
[[maybe_unused]] static __global__ void malc_balance(float *bias, const float *load, int64_t experts, float rate,
                                                     float *averages, const malc_terms *terms,
                                                     const malc_results *results) {
  if (!results->moves) return;
  double mean = 0;
  for (int64_t i = 0; i < experts; i++) mean += load[i] / (double)experts;
  for (int64_t i = threadIdx.x; i < experts; i += blockDim.x) {
    bias[i] += rate * (float)((load[i] < mean) - (load[i] > mean));
    if (averages) averages[i] = malc_averaged(averages[i], bias[i], terms->average);
  }
}
