/* matmul.c - times the matrix products of templates/cpu, float32 and bfloat16: bench/README.md says how to run it.
 *
 * A product is packed and multiplied as generated programs do it: the right operand by all threads, then tasks of
 * MALC_ROWS rows and 256 columns. Each line is the best of several rounds, float32 and bfloat16 taking turns; the time
 * includes the packing of both operands. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include "matmul_bf16.h"

enum { ROUNDS = 15, TASK_COLUMNS = 256 };

typedef struct {
  const char *name;
  int64_t rows, inner, columns;
  bool transposed; /* the right operand lies as [columns][inner], as weights do */
} product;

static const product products[] = {
  { "2048 x 2048 x 2048 nn", 2048, 2048, 2048, false },
  { "1024 x 768 x 3072 nt", 1024, 768, 3072, true },
  { "8192 x 128 x 128 nt", 8192, 128, 128, true },
};

static float *allocate(int64_t count) {
  const size_t page = 2 << 20, bytes = ((size_t)count * sizeof(float) + page - 1) / page * page;
  float *memory = aligned_alloc(page, bytes);
  if (!memory) {
    fprintf(stderr, "no memory for %zu bytes\n", bytes);
    exit(1);
  }
  for (int64_t i = 0; i < count; i++) memory[i] = (float)(i * 7 % 13) / 13 - 0.5f;
  return memory;
}

/* Seconds of one product. */
static double multiply(product sizes, float *result, const float *left, malc_matrix right, float *packed,
                       float *scratch, bool bf16) {
  const int64_t inner = sizes.inner, columns = sizes.columns;
  const double start = omp_get_wtime();
#pragma omp parallel
  {
    float *own = scratch + malc_thread() * MALC_SCRATCH;
    if (bf16) malc_pack_bf16(packed, right, inner, columns);
    else malc_pack(packed, right, inner, columns);
#pragma omp barrier
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (int64_t i = 0; i < sizes.rows; i += MALC_ROWS)
      for (int64_t j = 0; j < columns; j += TASK_COLUMNS) {
        const malc_matrix from = { left + i * inner, inner, 1 };
        const int64_t rows = malc_least(MALC_ROWS, sizes.rows - i), width = malc_least(TASK_COLUMNS, columns - j);
        float *to = result + i * columns + j;
        if (bf16) malc_multiply_bf16(to, columns, from, rows, packed, inner, j, width, own, false);
        else malc_multiply(to, columns, from, rows, packed, inner, j, width, own);
      }
  }
  return omp_get_wtime() - start;
}

int main(void) {
  static const char *const paths[] = { "widened to float32", "AVX512-BF16", "AMX" };
  printf("%d threads; bfloat16 by %s\n", omp_get_max_threads(), paths[MALC_BF16_PATH]);
  for (size_t n = 0; n < sizeof products / sizeof *products; n++) {
    const product sizes = products[n];
    float *left = allocate(sizes.rows * sizes.inner), *right = allocate(sizes.inner * sizes.columns);
    float *packed = allocate(malc_packed_size(malc_steps(sizes.inner) * MALC_STEP, sizes.columns));
    float *result = allocate(sizes.rows * sizes.columns), *scratch = allocate(omp_get_max_threads() * MALC_SCRATCH);
    const malc_matrix from = { right, sizes.transposed ? 1 : sizes.columns, sizes.transposed ? sizes.inner : 1 };
    double best[2] = { 1e9, 1e9 };
    for (int round = 0; round < 2 * ROUNDS; round++) {
      const double seconds = multiply(sizes, result, left, from, packed, scratch, round % 2);
      if (seconds < best[round % 2]) best[round % 2] = seconds;
    }
    const double gigaflops = 2e-9 * (double)(sizes.rows * sizes.inner * sizes.columns);
    printf("%-24s float32 %6.0f GFLOP/s   bfloat16 %6.0f GFLOP/s\n", sizes.name, gigaflops / best[0],
           gigaflops / best[1]);
    float *all[] = { left, right, packed, result, scratch };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  }
}
