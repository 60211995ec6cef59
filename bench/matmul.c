/* matmul.c - times the matrix products of templates/cpu, float32 and bfloat16: bench/README.md says how to run it.
 *
 * Four ways take turns, and each line shows the best of several rounds:
 *
 *   float32    as programs of float32 numbers do it, the packing of both operands included
 *   rounded    bfloat16 of operands that lie in memory as float32: packed and rounded within the time
 *   narrow     of operands that lie there as bfloat16, the right one packed within the time
 *   prepared   the same, the right operand packed before, as weights are
 *
 * Tasks of bfloat16 products take as many columns as fill about half a second cache with their panels, and tasks that
 * follow each other take the same ones. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include "matmul_bf16.h"

enum { ROUNDS = 15, PANEL_BYTES = 1 << 20, FLOAT_COLUMNS = 256 };
enum way { FLOAT32, ROUNDED, NARROW, PREPARED, WAYS };
static const char *const way_names[WAYS] = { "float32", "rounded", "narrow", "prepared" };

typedef struct {
  const char *name;
  int64_t rows, inner, columns;
  bool left_transposed, right_transposed; /* it lies in memory as [inner][rows], as [columns][inner] */
} product;

static const product products[] = {
  { "2048 x 2048 x 2048 nn", 2048, 2048, 2048, false, false },
  { "1024 x 768 x 3072 nt", 1024, 768, 3072, false, true },
  { "8192 x 128 x 128 nt", 8192, 128, 128, false, true },
  { "768 x 1024 x 3072 tn", 768, 1024, 3072, true, false },
};

/* Where the operands of a product lie, in one way or the other. */
typedef struct {
  malc_operand left, right;
  float *packed, *result, *scratch;
  int64_t scratch_stride;
} memory;

static void *allocate(int64_t bytes) {
  const int64_t page = 2 << 20;
  void *place = aligned_alloc((size_t)page, (size_t)((bytes + page - 1) / page * page));
  if (place) return memset(place, 0, (size_t)bytes);
  fprintf(stderr, "no memory for %lld bytes\n", (long long)bytes);
  exit(1);
}

static malc_operand operand(int64_t rows, int64_t columns, bool transposed, bool narrow) {
  void *data = allocate(rows * columns * malc_number_bytes(narrow));
  for (int64_t i = 0; i < rows * columns; i++) {
    const float number = (float)(i * 7 % 13) / 13 - 0.5f;
    if (narrow) ((malc_bf16 *)data)[i] = malc_narrow(number);
    else ((float *)data)[i] = number;
  }
  return (malc_operand){ data, transposed ? 1 : columns, transposed ? rows : 1, narrow };
}

static malc_matrix matrix(malc_operand operand) {
  return (malc_matrix){ operand.data, operand.row_stride, operand.column_stride };
}

/* One task after the other by whichever thread is free. */
static void multiply_floats(product sizes, memory at, float *own) {
  const int64_t columns = sizes.columns;
#pragma omp for collapse(2) schedule(dynamic, 1)
  for (int64_t j = 0; j < columns; j += FLOAT_COLUMNS)
    for (int64_t i = 0; i < sizes.rows; i += 2 * MALC_ROWS)
      malc_multiply_packing(at.result + i * columns + j, columns, matrix(malc_operand_from(at.left, i, 0)),
                            malc_least(2 * MALC_ROWS, sizes.rows - i), matrix(malc_operand_from(at.right, 0, j)),
                            sizes.inner, malc_least(FLOAT_COLUMNS, columns - j), MALC_DEPTH, own, false);
}

static void multiply_blocks(product sizes, memory at, float *own, bool prepared) {
  const int64_t inner = sizes.inner, columns = sizes.columns, panels = malc_steps(columns);
  const int64_t fitting = PANEL_BYTES / (malc_steps(inner) * MALC_STEP_PAIRS * (int64_t)sizeof(malc_pair));
  const int64_t wide = malc_steps_at_once(panels, fitting < 1 ? 1 : fitting) * MALC_STEP;
  const int64_t chunks = (columns + wide - 1) / wide, wanted = (4 * omp_get_num_threads() + chunks - 1) / chunks;
  const int64_t high = malc_least(256, malc_steps((sizes.rows + wanted - 1) / wanted) * MALC_STEP);
  if (!prepared) {
    malc_pack_bf16(at.packed, at.right, inner, columns);
#pragma omp barrier
  }
  malc_begin_blocks();
#pragma omp for collapse(2) schedule(dynamic, 1)
  for (int64_t j = 0; j < columns; j += wide)
    for (int64_t i = 0; i < sizes.rows; i += high)
      malc_multiply_bf16(at.result + i * columns + j, columns, malc_operand_from(at.left, i, 0),
                         malc_least(high, sizes.rows - i), at.packed, inner, j, malc_least(wide, columns - j), own,
                         false);
  malc_end_blocks();
}

/* Seconds of one product. */
static double multiply(product sizes, memory at, enum way way) {
  const double start = omp_get_wtime();
#pragma omp parallel
  {
    float *own = at.scratch + malc_thread() * at.scratch_stride;
    if (way == FLOAT32) multiply_floats(sizes, at, own);
    else multiply_blocks(sizes, at, own, way == PREPARED);
  }
  return omp_get_wtime() - start;
}

int main(void) {
  static const char *const paths[] = { "widened to float32", "AVX512-BF16", "AMX" };
  const int64_t number = sizeof(float), own = MALC_SCRATCH + malc_packed_size(MALC_DEPTH, FLOAT_COLUMNS);
  printf("%d threads; bfloat16 by %s; GFLOP/s\n%-24s", omp_get_max_threads(), paths[MALC_BF16_PATH], "");
  for (int way = 0; way < WAYS; way++) printf(" %9s", way_names[way]);
  printf("\n");
  for (size_t n = 0; n < sizeof products / sizeof *products; n++) {
    const product sizes = products[n];
    memory wide = {
      .left = operand(sizes.rows, sizes.inner, sizes.left_transposed, false),
      .right = operand(sizes.inner, sizes.columns, sizes.right_transposed, false),
      .packed = allocate(malc_packed_size_bf16(sizes.inner, sizes.columns) * number),
      .result = allocate(sizes.rows * sizes.columns * number),
      .scratch = allocate(omp_get_max_threads() * own * number),
      .scratch_stride = own,
    };
    memory narrow = wide;
    narrow.left = operand(sizes.rows, sizes.inner, sizes.left_transposed, true);
    narrow.right = operand(sizes.inner, sizes.columns, sizes.right_transposed, true);
    double best[WAYS] = { 1e9, 1e9, 1e9, 1e9 };
    for (int round = 0; round < ROUNDS; round++)
      for (int way = 0; way < WAYS; way++) { /* after NARROW, the right operand is packed */
        const double seconds = multiply(sizes, way <= ROUNDED ? wide : narrow, way);
        if (seconds < best[way]) best[way] = seconds;
      }
    printf("%-24s", sizes.name);
    for (int way = 0; way < WAYS; way++)
      printf(" %9.0f", 2e-9 * (double)(sizes.rows * sizes.inner * sizes.columns) / best[way]);
    printf("\n");
    const void *all[] = { wide.left.data, wide.right.data, narrow.left.data, narrow.right.data,
                          wide.packed,    wide.result,     wide.scratch };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free((void *)all[i]);
  }
}
