/* Opens templates/cpu/matmul_streamed.h and matmul_int8.h to test/cpu-matmul-prepared.test.ts. */
#include <stdlib.h>
#include "matmul_bf16.h"
#include "matmul_int8.h"

_Static_assert(MALC_FEW_DEPTH % MALC_GROUP == 0, "parts of the inner dimension are made of whole groups");
_Static_assert(MALC_FEW_TILE * (MALC_FEW_DEPTH + 2 * MALC_FEW_DEPTH / MALC_GROUP) <= MALC_SCRATCH, "rows have room");
_Static_assert(MALC_PANEL == MALC_STEP && MALC_PANEL % MALC_TILE_COLUMNS == 0, "panels are read by whole tiles");

int64_t packed_size(int narrow, int64_t inner, int64_t columns) {
  return narrow ? malc_packed_size_int8(inner, columns) : malc_packed_size_bf16(inner, columns);
}

/* Packs weights [columns][inner] as bfloat16, or, if `narrow`, as 8-bit numbers: in parts of the inner dimension. */
void pack(float *packed, const float *weights, int narrow, int64_t inner, int64_t columns, int64_t part) {
  for (int64_t column = 0; column < columns; column += MALC_PANEL)
    for (int64_t begin = 0; begin < inner; begin += part) {
      const int64_t end = malc_least(inner, begin + part);
      if (narrow) malc_pack_panel_int8(packed, (malc_matrix){ weights, 1, inner }, inner, columns, column, begin, end);
      else malc_pack_panel_bf16(packed, (malc_operand){ weights, 1, inner, false }, inner, columns, column, begin, end);
    }
}

/* result[rows][columns] by the products of few rows, or, with `many`, of any number. */
void multiply(float *result, const float *left, int64_t row_stride, int64_t column_stride, const float *packed,
              int narrow, int many, int64_t rows, int64_t inner, int64_t columns, int64_t task) {
  float *scratch = aligned_alloc(64, MALC_SCRATCH * sizeof *scratch);
  const malc_matrix from = { left, row_stride, column_stride };
  memset(scratch, -1, MALC_SCRATCH * sizeof *scratch); /* NaN: nothing of it may be read */
  for (int64_t j = 0; j < columns; j += task) {
    const int64_t width = malc_least(task, columns - j);
    if (narrow && many) malc_multiply_int8(result + j, columns, from, rows, packed, inner, j, width, scratch);
    else if (narrow) malc_multiply_few_int8(result + j, columns, from, rows, packed, inner, j, width, scratch);
    else malc_multiply_few_bf16(result + j, columns, from, rows, packed, inner, j, width, scratch);
  }
  free(scratch);
}
