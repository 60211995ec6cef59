// ceilings.cu - what this GPU can do at most, measured: memory copied, read and changed in place, the largest product of
// matrices by malc's own kernel, and the time between launches.
//
//   ceilings BYTES SIZE LAUNCHES
//
// Arrays of BYTES, far more than the caches hold; a product of SIZE x SIZE matrices; LAUNCHES that do nothing. Each is the
// best of several samples, for nothing makes a device faster than it is; the product's median is given too, for it heats.
// Prints one JSON object: bytes a second, operations a second, seconds a launch.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "launch.h"
#include "product_bf16.h"

static void succeed(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s\n", cudaGetErrorString(error));
  exit(1);
}

static __global__ void copy(const float4 *from, float4 *to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) to[i] = from[i];
}

/* Writes nothing, but must read everything to know that. */
static __global__ void read(const float4 *from, float4 *to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  float sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const float4 value = from[i];
    sum += value.x + value.y + value.z + value.w;
  }
  if (sum == 1.25f) to[0] = float4{sum, 0, 0, 0};
}

static __global__ void update(const float4 *, float4 *to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const float4 value = to[i];
    to[i] = float4{value.x * 0.5f, value.y * 0.5f, value.z * 0.5f, value.w * 0.5f};
  }
}

/* Numbers from -1 to 1 that no compression helps with: a product of zeros takes less power and runs faster. */
static __global__ void fill(__nv_bfloat16 *to, int64_t count, uint32_t seed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint32_t bits = (static_cast<uint32_t>(i) + seed) * 2654435761u;
  bits = (bits ^ bits >> 15) * 2246822519u;
  to[i] = __float2bfloat16(static_cast<float>(bits >> 8) * (2.0f / 16777216) - 1);
}

typedef malc_tile_bf16<128, 128, 64, 32, 4> Tile;

static __global__ void __launch_bounds__(Tile::threads)
    product(const __nv_bfloat16 *left, const __nv_bfloat16 *right, __nv_bfloat16 *result, int size) {
  const malc_operand<__nv_bfloat16, malc_side::inner, 8> rows{{left}, size}, columns{{right}, size};
  const malc_tiles tiles(size, size, Tile::rows, Tile::columns);
  Tile tile(tiles.place(blockIdx.x));
  tile.multiply(rows, columns, 0, size);
  tile.template finish<1, 4>([&](const auto &sums, int64_t row, int64_t column) {
    float values[4];
    sums.four(values, 0, row, column);
    malc_elements<__nv_bfloat16, 4> rounded;
    for (int i = 0; i < 4; i++) rounded.values[i] = __float2bfloat16(values[i]);
    *reinterpret_cast<malc_elements<__nv_bfloat16, 4> *>(result + row * size + column) = rounded;
  });
}

static __global__ void nothing() {}

/* Seconds of a sample between two events, sorted; one sample before them warms up. */
template <class Work>
static std::vector<double> seconds(int samples, const Work &work) {
  cudaEvent_t from, to;
  succeed(cudaEventCreate(&from));
  succeed(cudaEventCreate(&to));
  std::vector<double> all;
  for (int n = -1; n < samples; n++) {
    succeed(cudaEventRecord(from));
    work();
    succeed(cudaEventRecord(to));
    succeed(cudaEventSynchronize(to));
    float milliseconds = 0;
    succeed(cudaEventElapsedTime(&milliseconds, from, to));
    if (n >= 0) all.push_back(milliseconds / 1e3);
  }
  std::sort(all.begin(), all.end());
  return all;
}

static double bytes_a_second(void (*kernel)(const float4 *, float4 *, int64_t), int64_t bytes, int touched) {
  int multiprocessors = 1;
  succeed(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  const int64_t count = bytes / static_cast<int64_t>(sizeof(float4));
  float4 *from, *to;
  succeed(cudaMalloc(reinterpret_cast<void **>(&from), bytes));
  succeed(cudaMalloc(reinterpret_cast<void **>(&to), bytes));
  succeed(cudaMemset(from, 0, bytes));
  succeed(cudaMemset(to, 0, bytes));
  double best = 0;
  for (const int blocks : {8, 16, 32})
    best = std::max(best, 1 / seconds(6, [&] {
                               succeed(malc_launch(kernel, multiprocessors * blocks, 256, 0, nullptr, from, to, count));
                             })[0]);
  succeed(cudaFree(from));
  succeed(cudaFree(to));
  return best * static_cast<double>(bytes) * touched;
}

struct Rates {
  double best, median;
};
static Rates operations_a_second(int size) {
  const int64_t count = static_cast<int64_t>(size) * size;
  __nv_bfloat16 *matrices[3];
  for (__nv_bfloat16 *&matrix : matrices) {
    succeed(cudaMalloc(reinterpret_cast<void **>(&matrix), count * 2));
    const auto seed = static_cast<uint32_t>(&matrix - matrices);
    succeed(malc_launch(fill, static_cast<unsigned>((count + 255) / 256), 256, 0, nullptr, matrix, count, seed));
  }
  const malc_tiles tiles(size, size, Tile::rows, Tile::columns);
  const std::vector<double> all = seconds(15, [&] {
    succeed(malc_launch(product, tiles.count(), Tile::threads, Tile::shared_bytes, nullptr, matrices[0], matrices[1],
                        matrices[2], size));
  });
  for (__nv_bfloat16 *matrix : matrices) succeed(cudaFree(matrix));
  const double operations = 2.0 * static_cast<double>(count) * size;
  return {operations / all[0], operations / all[all.size() / 2]};
}

struct Gaps {
  double stream, graph;
};
static Gaps seconds_a_launch(int launches) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  succeed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const auto launch = [&] {
    for (int n = 0; n < launches; n++) succeed(malc_launch(nothing, 1, 32, 0, stream));
  };
  succeed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  launch();
  succeed(cudaStreamEndCapture(stream, &graph));
  succeed(cudaGraphInstantiate(&executable, graph, 0));
  const auto waited = [&](const auto &work) {
    return seconds(5, [&] {
             work();
             succeed(cudaStreamSynchronize(stream));
           })[0] /
           launches;
  };
  const Gaps gaps = {waited(launch), waited([&] { succeed(cudaGraphLaunch(executable, stream)); })};
  succeed(cudaGraphExecDestroy(executable));
  succeed(cudaGraphDestroy(graph));
  succeed(cudaStreamDestroy(stream));
  return gaps;
}

int main(int count, char **words) {
  if (count != 4) {
    fprintf(stderr, "usage: ceilings BYTES SIZE LAUNCHES\n");
    return 2;
  }
  const int64_t bytes = atoll(words[1]);
  const double copied = bytes_a_second(copy, bytes, 2), scanned = bytes_a_second(read, bytes, 1);
  const double updated = bytes_a_second(update, bytes, 2);
  const Rates products = operations_a_second(atoi(words[2]));
  const Gaps gaps = seconds_a_launch(atoi(words[3]));
  printf("{\"copy\": %.0f, \"read\": %.0f, \"update\": %.0f, \"product\": %.0f, \"product_median\": %.0f, "
         "\"launch_stream\": %.3e, \"launch_graph\": %.3e}\n",
         copied, scanned, updated, products.best, products.median, gaps.stream, gaps.graph);
  return 0;
}
