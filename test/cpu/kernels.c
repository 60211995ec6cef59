/* Opens the static functions of templates/cpu to test/cpu-kernels.test.ts. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include "math.h"
#include "matmul_few.h"
#include "runtime.h"

_Static_assert(MALC_SCRATCH == MATMUL_SCRATCH, "block-sizes.ts agrees with matmul.h");
_Static_assert(MALC_DEPTH == BLOCK_DEPTH, "block-sizes.ts agrees with matmul.h");
_Static_assert(MALC_PANEL == PANEL_COLUMNS, "block-sizes.ts agrees with matmul.h");
_Static_assert(MALC_ROWS == KEY_BLOCK && QUERY_BLOCK % MALC_TILE_COLUMNS == 0, "attention's blocks are made of tiles");
_Static_assert(MALC_ROWS % MALC_TILE_ROWS == 0 && MALC_PANEL % MALC_TILE_COLUMNS == 0, "blocks are made of tiles");
_Static_assert(MALC_ROWS / MALC_TILE_ROWS * MALC_STRIP * MALC_DEPTH <= MALC_SCRATCH, "scratch holds the strips");
_Static_assert(MALC_STRIP <= MALC_STRIP_MOST && MALC_STRIP_MOST == STRIP_ROWS, "schedule.ts agrees with matmul.h");
_Static_assert(ROW_STEP % MALC_TILE_ROWS == 0, "a schedule's rows are whole tiles");

/* ---- math.h: apply_F fills an array, worst_F is the largest relative error on evenly spaced numbers ---- */

#define UNARY(name, exact)                                                                                      \
  void apply_##name(float *restrict results, const float *restrict numbers, int64_t count) {                    \
    _Pragma("omp simd") for (int64_t i = 0; i < count; i++) results[i] = malc_##name(numbers[i]);               \
  }                                                                                                             \
  double worst_##name(double low, double high, int64_t count) {                                                 \
    float *numbers = calloc(2 * (size_t)count, sizeof *numbers), *results = numbers + count;                   \
    for (int64_t i = 0; i < count; i++) numbers[i] = (float)(low + (high - low) * (double)i / (double)count);   \
    apply_##name(results, numbers, count);                                                                      \
    double worst = 0;                                                                                           \
    for (int64_t i = 0; i < count; i++) {                                                                       \
      const double x = numbers[i], expected = exact, error = fabs(results[i] - expected) / fabs(expected);      \
      const int measured = fabs(expected) >= 0x1p-125 && fabs(expected) < 0x1p128;                              \
      if (measured && !(error <= worst)) worst = error;                                                         \
    }                                                                                                           \
    free(numbers);                                                                                              \
    return worst;                                                                                               \
  }
UNARY(exp, exp(x))
UNARY(exp2, exp2(x))
UNARY(log, log(x))
UNARY(log1p, log1p(x))
UNARY(tanh, tanh(x))
UNARY(sigmoid, 1 / (1 + exp(-x)))
UNARY(erf, erf(x))
UNARY(sin, sin(x))
UNARY(cos, cos(x))
UNARY(rsqrt, 1 / sqrt(x))
UNARY(sqrt, sqrt(x))
UNARY(abs, fabs(x))
UNARY(floor, floor(x))

#define BINARY(name)                                                                                            \
  void apply_##name(float *restrict results, const float *restrict a, const float *restrict b, int64_t count) { \
    _Pragma("omp simd") for (int64_t i = 0; i < count; i++) results[i] = malc_##name(a[i], b[i]);               \
  }
BINARY(pow)
BINARY(min)
BINARY(max)

/* ---- matmul.h ---- */

static malc_matrix matrix(const float *data, int64_t row_stride, int64_t column_stride) {
  return (malc_matrix){ data, row_stride, column_stride };
}

/* result[rows][columns], in tasks of so many rows and columns, `depth` of the inner dimension at a time. */
void multiply(float *result, const float *left, int64_t left_rows, int64_t left_columns, const float *right,
              int64_t right_rows, int64_t right_columns, int64_t rows, int64_t inner, int64_t columns, int threads,
              int64_t task_rows, int64_t task_columns, int64_t depth) {
  const size_t own = ((size_t)(depth * (MALC_STRIP_MOST + malc_packed_size(1, task_columns))) + 15) / 16 * 16;
  float *scratch = aligned_alloc(64, (size_t)threads * own * sizeof *scratch);
  memset(scratch, -1, (size_t)threads * own * sizeof *scratch); /* NaN: nothing of it may be read */
  const malc_matrix by = matrix(right, right_rows, right_columns);
#pragma omp parallel for num_threads(threads) collapse(2) schedule(dynamic)
  for (int64_t i = 0; i < rows; i += task_rows)
    for (int64_t j = 0; j < columns; j += task_columns)
      malc_multiply_packing(result + i * columns + j, columns, matrix(left + i * left_rows, left_rows, left_columns),
                            malc_least(task_rows, rows - i), malc_columns(by, j), inner,
                            malc_least(task_columns, columns - j), depth, scratch + (size_t)malc_thread() * own, false);
  free(scratch);
}

/* The same by packed panels, in tasks of MALC_ROWS x MALC_PANEL. */
void multiply_panels(float *result, const float *left, int64_t left_rows, int64_t left_columns, const float *right,
                     int64_t right_rows, int64_t right_columns, int64_t rows, int64_t inner, int64_t columns) {
  float *packed = aligned_alloc(64, (size_t)malc_packed_size(inner, columns) * sizeof *packed);
  float *scratch = aligned_alloc(64, MALC_SCRATCH * sizeof *scratch);
  malc_pack_alone(packed, matrix(right, right_rows, right_columns), inner, columns);
  for (int64_t i = 0; i < rows; i += MALC_ROWS)
    for (int64_t j = 0; j < columns; j += MALC_PANEL)
      malc_multiply(result + i * columns + j, columns, matrix(left + i * left_rows, left_rows, left_columns),
                    malc_least(MALC_ROWS, rows - i), packed, inner, j, malc_least(MALC_PANEL, columns - j), scratch);
  free(packed);
  free(scratch);
}

/* What malc_divide makes of a product on so many threads. */
void divide(int64_t *task, int64_t rows, int64_t columns, int64_t step, int64_t most_rows, int64_t most_columns,
            int threads) {
#pragma omp parallel num_threads(threads)
  if (malc_thread() == 0) {
    const malc_task divided = malc_divide(rows, columns, step, (malc_task){ most_rows, most_columns });
    task[0] = divided.rows, task[1] = divided.columns;
  }
}

void multiply_few(float *result, const float *left, int64_t left_rows, int64_t left_columns, const float *right,
                  int64_t right_rows, int64_t right_columns, int64_t rows, int64_t inner, int64_t columns) {
  for (int64_t j = 0; j < columns; j += MALC_PANEL)
    malc_multiply_few(result + j, columns, matrix(left, left_rows, left_columns), rows,
                      matrix(right, right_rows, right_columns), inner, j, malc_least(MALC_PANEL, columns - j));
}
