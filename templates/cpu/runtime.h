/* runtime.h - what every generated program needs besides its kernels: how work is divided, denormal numbers, random
 * initial weights, memory. */
#ifndef MALC_RUNTIME_H
#define MALC_RUNTIME_H
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
#include "matmul.h"
#include "random.h"

/* Whether a loop of so many runs, each of some operations, is worth waking threads, which takes some microseconds. */
MALC_INLINE bool malc_is_worth(int64_t runs, int64_t operations) { return runs > 1 && runs * operations >= 4096; }

/* Divides a product whose tasks pack both operands among the threads: at most `most` in a task, its columns a multiple
 * of `step`. A task's cost, for each step of the inner dimension, is counted in multiply-adds: its own, and what
 * packing an element takes. Threads wait for the last task to end: about a quarter of one. */
MALC_STATIC malc_task malc_divide(int64_t rows, int64_t columns, int64_t step, malc_task most) {
  enum { PACK_LEFT = 16, PACK_RIGHT = 32, ROUNDS = 4 };
  const int64_t threads = omp_get_num_threads(), runs = (columns + step - 1) / step;
  const int64_t fewest_rows = (rows + most.rows - 1) / most.rows;
  const int64_t fewest_columns = (columns + most.columns - 1) / most.columns;
  malc_task best = most;
  double least = INFINITY;
  for (int64_t across = fewest_columns; across <= malc_least(runs, fewest_columns + ROUNDS * threads); across++) {
    const int64_t width = (runs + across - 1) / across * step, chunks = (columns + width - 1) / width;
    if (malc_least(width, columns) > most.columns) continue;
    for (int64_t round = 1; round <= ROUNDS; round++) {
      const int64_t wanted = (round * threads + chunks - 1) / chunks;
      const int64_t down = wanted > fewest_rows ? wanted : fewest_rows, even = (rows + down - 1) / down;
      const int64_t height = (even + MALC_TILE_ROWS - 1) / MALC_TILE_ROWS * MALC_TILE_ROWS;
      const int64_t tasks = chunks * ((rows + height - 1) / height);
      const double task = (double)(height * width + PACK_LEFT * height + PACK_RIGHT * width);
      const double time = ((double)((tasks + threads - 1) / threads) + (threads > 1 ? 0.25 : 0)) * task;
      if (time >= least) continue;
      least = time;
      best = (malc_task){ height, width };
    }
  }
  return best;
}

/* Rows for one task of a product that has `chunks` tasks for each block of rows: few enough that every thread gets
 * several tasks, so that none waits long for the last one, and a multiple of MALC_TILE_ROWS. */
MALC_STATIC int64_t malc_task_rows(int64_t rows, int64_t chunks) {
  const int64_t wanted = (4 * omp_get_num_threads() + chunks - 1) / chunks;
  const int64_t even = (rows + wanted - 1) / wanted;
  const int64_t whole = (even + MALC_TILE_ROWS - 1) / MALC_TILE_ROWS * MALC_TILE_ROWS;
  return malc_least(whole, MALC_ROWS);
}

/* Adds up `number` tensors of `count` elements, which lie one after the other in `parts`, in that order. Opens a
 * parallel region. */
MALC_STATIC void malc_add_parts(float *sum, const float *parts, int64_t count, int64_t number, bool accumulate) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i++) {
    double total = accumulate ? sum[i] : 0.0;
    for (int64_t part = 0; part < number; part++) total += parts[part * count + i];
    sum[i] = (float)total;
  }
}

/* Copies `width` elements; `lanes` is a constant and most often the width, and then the copy is a few instructions. */
MALC_INLINE void malc_copy_lanes(float *to, const float *from, int64_t width, int64_t lanes) {
  if (width == lanes) memcpy(to, from, (size_t)lanes * sizeof *to);
  else memcpy(to, from, (size_t)width * sizeof *to);
}

/* ---- Numbers too small to be normal ---- */

/* They count as zero while a call runs, in all of its threads. Arithmetic takes a hundred times as long for them, and
 * what shrinks by a factor at every step ends there and stays: nine tenths of the smallest number is, rounded, the
 * smallest. So do the moments of an embedding whose token is not seen any more. */
#if defined(__SSE__)
MALC_INLINE uint64_t malc_control(void) { return __builtin_ia32_stmxcsr(); }
MALC_INLINE void malc_set_control(const uint64_t *control) { __builtin_ia32_ldmxcsr((uint32_t)*control); }
#define MALC_FLUSH 0x8040 /* results are flushed to zero, and operands that are denormal are zero */
#elif defined(__aarch64__)
MALC_INLINE uint64_t malc_control(void) {
  uint64_t control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
MALC_INLINE void malc_set_control(const uint64_t *control) { __asm__ volatile("msr fpcr, %0" : : "r"(*control)); }
#define MALC_FLUSH (1 << 24)
#else
MALC_INLINE uint64_t malc_control(void) { return 0; }
MALC_INLINE void malc_set_control(const uint64_t *control) { (void)control; }
#define MALC_FLUSH 0
#endif

/* Chooses the threads, and how they count; returns how the calling thread counted before. */
MALC_STATIC uint64_t malc_enter(int32_t threads) {
  const uint64_t before = malc_control(), flushing = before | MALC_FLUSH;
  omp_set_num_threads(threads);
#pragma omp parallel
  malc_set_control(&flushing);
  return before;
}

/* A call: from here to the end of the function, however it is left. The calling thread, which is the caller's, then
 * counts as it did before. */
#define MALC_CALL(threads) \
  const uint64_t malc_before __attribute__((cleanup(malc_set_control), unused)) = malc_enter(threads)

/* ---- Random initial weights ---- */

/* Normal numbers by Box and Muller (1958). Element i depends on seed, stream and i alone. */
MALC_STATIC void malc_normal(float *values, int64_t count, float deviation, uint64_t seed, uint32_t stream) {
#pragma omp parallel for schedule(static)
  for (int64_t quad = 0; quad < (count + 3) / 4; quad++) {
    uint32_t bits[4] = { (uint32_t)quad, (uint32_t)(quad >> 32), stream, 0 };
    malc_philox(bits, (uint32_t)seed, (uint32_t)(seed >> 32));
    for (int64_t n = 0; n < 4 && quad * 4 + n < count; n++) {
      const double radius = sqrt(-2.0 * log((bits[n & 2] + 1.0) / 4294967296.0));
      const double angle = 6.283185307179586 * bits[n | 1] / 4294967296.0;
      values[quad * 4 + n] = (float)(deviation * radius * (n & 1 ? sin(angle) : cos(angle)));
    }
  }
}

/* Numbers whose softplus is uniform between 0.001 and 0.1 on a logarithmic scale: where Mamba's step sizes start. */
static __attribute__((unused)) void malc_time_steps(float *values, int64_t count, uint64_t seed, uint32_t stream) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits[4] = { (uint32_t)i, (uint32_t)(i >> 32), stream, 0 };
    malc_philox(bits, (uint32_t)seed, (uint32_t)(seed >> 32));
    const double step = 0.001 * pow(100.0, bits[0] / 4294967296.0);
    values[i] = (float)(step + log(-expm1(-step))); /* softplus inverted */
  }
}

/* Zeros, by all threads: one alone does not reach the memory's bandwidth. */
static __attribute__((unused)) void malc_clear(float *values, int64_t count) {
  enum { piece = 1 << 18 };
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < count; first += piece)
    memset(values + first, 0, (size_t)malc_least(piece, count - first) * sizeof *values);
}

/* Zeros that free() gives back; null where there is no memory. Large pages where the system has them: matrices walk
 * through memory in strides, and with pages of 4 KB nearly every step would be a miss of the address cache. */
MALC_STATIC void *malc_take(int64_t bytes) {
  enum { page = 2 << 20 };
  const size_t size = (size_t)(bytes + page - 1) / page * page;
  void *memory = aligned_alloc(page, size);
  if (!memory) return NULL;
#ifdef MADV_HUGEPAGE
  madvise(memory, size, MADV_HUGEPAGE); /* advice: it may be refused */
#endif
  malc_clear(memory, bytes / (int64_t)sizeof(float));
  return memory;
}
#endif
