/* runtime.h - what every generated program needs besides its kernels: how work is divided, random initial weights, the
 * gradient's norm and the optimizer. */
#ifndef MALC_RUNTIME_H
#define MALC_RUNTIME_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "matmul.h"
#include "random.h"

#ifndef _OPENMP /* one thread does all, and the pragmas mean nothing */
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_threads(void) { return 1; }
static inline int omp_get_thread_num(void) { return 0; }
static inline void omp_set_num_threads(int threads) { (void)threads; }
#endif

/* Rows for one task of a product that has `chunks` tasks for each block of rows: few enough that every thread gets several
 * tasks, so that none waits long for the last one. */
static inline int64_t malc_task_rows(int64_t rows, int64_t chunks) {
  const int64_t wanted = (4 * omp_get_num_threads() + chunks - 1) / chunks;
  const int64_t even = (rows + wanted - 1) / wanted;
  const int64_t whole = (even + MALC_TILE_ROWS - 1) / MALC_TILE_ROWS * MALC_TILE_ROWS;
  return malc_least(whole, MALC_ROWS);
}

/* Adds up `number` tensors of `count` elements, which lie one after the other in `parts`, in that order. Opens a parallel
 * region. */
MALC_STATIC void malc_add_parts(float *sum, const float *parts, int64_t count, int64_t number, bool accumulate) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i++) {
    double total = accumulate ? sum[i] : 0.0;
    for (int64_t part = 0; part < number; part++) total += parts[part * count + i];
    sum[i] = (float)total;
  }
}

/* Copies `width` elements; `lanes` is a constant and most often the width, and then the copy is a few instructions. */
MALC_INLINE void malc_copy_lanes(float *to, const float *from, int64_t width, int64_t lanes) {
  if (width == lanes) memcpy(to, from, (size_t)lanes * sizeof *to);
  else memcpy(to, from, (size_t)width * sizeof *to);
}

/* ---- Random initial weights ---- */

/* Normal numbers by Box and Muller (1958). Element i depends on seed, stream and i alone. */
static void malc_normal(float *values, int64_t count, float deviation, uint64_t seed, uint32_t stream) {
#pragma omp parallel for schedule(static)
  for (int64_t quad = 0; quad < (count + 3) / 4; quad++) {
    uint32_t bits[4] = { (uint32_t)quad, (uint32_t)(quad >> 32), stream, 0 };
    malc_philox(bits, (uint32_t)seed, (uint32_t)(seed >> 32));
    for (int64_t n = 0; n < 4 && quad * 4 + n < count; n++) {
      const double radius = sqrt(-2.0 * log((bits[n & 2] + 1.0) / 4294967296.0));
      const double angle = 6.283185307179586 * bits[n | 1] / 4294967296.0;
      values[quad * 4 + n] = (float)(deviation * radius * (n & 1 ? sin(angle) : cos(angle)));
    }
  }
}

/* Numbers whose softplus is uniform between 0.001 and 0.1 on a logarithmic scale: where Mamba's step sizes start. */
static __attribute__((unused)) void malc_time_steps(float *values, int64_t count, uint64_t seed, uint32_t stream) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits[4] = { (uint32_t)i, (uint32_t)(i >> 32), stream, 0 };
    malc_philox(bits, (uint32_t)seed, (uint32_t)(seed >> 32));
    const double step = 0.001 * pow(100.0, bits[0] / 4294967296.0);
    values[i] = (float)(step + log(-expm1(-step))); /* softplus inverted */
  }
}

/* Zeros, by all threads: one alone does not reach the memory's bandwidth. */
static __attribute__((unused)) void malc_clear(float *values, int64_t count) {
  enum { piece = 1 << 18 };
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < count; first += piece)
    memset(values + first, 0, (size_t)malc_least(piece, count - first) * sizeof *values);
}

/* ---- The optimizer ---- */

enum { MALC_NORM_PART = 1 << 16 }; /* elements that are summed together: fixed, so that the order of addition is */

/* The Euclidean norm of all gradients; `parts` holds one double for each MALC_NORM_PART elements. */
static double malc_norm(const float *gradient, int64_t count, double *parts) {
  const int64_t pieces = (count + MALC_NORM_PART - 1) / MALC_NORM_PART;
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < pieces; piece++) {
    const int64_t end = malc_least(count, (piece + 1) * MALC_NORM_PART);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = piece * MALC_NORM_PART; i < end; i++) sum += (double)gradient[i] * gradient[i];
    parts[piece] = sum;
  }
  double total = 0;
  for (int64_t piece = 0; piece < pieces; piece++) total += parts[piece];
  return sqrt(total);
}

typedef struct {
  float rate, beta1, beta2, epsilon;
  float scale;        /* clips the gradient */
  float keep;         /* 1 - rate * weight decay */
  float correction1, correction2; /* 1 / (1 - beta^update) */
} malc_adamw_terms;

/* AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019), in PyTorch's order of operations. */
static void malc_adamw_update(float *restrict weight, const float *restrict gradient, float *restrict first,
                              float *restrict second, int64_t count, malc_adamw_terms terms) {
#pragma omp for simd schedule(static) nowait
  for (int64_t i = 0; i < count; i++) {
    const float slope = gradient[i] * terms.scale;
    const float mean = terms.beta1 * first[i] + (1.0f - terms.beta1) * slope;
    const float square = terms.beta2 * second[i] + (1.0f - terms.beta2) * slope * slope;
    first[i] = mean;
    second[i] = square;
    const float denominator = sqrtf(square * terms.correction2) + terms.epsilon;
    weight[i] = weight[i] * terms.keep - terms.rate * terms.correction1 * mean / denominator;
  }
}
#endif
