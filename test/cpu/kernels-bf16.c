/* Opens the functions of templates/cpu/matmul_bf16.h to test/cpu-matmul-bf16.test.ts. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "matmul_bf16.h"

_Static_assert(MALC_PANEL == PANEL_COLUMNS, "block-sizes.ts agrees with matmul.h");
_Static_assert(MALC_PANEL == MALC_STEP && MALC_ROWS % MALC_STEP == 0, "blocks are made of strips and panels");
_Static_assert(MALC_PANEL % MALC_TILE_COLUMNS == 0, "a panel is widened by whole tiles");
#if MALC_BF16_PATH == MALC_TILES
_Static_assert(MALC_MOST_STEPS * MALC_STEP_PAIRS <= MALC_SCRATCH, "a packed strip is within the scratch");
#endif

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

void narrow(malc_bf16 *to, const float *from, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = malc_narrow(from[i]);
}
void widen(float *to, const malc_bf16 *from, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = malc_widen(from[i]);
}

static malc_operand operand(const void *data, int64_t row_stride, int64_t column_stride, int is_narrow) {
  return (malc_operand){ data, row_stride, column_stride, is_narrow };
}

/* The words of a packed right operand. */
void pack(uint32_t *words, const void *right, int64_t row_stride, int64_t column_stride, int is_narrow, int64_t inner,
          int64_t columns, int threads) {
#pragma omp parallel num_threads(threads)
  malc_pack_bf16((float *)words, operand(right, row_stride, column_stride, is_narrow), inner, columns);
}

/* One strip of up to 32 rows of a left operand. */
void pack_left(uint32_t *words, const void *left, int64_t row_stride, int64_t column_stride, int is_narrow,
               int64_t rows, int64_t inner) {
  malc_pack_steps(words, operand(left, row_stride, column_stride, is_narrow), rows, inner, true);
}

/* Memory that ends where a page begins that must not be touched. */
typedef struct {
  char *pages;
  size_t length;
} guarded;

static guarded guard(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), length = (bytes + page - 1) / page * page + page;
  char *pages = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + length - page, page, PROT_NONE) != 0) abort();
  return (guarded){ pages, length };
}
static void *data_of(guarded memory, size_t bytes) {
  return memory.pages + memory.length - (size_t)sysconf(_SC_PAGESIZE) - bytes;
}

/* result[rows][columns], over tasks of task_rows x task_columns. Of the operands, not a byte behind the last one may be
 * read. Returns whether the left operand was packed. */
int multiply(float *result, const void *left, int64_t left_bytes, int64_t left_rows, int64_t left_columns,
             int left_narrow, const void *right, int64_t right_bytes, int64_t right_rows, int64_t right_columns,
             int right_narrow, int64_t rows, int64_t inner, int64_t columns, int64_t task_rows, int64_t task_columns,
             int threads, int accumulate) {
  const size_t packed_bytes = (size_t)malc_packed_size_bf16(inner, columns) * sizeof(float);
  const size_t scratch_bytes = (size_t)threads * MALC_SCRATCH * sizeof(float);
  const guarded all[] = { guard((size_t)left_bytes), guard((size_t)right_bytes), guard(packed_bytes) };
  float *packed = data_of(all[2], packed_bytes), *scratch = aligned_alloc(64, scratch_bytes);
  const malc_operand from = operand(memcpy(data_of(all[0], (size_t)left_bytes), left, (size_t)left_bytes), left_rows,
                                    left_columns, left_narrow);
  const malc_operand by = operand(memcpy(data_of(all[1], (size_t)right_bytes), right, (size_t)right_bytes), right_rows,
                                  right_columns, right_narrow);
  memset(scratch, -1, scratch_bytes); /* NaN: nothing of it may be read */
#pragma omp parallel num_threads(threads)
  {
    malc_pack_bf16(packed, by, inner, columns);
#pragma omp barrier
    malc_begin_blocks();
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t i = 0; i < rows; i += task_rows)
      for (int64_t j = 0; j < columns; j += task_columns)
        malc_multiply_bf16(result + i * columns + j, columns, malc_operand_from(from, i, 0),
                           malc_least(task_rows, rows - i), packed, inner, j, malc_least(task_columns, columns - j),
                           scratch + malc_thread() * MALC_SCRATCH, accumulate);
    malc_end_blocks();
  }
  int written = 0;
  for (size_t i = 0; i < scratch_bytes; i++) written |= ((const uint8_t *)scratch)[i] != 0xff;
  for (int n = 0; n < 3; n++) munmap(all[n].pages, all[n].length);
  free(scratch);
  return written;
}
