// device.cu - what a GPU does with malc's own largest product of matrices, and the time between launches: a library that
// bench/gpu/ceilings.ts calls. Its functions return null, or what the CUDA runtime reports.
#include <algorithm>
#include <vector>
#include "launch.h"
#include "product_bf16.h"

static cudaError_t failure; /* the first of a call */
static void succeed(cudaError_t error) {
  if (failure == cudaSuccess) failure = error;
}
static const char *report() { return failure == cudaSuccess ? nullptr : cudaGetErrorString(failure); }

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

extern "C" {

/* Operations a second of a product of size x size matrices: the best and the median of some launches. */
const char *malc_device_product(int32_t size, double *best, double *median) {
  failure = cudaSuccess;
  const int64_t count = static_cast<int64_t>(size) * size;
  __nv_bfloat16 *matrices[3] = {};
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
  *best = operations / all[0];
  *median = operations / all[all.size() / 2];
  return report();
}

/* Seconds from one launch to the next, where a stream is given them one by one, and where a graph replays them. */
const char *malc_device_launches(int32_t launches, double *in_stream, double *in_graph) {
  failure = cudaSuccess;
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
  *in_stream = waited(launch);
  *in_graph = waited([&] { succeed(cudaGraphLaunch(executable, stream)); });
  succeed(cudaGraphExecDestroy(executable));
  succeed(cudaGraphDestroy(graph));
  succeed(cudaStreamDestroy(stream));
  return report();
}

} // extern "C"
