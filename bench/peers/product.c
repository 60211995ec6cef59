/* product.c - malc's matrix products as a library, for bench/peers/torch_matmul.py, which compiles it. Operands may lie
 * transposed: element (i, j) is data[i * row_stride + j * column_stride], and one of the strides is 1. */
#include "runtime.h"
#include "matmul_bf16.h"

enum { SCRATCH = 1 << 22, ROWS = 528, COLUMNS = 512, DEPTH = 384 }; /* floats a thread; what bounds a task */
static float *scratch, *packed;

/* Takes the memory that products work in: of `threads`, with a right operand of so many numbers at most. */
int product_reserve(int threads, int64_t numbers) {
  omp_set_num_threads(threads);
  scratch = malc_take((int64_t)threads * SCRATCH * (int64_t)sizeof(float));
  packed = malc_take(numbers * (int64_t)sizeof(float));
  return scratch && packed;
}

void product_f32(float *result, const float *left, int64_t left_row, int64_t left_column, const float *right,
                 int64_t right_row, int64_t right_column, int64_t rows, int64_t inner, int64_t columns) {
#pragma omp parallel
  {
    const malc_task task = malc_divide(rows, columns, MALC_PANEL, (malc_task){ ROWS, COLUMNS });
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
    for (int64_t i = 0; i < rows; i += task.rows)
      for (int64_t j = 0; j < columns; j += task.columns)
        malc_multiply_packing(result + i * columns + j, columns,
                              (malc_matrix){ left + i * left_row, left_row, left_column },
                              malc_least(task.rows, rows - i),
                              (malc_matrix){ right + j * right_column, right_row, right_column }, inner,
                              malc_least(task.columns, columns - j), DEPTH, scratch + malc_thread() * SCRATCH, false);
  }
}

/* Of bfloat16 numbers in memory; the right operand is packed first, unless the last call left it packed. */
void product_bf16(float *result, const malc_bf16 *left, int64_t left_row, int64_t left_column, const malc_bf16 *right,
                  int64_t right_row, int64_t right_column, int64_t rows, int64_t inner, int64_t columns,
                  int32_t prepared) {
  const malc_operand lefts = { left, left_row, left_column, true }, rights = { right, right_row, right_column, true };
#pragma omp parallel
  {
    if (!prepared) {
      malc_pack_bf16(packed, rights, inner, columns);
#pragma omp barrier
    }
    malc_begin_blocks();
    const malc_task task = malc_divide_blocks(rows, columns, MALC_PANEL, inner, (malc_task){ 256, columns });
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
    for (int64_t j = 0; j < columns; j += task.columns)
      for (int64_t i = 0; i < rows; i += task.rows)
        malc_multiply_bf16(result + i * columns + j, columns, malc_operand_from(lefts, i, 0),
                           malc_least(task.rows, rows - i), packed, inner, j, malc_least(task.columns, columns - j),
                           scratch + malc_thread() * SCRATCH, false);
    malc_end_blocks();
  }
}
