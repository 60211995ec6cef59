// ceilings.cu - what a GPU can do at most: multiply-adds in registers, products of bfloat16 in the tensor cores, memory
// read, copied and changed in place. A kernel's time is held against these, which the same compiler built and the same
// run measured. Each is the best of the samples that fit in some time.
//
// The functions are those of the CPU's ceilings.c; `threads`, which are its own, mean nothing here. The tensor cores
// are asked by mma.sync, as on every GPU since Ampere, or on Hopper by wgmma, which does up to half as much again.
#include <chrono>
#include "launch.h"

constexpr int THREADS = 256, BLOCKS_EACH = 8, CHAINS = 8, ROUNDS = 1 << 12, FEWEST_SAMPLES = 3, PARTS = 8;

static float *memory; // PARTS pieces, by turns: what a sample touches was last touched a whole array ago
static int64_t piece;
static float *sink; // keeps results from being optimised away

static unsigned all_blocks() {
  int multiprocessors = 1;
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
  return (unsigned)multiprocessors * BLOCKS_EACH;
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/* The best rate of a launch that does `work`, in a second; 0 where the device fails. */
template <class Launch>
static double best(double seconds, double work, Launch launch) {
  const double until = now() + seconds;
  double greatest = 0;
  for (int64_t turn = 0; turn < FEWEST_SAMPLES || now() < until; turn++) {
    const double began = now();
    if (launch(turn) != cudaSuccess || cudaDeviceSynchronize() != cudaSuccess) return 0;
    const double rate = work / (now() - began);
    if (rate > greatest) greatest = rate;
  }
  return greatest;
}

static __global__ void multiply_add(float *result, int rounds, float factor) {
  float sums[CHAINS];
  for (int n = 0; n < CHAINS; n++) sums[n] = (float)n;
  for (int round = 0; round < rounds; round++)
#pragma unroll
    for (int n = 0; n < CHAINS; n++) sums[n] = sums[n] * factor + factor;
  float total = 0;
  for (int n = 0; n < CHAINS; n++) total += sums[n];
  if (total == -1.0f) *result = total; // never: all are positive
}

static __global__ void multiply_tiles(float *result, int rounds, uint32_t pair) {
  const uint32_t left[4] = {pair, pair, pair, pair};
  float sums[CHAINS][4] = {};
  for (int round = 0; round < rounds; round++)
#pragma unroll
    for (int n = 0; n < CHAINS; n++) mma_bf16(sums[n], left, pair, pair);
  float total = 0;
  for (int n = 0; n < CHAINS; n++) total += sums[n][0] + sums[n][3];
  if (total == -1.0f) *result = total;
}

/* Two warpgroups, each with 64 rows of its own and the same 256 columns, multiply 64 inner positions four times a
 * round. Their operands stay in shared memory, which hands them over as fast as tiles of real products need it. */
constexpr int WGMMA_THREADS = 256, WGMMA_BOX = 64 * 64 * 2, WGMMA_SHARED = 6 * WGMMA_BOX;

static __global__ void __launch_bounds__(WGMMA_THREADS, 1) multiply_on_hopper(float *result, int rounds) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __nv_bfloat16 *const values = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  // Numbers from -1 to 1 that no compression helps with: a product of zeros takes less power and runs faster.
  for (uint32_t i = threadIdx.x; i < WGMMA_SHARED / 2; i += WGMMA_THREADS) {
    uint32_t bits = (i + blockIdx.x) * 2654435761u;
    bits = (bits ^ bits >> 15) * 2246822519u;
    values[i] = __float2bfloat16((float)(bits >> 8) * (2.0f / 16777216) - 1);
  }
  fence_async();
  __syncthreads();
  const uint32_t shared = shared_address(dynamic_shared());
  const uint64_t left = wgmma_descriptor(shared + threadIdx.x / 128 * WGMMA_BOX, WGMMA_BOX, 1024);
  const uint64_t right = wgmma_descriptor(shared + 2 * WGMMA_BOX, WGMMA_BOX, 1024);
  float sums[128];
  for (int n = 0; n < 128; n++) sums[n] = 0;
#pragma unroll 1
  for (int round = 0; round < rounds; round++) {
    wgmma_fence();
#pragma unroll
    for (int n = 0; n < 16; n++) wgmma<256, 0, 0>(sums, left + n % 4 * 2, right + n % 4 * 2, 1);
    wgmma_commit();
    wgmma_wait<0>(); // the other warpgroup multiplies meanwhile
  }
  float total = 0;
  for (int n = 0; n < 128; n++) total += sums[n];
  if (total == 0.1f) *result = total; // hardly ever, but the compiler cannot know
#else
  (void)result, (void)rounds;
#endif
}

static __global__ void read_all(float *result, const float4 *from, int64_t count) {
  float total = 0;
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
    const float4 four = from[i];
    total += four.x + four.y + four.z + four.w;
  }
  if (total == -1.0f) *result = total;
}

static __global__ void write_all(float4 *to, const float4 *from, int64_t count) {
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
    float4 four = from[i];
    four.x = four.x * 0.5f + 0.5f;
    to[i] = four;
  }
}

static __global__ void set_ones(float *values, int64_t count) {
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS)
    values[i] = 1.0f;
}

static float4 *piece_at(int64_t turn) { return reinterpret_cast<float4 *>(memory + turn % PARTS * piece); }
static double bytes_of_piece() { return (double)piece * sizeof(float); }

extern "C" {

/* Takes about so many bytes of the device's memory and writes them once; 0 where they cannot be had. */
int32_t malc_ceiling_reserve(int32_t threads, int64_t bytes) {
  (void)threads;
  piece = bytes / (int64_t)sizeof(float) / PARTS / 4 * 4;
  const size_t taken = (size_t)(PARTS * piece) * sizeof(float);
  if (cudaMalloc((void **)&memory, taken) != cudaSuccess || cudaMalloc((void **)&sink, sizeof(float)) != cudaSuccess)
    return 0;
  if (malc_launch(set_ones, all_blocks(), THREADS, 0, nullptr, memory, PARTS * piece) != cudaSuccess) return 0;
  return cudaDeviceSynchronize() == cudaSuccess;
}

void malc_ceiling_release(void) {
  cudaFree(memory);
  cudaFree(sink);
}

/* Float32 operations a second. */
double malc_ceiling_float32(int32_t threads, double seconds) {
  (void)threads;
  const unsigned blocks = all_blocks();
  return best(seconds, 2.0 * CHAINS * ROUNDS * THREADS * blocks, [&](int64_t) {
    return malc_launch(multiply_add, blocks, THREADS, 0, nullptr, sink, ROUNDS, 0.5f);
  });
}

/* Operations a second of products of bfloat16 that are summed in float32. */
double malc_ceiling_bfloat16(int32_t threads, double seconds) {
  (void)threads;
  if (malc_on_hopper()) {
    const auto blocks = static_cast<unsigned>(malc_multiprocessors());
    return best(seconds, 2.0 * 128 * 256 * 64 * 4 * ROUNDS * blocks, [&](int64_t) {
      return malc_launch(multiply_on_hopper, blocks, WGMMA_THREADS, WGMMA_SHARED, nullptr, sink, ROUNDS);
    });
  }
  const unsigned blocks = all_blocks();
  const double in_a_warp = 2.0 * 16 * 8 * 16 * CHAINS * ROUNDS;
  return best(seconds, in_a_warp * (THREADS / 32) * blocks, [&](int64_t) {
    return malc_launch(multiply_tiles, blocks, THREADS, 0, nullptr, sink, ROUNDS, 0u);
  });
}

/* Bytes read a second. */
double malc_ceiling_read(int32_t threads, double seconds) {
  (void)threads;
  return best(seconds, bytes_of_piece(), [&](int64_t turn) {
    return malc_launch(read_all, all_blocks(), THREADS, 0, nullptr, sink, piece_at(turn), piece / 4);
  });
}

/* Bytes a second, read and written, of a copy. */
double malc_ceiling_copy(int32_t threads, double seconds) {
  (void)threads;
  return best(seconds, 2 * bytes_of_piece(), [&](int64_t turn) {
    float4 *to = piece_at(turn + PARTS / 2);
    return malc_launch(write_all, all_blocks(), THREADS, 0, nullptr, to, piece_at(turn), piece / 4);
  });
}

/* Bytes a second, read and written, where each value is changed in place. */
double malc_ceiling_update(int32_t threads, double seconds) {
  (void)threads;
  return best(seconds, 2 * bytes_of_piece(), [&](int64_t turn) {
    return malc_launch(write_all, all_blocks(), THREADS, 0, nullptr, piece_at(turn), piece_at(turn), piece / 4);
  });
}

} // extern "C"
