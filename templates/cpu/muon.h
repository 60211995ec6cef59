/* muon.h - Muon, which moves a matrix by the nearest one whose singular values are all alike (Jordan et al., Muon: An
 * Optimizer for Hidden Layers in Neural Networks, 2024).
 *
 * The gradient's mean M is replaced by an approximation of U V^T, where U S V^T is its singular value decomposition.
 * The iteration of Newton and Schulz gets there by products alone: with X = M / |M|, five times
 *
 *   X = a X + (b A + c A A) X,  where A = X X^T  (X (b A + c A A), where A = X^T X, of a matrix with more rows)
 *
 * Its coefficients are not those that converge but those that lift small singular values fastest: they end between 0.7
 * and 1.2. The result times 0.2 sqrt(max(rows, columns)) moves weights about as far as AdamW does (Liu et al., Muon is
 * Scalable for LLM Training, 2025, section 2.2), so that one rate and one decay serve both.
 *
 * Products are of float32, in programs of bfloat16 too. The authors' are of bfloat16; float32 costs an update more and
 * leaves no rounding in the weights. */
#ifndef MALC_MUON_H
#define MALC_MUON_H
#include "optimizer.h"

enum {
  MALC_MUON_STEPS = 5,
  MALC_MUON_ROWS = 264, /* most of a task of a product, */
  MALC_MUON_COLUMNS = 256,
  MALC_MUON_DEPTH = 256, /* and of its inner dimension at once */
  MALC_MUON_SCRATCH = MALC_MUON_DEPTH * (MALC_STRIP_MOST + MALC_MUON_COLUMNS), /* floats of each thread */
};

/* Memory that all threads share, and each thread's own scratch, `stride` floats apart. */
typedef struct {
  float *room; /* malc_muon_room floats */
  float *scratch;
  int64_t stride;
  double *norm_parts; /* as malc_norm needs them for a matrix */
} malc_muon_memory;

/* Floats that orthogonalising a matrix needs: a second one, and two squares of its shorter side. */
MALC_INLINE int64_t malc_muon_room(int64_t rows, int64_t columns) {
  const int64_t side = malc_least(rows, columns);
  return rows * columns + 2 * side * side;
}

/* to = scale x left x right + share x other, [rows][columns]. Opens a parallel region. */
MALC_STATIC void malc_muon_product(float *to, malc_matrix left, malc_matrix right, int64_t rows, int64_t inner,
                                   int64_t columns, float scale, const float *other, float share,
                                   const malc_muon_memory *memory) {
#pragma omp parallel
  {
    const malc_task most = { MALC_MUON_ROWS, MALC_MUON_COLUMNS };
    const malc_task task = malc_divide(rows, columns, MALC_PANEL, most);
    const int64_t across = (columns + task.columns - 1) / task.columns, down = (rows + task.rows - 1) / task.rows;
    float *own = memory->scratch + malc_thread() * memory->stride;
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < across * down; n++) {
      const int64_t row = n / across * task.rows, column = n % across * task.columns;
      const int64_t height = malc_least(task.rows, rows - row), width = malc_least(task.columns, columns - column);
      const malc_matrix from = { left.data + row * left.row_stride, left.row_stride, left.column_stride };
      float *tile = to + row * columns + column;
      malc_multiply_packing(tile, columns, from, height, malc_columns(right, column), inner, width, MALC_MUON_DEPTH,
                            own, false);
      if (!other) continue;
      for (int64_t i = 0; i < height; i++) {
        const float *beside = other + (row + i) * columns + column;
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
          tile[i * columns + j] = scale * tile[i * columns + j] + share * beside[j];
      }
    }
  }
}

/* Puts the orthogonalised mean of a matrix's gradients in the gradient's place. The mean is looked ahead along, as
 * Nesterov does: m = momentum m + (1 - momentum) g, and momentum m + (1 - momentum) g is what is orthogonalised. */
MALC_STATIC void malc_muon_direction(float *gradient, float *first, int64_t rows, int64_t columns, malc_terms terms,
                                     const malc_muon_memory *memory) {
  const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  const int64_t count = rows * columns, side = malc_least(rows, columns);
  float *x = memory->room, *next = gradient, *squares = x + count, *mixed = squares + side * side;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; i++) {
    const float slope = (1.0f - terms.momentum) * (gradient[i] * terms.scale);
    first[i] = terms.momentum * first[i] + slope;
    x[i] = terms.momentum * first[i] + slope;
  }
  const double norm = malc_norm(x, count, memory->norm_parts);
  const float shrink = (float)(1.0 / fmax(norm, 1e-7)); /* a gradient of zeros leaves zeros */
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; i++) x[i] *= shrink;

  const malc_matrix square = { squares, side, 1 }, mix = { mixed, side, 1 };
  for (int step = 0; step < MALC_MUON_STEPS; step++) {
    const malc_matrix straight = { x, columns, 1 }, across = { x, 1, columns };
    if (rows <= columns) malc_muon_product(squares, straight, across, side, columns, side, 1, NULL, 0, memory);
    else malc_muon_product(squares, across, straight, side, rows, side, 1, NULL, 0, memory);
    malc_muon_product(mixed, square, square, side, side, side, c, squares, b, memory);
    if (rows <= columns) malc_muon_product(next, mix, straight, rows, side, columns, 1, x, a, memory);
    else malc_muon_product(next, straight, mix, rows, side, columns, 1, x, a, memory);
    float *swap = x;
    x = next;
    next = swap;
  } /* an odd number of times: the last result is in the gradient's place */
}

/* w = (1 - rate decay) w - rate 0.2 sqrt(max(rows, columns)) o, where o is the direction. */
MALC_STATIC void malc_muon_update(float *restrict weight, const float *restrict direction, int64_t longer,
                                  int64_t count, malc_terms terms) {
  const float keep = 1.0f - terms.rate * terms.decay, rate = terms.rate * 0.2f * sqrtf((float)longer);
#pragma omp simd
  for (int64_t i = 0; i < count; i++) weight[i] = weight[i] * keep - rate * direction[i];
}
#endif
