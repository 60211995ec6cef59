/* tune.c - times one product under a given schedule, so that `--autotune` can compare candidates.
 *
 * Built by the same compiler with the same flags as generated programs, of the same headers, and divided, packed and
 * multiplied as they do it. */
#include "runtime.h"
#include "matmul_bf16.h"
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

enum { FEWEST_SAMPLES = 3 };

/* Of what is multiplied: float32 numbers; bfloat16 ones, of which the rows lie in memory as float32 or as bfloat16. */
enum { FLOATS, ROUNDED, NARROW };

typedef struct {
  int64_t rows, inner, columns;
  int32_t left_transposed, right_transposed;
  int32_t numbers;
  int32_t tiles; /* 0 where the product goes right where it belongs, else it goes to the thread's own scratch */
  int64_t step;
  malc_task most;
  int64_t depth;
  float *left, *right, *result, *scratch;
  int64_t own; /* floats of each thread's scratch, of which a tile follows the first `packing` */
  int64_t packing;
} malc_trial;

/* Floats from row to row of a tile. */
static int64_t tile_width(const malc_trial *trial) {
  return (trial->most.columns + MALC_PANEL - 1) / MALC_PANEL * MALC_PANEL;
}

/* Every thread of a parallel region calls it. */
static void multiply_floats(const malc_trial *trial) {
  const int64_t rows = trial->rows, columns = trial->columns, inner = trial->inner;
  float *scratch = trial->scratch + malc_thread() * trial->own, *own_tile = scratch + trial->packing;
  const bool across = trial->left_transposed, down = trial->right_transposed;
  const malc_matrix left = { trial->left, across ? 1 : inner, across ? rows : 1 };
  const malc_matrix right = { trial->right, down ? 1 : columns, down ? inner : 1 };
  const malc_task task = malc_divide(rows, columns, trial->step, trial->most);
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
  for (int64_t i = 0; i < rows; i += task.rows)
    for (int64_t j = 0; j < columns; j += task.columns) {
      const malc_matrix from = { left.data + i * left.row_stride, left.row_stride, left.column_stride };
      float *tile = trial->tiles ? own_tile : trial->result + i * columns + j;
      malc_multiply_packing(tile, trial->tiles ? tile_width(trial) : columns, from, malc_least(task.rows, rows - i),
                            malc_columns(right, j), inner, malc_least(task.columns, columns - j), trial->depth,
                            scratch, false);
    }
}

/* The same of bfloat16 numbers, the right operand packed: packing it is no task's work. */
static void multiply_blocks(const malc_trial *trial) {
  const int64_t rows = trial->rows, columns = trial->columns, inner = trial->inner;
  float *scratch = trial->scratch + malc_thread() * trial->own, *own_tile = scratch + trial->packing;
  const bool across = trial->left_transposed;
  const malc_operand left = { trial->left, across ? 1 : inner, across ? rows : 1, trial->numbers == NARROW };
  malc_begin_blocks();
  const malc_task task = malc_divide_blocks(rows, columns, trial->step, inner, trial->most);
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
  for (int64_t j = 0; j < columns; j += task.columns)
    for (int64_t i = 0; i < rows; i += task.rows) {
      const int64_t width = malc_least(task.columns, columns - j), end = malc_least(rows, i + task.rows);
      const int64_t high = trial->tiles ? MALC_BLOCK_ROWS : end - i; /* rows that are finished at once */
      for (int64_t top = i; top < end; top += high) {
        float *tile = trial->tiles ? own_tile : trial->result + top * columns + j;
        malc_multiply_bf16(tile, trial->tiles ? tile_width(trial) : columns, malc_operand_from(left, top, 0),
                           malc_least(high, end - top), trial->right, inner, j, width, scratch, false);
      }
    }
  malc_end_blocks();
}

/* Seconds of the product of [rows][inner] and [inner][columns], the best of the samples that fit in `seconds`; -1 where
 * there is no memory for it. An operand lies with its columns contiguous where it is transposed. */
double malc_tune(int64_t rows, int64_t inner, int64_t columns, int32_t left_transposed, int32_t right_transposed,
                 int32_t numbers, int32_t tiles, int64_t step, int64_t task_rows, int64_t task_columns, int64_t depth,
                 int32_t threads, double seconds) {
  omp_set_num_threads(threads);
  malc_trial trial = { rows, inner, columns, left_transposed, right_transposed, numbers, tiles, step,
                       { task_rows, task_columns }, depth, NULL, NULL, NULL, NULL, 0, 0 };
  const bool floats = numbers == FLOATS;
  const int64_t width = tile_width(&trial), high = floats ? task_rows : MALC_ROWS;
  trial.packing = floats ? depth * (MALC_STRIP_MOST + width) : MALC_SCRATCH;
  trial.own = trial.packing + (tiles ? high * width : 0);
  const int64_t right = floats ? inner * columns : malc_packed_size_bf16(inner, columns);
  const int64_t counts[] = { rows * inner, right, rows * columns, trial.own * threads };
  int64_t total = 0;
  for (int n = 0; n < 4; n++) total += (counts[n] + 15) / 16 * 16;
  float *const memory = malc_take(total * (int64_t)sizeof(float));
  if (!memory) return -1;
  float **const parts[4] = { &trial.left, &trial.right, &trial.result, &trial.scratch };
  float *free_from = memory;
  for (int n = 0; n < 4; n++) {
    *parts[n] = free_from;
    free_from += (counts[n] + 15) / 16 * 16;
  }
  const double until = now() + seconds;
  double least = INFINITY;
  for (int sample = 0; sample < FEWEST_SAMPLES || now() < until; sample++) {
    const double began = now();
#pragma omp parallel
    {
      if (floats) multiply_floats(&trial);
      else multiply_blocks(&trial);
    }
    const double took = now() - began;
    if (took < least) least = took;
  }
  free(memory);
  return least;
}
