/* Opens the functions of templates/cpu/matmul_bf16.h to test/cpu-matmul-bf16.test.ts. */
#include <stdlib.h>
#include "matmul_bf16.h"

_Static_assert(MALC_PANEL == PANEL_COLUMNS, "block-sizes.ts agrees with matmul.h");
_Static_assert(MALC_PANEL == MALC_STEP && MALC_ROWS % MALC_STEP == 0, "blocks are made of strips and panels");
_Static_assert(MALC_PANEL % MALC_TILE_COLUMNS == 0, "a panel is widened by whole tiles");

int path(void) { return MALC_BF16_PATH; }
int64_t packed_size(int64_t inner, int64_t columns) { return malc_packed_size_bf16(inner, columns); }

/* TDPBF16PS so far, where tiles are emulated. */
int64_t emulated(void) {
#ifdef AMX_EMULATOR_H
  return emulated_products;
#else
  return 0;
#endif
}

static malc_matrix matrix(const float *data, int64_t row_stride, int64_t column_stride) {
  return (malc_matrix){ data, row_stride, column_stride };
}

/* The words of a packed right operand; those of a packed left one come of the same function. */
void pack(uint32_t *words, const float *right, int64_t row_stride, int64_t column_stride, int64_t inner,
          int64_t columns, int threads) {
#pragma omp parallel num_threads(threads)
  malc_pack_bf16((float *)words, matrix(right, row_stride, column_stride), inner, columns);
}

/* One strip of up to 32 rows of a left operand. */
void pack_left(uint32_t *words, const float *left, int64_t row_stride, int64_t column_stride, int64_t rows,
               int64_t inner) {
  malc_pack_steps(words, left, row_stride, column_stride, rows, inner, true);
}

/* Rounds as the left operand is rounded where it stays float32. */
void round_floats(float *numbers, int64_t count) { malc_round_floats(numbers, count); }

/* result[rows][columns], over tasks of task_rows x task_columns; both operands and the scratch start on cache lines. */
void multiply(float *result, const float *left, int64_t left_rows, int64_t left_columns, const float *right,
              int64_t right_rows, int64_t right_columns, int64_t rows, int64_t inner, int64_t columns,
              int64_t task_rows, int64_t task_columns, int threads, int accumulate) {
  float *packed = aligned_alloc(64, (size_t)malc_packed_size_bf16(inner, columns) * sizeof *packed);
  float *scratch = aligned_alloc(64, (size_t)threads * MALC_SCRATCH * sizeof *scratch);
  const malc_matrix from = matrix(left, left_rows, left_columns);
  memset(scratch, -1, (size_t)threads * MALC_SCRATCH * sizeof *scratch); /* NaN: nothing of it may be read */
#pragma omp parallel num_threads(threads)
  {
    malc_pack_bf16(packed, matrix(right, right_rows, right_columns), inner, columns);
#pragma omp barrier
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t i = 0; i < rows; i += task_rows)
      for (int64_t j = 0; j < columns; j += task_columns)
        malc_multiply_bf16(result + i * columns + j, columns,
                           matrix(left + i * from.row_stride, left_rows, left_columns), malc_least(task_rows, rows - i),
                           packed, inner, j, malc_least(task_columns, columns - j),
                           scratch + malc_thread() * MALC_SCRATCH, accumulate);
  }
  free(packed);
  free(scratch);
}
