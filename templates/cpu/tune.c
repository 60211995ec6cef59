/* tune.c - times one product of float32 under a given schedule, so that `--autotune` can compare candidates.
 *
 * Built by the same compiler with the same flags as generated programs, of the same headers, and divided, packed and
 * multiplied as they do it. */
#include "runtime.h"
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

enum { FEWEST_SAMPLES = 3 };

/* Seconds of the product of [rows][inner] and [inner][columns], the best of the samples that fit in `seconds`; -1 where
 * there is no memory for it. An operand lies with its columns contiguous where it is transposed. `tiles`: 0 where the
 * product goes right where it belongs, else it goes to the thread's own scratch. */
double malc_tune(int64_t rows, int64_t inner, int64_t columns, int32_t left_transposed, int32_t right_transposed,
                 int32_t tiles, int64_t step, int64_t task_rows, int64_t task_columns, int64_t depth, int32_t threads,
                 double seconds) {
  omp_set_num_threads(threads);
  const int64_t whole = (task_columns + MALC_PANEL - 1) / MALC_PANEL * MALC_PANEL;
  const int64_t packing = depth * (MALC_STRIP_MOST + whole), own = packing + (tiles ? task_rows * whole : 0);
  const int64_t counts[] = { rows * inner, inner * columns, rows * columns, own * threads };
  int64_t total = 0;
  for (int n = 0; n < 4; n++) total += (counts[n] + 15) / 16 * 16;
  float *const memory = malc_take(total * (int64_t)sizeof(float));
  if (!memory) return -1;
  float *parts[4] = { memory };
  for (int n = 1; n < 4; n++) parts[n] = parts[n - 1] + (counts[n - 1] + 15) / 16 * 16;
  const malc_matrix left = { parts[0], left_transposed ? 1 : inner, left_transposed ? rows : 1 };
  const malc_matrix right = { parts[1], right_transposed ? 1 : columns, right_transposed ? inner : 1 };
  const double until = now() + seconds;
  double least = INFINITY;
  for (int sample = 0; sample < FEWEST_SAMPLES || now() < until; sample++) {
    const double began = now();
#pragma omp parallel
    {
      float *scratch = parts[3] + malc_thread() * own;
      const malc_task task = malc_divide(rows, columns, step, (malc_task){ task_rows, task_columns });
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
      for (int64_t i = 0; i < rows; i += task.rows)
        for (int64_t j = 0; j < columns; j += task.columns) {
          const malc_matrix from = { left.data + i * left.row_stride, left.row_stride, left.column_stride };
          float *tile = tiles ? scratch + packing : parts[2] + i * columns + j;
          malc_multiply_packing(tile, tiles ? whole : columns, from, malc_least(task.rows, rows - i),
                                malc_columns(right, j), inner, malc_least(task.columns, columns - j), depth, scratch,
                                false);
        }
    }
    const double took = now() - began;
    if (took < least) least = took;
  }
  free(memory);
  return least;
}
