/* optimizer.h - how a step moves weights: the gradient's norm, the rules of the optimizers, averages of weights.
 *
 * A rule moves weights that lie side by side. Each is computed by itself: no result depends on where a run of them ends
 * or on the number of threads. */
#ifndef MALC_OPTIMIZER_H
#define MALC_OPTIMIZER_H
#include "runtime.h"

enum { MALC_NORM_PART = 1 << 16 }; /* elements that are summed together: fixed, so that the order of addition is */

/* The Euclidean norm of some numbers; `parts` holds one double for each MALC_NORM_PART of them. */
MALC_STATIC double malc_norm(const float *values, int64_t count, double *parts) {
  const int64_t pieces = (count + MALC_NORM_PART - 1) / MALC_NORM_PART;
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < pieces; piece++) {
    const int64_t end = malc_least(count, (piece + 1) * MALC_NORM_PART);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = piece * MALC_NORM_PART; i < end; i++) sum += (double)values[i] * values[i];
    parts[piece] = sum;
  }
  double total = 0;
  for (int64_t piece = 0; piece < pieces; piece++) total += parts[piece];
  return sqrt(total);
}

/* What an update moves weights by: malc_update of malc.h, and what follows from it. */
typedef struct {
  float rate;
  float decay;                    /* weight decay; 0 for what does not decay */
  float scale;                    /* clips the gradient */
  float beta1, beta2, epsilon, momentum;
  float correction1, correction2; /* 1 / (1 - beta^update) */
  float average;                  /* what an average keeps of itself */
} malc_terms;

/* AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019), in PyTorch's order of operations:
 *
 *   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *   w = (1 - rate decay) w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) */
MALC_STATIC void malc_adamw_update(float *restrict weight, const float *restrict gradient, float *restrict first,
                                   float *restrict second, int64_t count, malc_terms terms) {
  const float keep = 1.0f - terms.rate * terms.decay;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float slope = gradient[i] * terms.scale;
    const float mean = terms.beta1 * first[i] + (1.0f - terms.beta1) * slope;
    const float square = terms.beta2 * second[i] + (1.0f - terms.beta2) * slope * slope;
    first[i] = mean;
    second[i] = square;
    const float denominator = sqrtf(square * terms.correction2) + terms.epsilon;
    weight[i] = weight[i] * keep - terms.rate * terms.correction1 * mean / denominator;
  }
}

/* Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, algorithm 2):
 *
 *   w = (1 - rate decay) w - rate sign(beta1 m + (1 - beta1) g),  m = beta2 m + (1 - beta2) g */
MALC_STATIC void malc_lion_update(float *restrict weight, const float *restrict gradient, float *restrict first,
                                  int64_t count, malc_terms terms) {
  const float keep = 1.0f - terms.rate * terms.decay;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float slope = gradient[i] * terms.scale;
    const float direction = terms.beta1 * first[i] + (1.0f - terms.beta1) * slope;
    const float sign = (direction > 0.0f ? 1.0f : 0.0f) - (direction < 0.0f ? 1.0f : 0.0f);
    first[i] = terms.beta2 * first[i] + (1.0f - terms.beta2) * slope;
    weight[i] = weight[i] * keep - terms.rate * sign;
  }
}

/* Stochastic gradient descent with momentum (Sutskever et al., On the Importance of Initialization and Momentum in Deep
 * Learning, 2013) as PyTorch has it, where decay is part of the gradient:
 *
 *   m = momentum m + g + decay w,  w = w - rate m */
MALC_STATIC void malc_sgd_update(float *restrict weight, const float *restrict gradient, float *restrict first,
                                 int64_t count, malc_terms terms) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    first[i] = terms.momentum * first[i] + (gradient[i] * terms.scale + terms.decay * weight[i]);
    weight[i] -= terms.rate * first[i];
  }
}

/* The same without momentum: w = w - rate (g + decay w). */
MALC_STATIC void malc_plain_update(float *restrict weight, const float *restrict gradient, int64_t count,
                                   malc_terms terms) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++)
    weight[i] -= terms.rate * (gradient[i] * terms.scale + terms.decay * weight[i]);
}

/* A moving average of weights (Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992) in
 * which each step counts by a factor less than the one after it. */
MALC_STATIC void malc_average(float *restrict average, const float *restrict weight, int64_t count, float keep) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) average[i] += (1.0f - keep) * (weight[i] - average[i]);
}

/* Exchanges numbers. */
MALC_STATIC void malc_swap(float *restrict a, float *restrict b, int64_t count) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; i++) {
    const float old = a[i];
    a[i] = b[i];
    b[i] = old;
  }
}
#endif
