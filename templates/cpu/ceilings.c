/* ceilings.c - what this machine can do at most: multiply-adds in registers, and memory read, copied and changed in
 * place, on all threads.
 *
 * Built by the same compiler with the same flags as generated programs, and measured in the same run: a kernel's time
 * is held against these. Each is the best of the samples that fit in some time, as nothing makes a machine faster than
 * it is; they are taken by the same threads, which the system needs a while to spread over the cores. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#else
static void omp_set_num_threads(int threads) { (void)threads; }
#endif
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { WIDTH = 16, CHAINS = 24 };
#elif defined(__AVX__)
enum { WIDTH = 8, CHAINS = 12 };
#else
enum { WIDTH = 4, CHAINS = 24 };
#endif
enum { ROUNDS = 1 << 20 }; /* some milliseconds */
enum { FEWEST_SAMPLES = 3, PARTS = 8, STREAMS = 4, BLOCK = 1024 };

/* CHAINS independent chains of multiply-adds hide the latency of one, and fit the registers beside two constants. */
typedef float vector __attribute__((vector_size(4 * WIDTH)));

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Keeps a result from being optimised away. */
static volatile float sink;

typedef double sampler(int64_t turn);

static double best(sampler *sample, int32_t threads, double seconds) {
  omp_set_num_threads(threads);
  const double until = now() + seconds;
  double greatest = 0;
  for (int64_t turn = 0; turn < FEWEST_SAMPLES || now() < until; turn++) {
    const double rate = sample(turn);
    if (rate > greatest) greatest = rate;
  }
  return greatest;
}

static double sample_float32(int64_t turn) {
  (void)turn;
  const double began = now();
  int64_t workers = 0;
#pragma omp parallel reduction(+ : workers)
  {
    const vector scale = { 0 }, shift = scale + 0.5f;
    vector sums[CHAINS];
    for (int n = 0; n < CHAINS; n++) sums[n] = shift + (float)n;
    for (int64_t round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 24
      for (int n = 0; n < CHAINS; n++) sums[n] = sums[n] * shift + shift;
    }
    vector total = scale;
    for (int n = 0; n < CHAINS; n++) total += sums[n];
    sink = total[0];
    workers += 1;
  }
  return 2.0 * WIDTH * CHAINS * ROUNDS * (double)workers / (now() - began);
}

/* Float32 operations a second. */
double malc_ceiling_float32(int32_t threads, double seconds) { return best(sample_float32, threads, seconds); }

/* Operations a second of bf16 products summed in float32; 0 where the machine has none that are known here. Tiles (AMX)
 * are a branch of their own, to be put before this one. */
#if defined(__AVX512BF16__)
static double sample_bfloat16(int64_t turn) {
  (void)turn;
  const double began = now();
  int64_t workers = 0;
#pragma omp parallel reduction(+ : workers)
  {
    const __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f));
    __m512 sums[CHAINS];
    for (int n = 0; n < CHAINS; n++) sums[n] = _mm512_set1_ps((float)n);
    for (int64_t round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 24
      for (int n = 0; n < CHAINS; n++) sums[n] = _mm512_dpbf16_ps(sums[n], factor, factor);
    }
    __m512 total = _mm512_setzero_ps();
    for (int n = 0; n < CHAINS; n++) total = _mm512_add_ps(total, sums[n]);
    sink = _mm512_reduce_add_ps(total);
    workers += 1;
  }
  return 4.0 * 16 * CHAINS * ROUNDS * (double)workers / (now() - began); /* two products in each of 16 lanes */
}

double malc_ceiling_bfloat16(int32_t threads, double seconds) { return best(sample_bfloat16, threads, seconds); }
#else
double malc_ceiling_bfloat16(int32_t threads, double seconds) {
  (void)threads, (void)seconds;
  return 0;
}
#endif

/* An array far larger than every cache, sampled in parts by turns: what a sample touches was last touched a whole array
 * ago. */
static float *memory;
static int64_t part;

static float *part_at(int64_t turn) { return memory + turn % PARTS * part; }

/* Takes about so many bytes of memory and writes them once; 0 where they cannot be had. */
int32_t malc_ceiling_reserve(int32_t threads, int64_t bytes) {
  omp_set_num_threads(threads);
  part = bytes / (int64_t)sizeof(float) / PARTS / (STREAMS * BLOCK) * (STREAMS * BLOCK);
  memory = aligned_alloc(64, (size_t)(PARTS * part) * sizeof(float));
  if (!memory) return 0;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < PARTS * part; i++) memory[i] = 1.0f;
  return 1;
}

void malc_ceiling_release(void) { free(memory); }

/* Each thread reads from several places by turns, as kernels do: prefetching follows each of them. */
static double sample_read(int64_t turn) {
  const double began = now();
  const int64_t piece = part / STREAMS;
  const float *from = part_at(turn);
  float total = 0;
#pragma omp parallel for schedule(static) reduction(+ : total)
  for (int64_t block = 0; block < piece / BLOCK; block++) {
    vector sums[STREAMS][2] = { { { 0 } } };
    for (int64_t i = block * BLOCK; i < (block + 1) * BLOCK; i += 2 * WIDTH)
      for (int stream = 0; stream < STREAMS; stream++)
        for (int n = 0; n < 2; n++) sums[stream][n] += *(const vector *)(from + stream * piece + i + n * WIDTH);
    for (int stream = 0; stream < STREAMS; stream++) total += sums[stream][0][0] + sums[stream][1][0];
  }
  sink = total;
  return (double)part * sizeof(float) / (now() - began);
}

/* Bytes read a second. */
double malc_ceiling_read(int32_t threads, double seconds) { return best(sample_read, threads, seconds); }

static double sample_copy(int64_t turn) {
  const double began = now();
  const float *from = part_at(turn);
  float *to = part_at(turn + PARTS / 2);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < part / BLOCK; block++)
    memcpy(to + block * BLOCK, from + block * BLOCK, BLOCK * sizeof(float));
  return 2.0 * (double)part * sizeof(float) / (now() - began);
}

/* Bytes a second, read and written, of a copy. */
double malc_ceiling_copy(int32_t threads, double seconds) { return best(sample_copy, threads, seconds); }

static double sample_update(int64_t turn) {
  const double began = now();
  float *values = part_at(turn);
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < part; i++) values[i] = values[i] * 0.5f + 0.5f;
  return 2.0 * (double)part * sizeof(float) / (now() - began);
}

/* Bytes a second, read and written, where each value is changed in place. */
double malc_ceiling_update(int32_t threads, double seconds) { return best(sample_update, threads, seconds); }
