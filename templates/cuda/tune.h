// tune.h - times a product in several ways, by turns, so that `--autotune` can choose: the generated tune.cu has the
// model's own kernels, and says what each is handed.
//
// A product's buffers are there several times, more than the second-level cache holds, and launches take one set after
// another. Launches of a way are a graph, as in a step: none waits for the host.
#pragma once
#include <cmath>
#include <vector>
#include "cublas.h"
#include "random.h"

/* What a buffer begins with: numbers from -1 to 1 as float32 or as bfloat16, for it takes more power to multiply them
 * than zeros; or zeros, for indices. */
enum class malc_filling { floats, narrow, zeros };

struct malc_buffer {
  int64_t bytes;
  malc_filling filling;
};

/* An address, whatever is there. */
struct malc_address {
  void *there;
  template <class T>
  operator T *() const {
    return static_cast<T *>(there);
  }
};

/* One launch of a product. */
struct malc_trial {
  int64_t batch, time;
  cudaStream_t queue;
  float *workspace;
  char *memory; /* of this launch's buffers */
  const int64_t *places;
  malc_address at(int buffer) const { return {memory + places[buffer]}; }
};

struct malc_way {
  int64_t workspace; /* bytes */
  bool asks_library; /* whether it means anything only where cuBLASLt multiplies */
};

struct malc_product {
  cudaError_t (*queue)(int way, const malc_trial &trial);
  std::vector<malc_buffer> buffers;
  std::vector<malc_way> ways;
};

static __global__ void malc_fill(void *to, int64_t elements, bool narrow) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  uint32_t bits[4] = {(uint32_t)i, (uint32_t)(i >> 32), 0, 0};
  malc_philox(bits, 1, 0);
  const float value = (float)bits[0] / 2147483648.0f - 1.0f;
  if (narrow) static_cast<__nv_bfloat16 *>(to)[i] = __float2bfloat16_rn(value);
  else static_cast<float *>(to)[i] = value;
}

/* What the device has for one product at a time. */
class malc_bench {
  const malc_product &product;
  malc_trial trial = {};
  std::vector<int64_t> places;
  int64_t size = 0; /* of a set of buffers */
  int sets = 1, next = 0;
  char *memory = nullptr, *workspace = nullptr;
  cudaEvent_t from = nullptr, to = nullptr;

  static int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

public:
  cudaError_t error = cudaSuccess; /* the first one */

  malc_bench(const malc_product &product, int64_t batch, int64_t time) : product(product) {
    trial.batch = batch, trial.time = time;
    for (const malc_buffer &buffer : product.buffers) {
      places.push_back(size);
      size += aligned(buffer.bytes);
    }
    int64_t most = 256;
    for (const malc_way &way : product.ways) most = way.workspace > most ? way.workspace : most;
    const int64_t beyond = 2 * (int64_t)malc_device_attribute(cudaDevAttrL2CacheSize);
    sets = (int)((beyond + size - 1) / size);
    sets = sets < 2 ? 2 : sets > 32 ? 32 : sets;
    note(cudaStreamCreateWithFlags(&trial.queue, cudaStreamNonBlocking));
    note(cudaEventCreate(&from));
    note(cudaEventCreate(&to));
    note(cudaMalloc((void **)&workspace, (size_t)most));
    if (cudaMalloc((void **)&memory, (size_t)(sets * size)) != cudaSuccess) {
      cudaGetLastError(); // one set, then
      sets = 1;
      note(cudaMalloc((void **)&memory, (size_t)size));
    }
    trial.workspace = reinterpret_cast<float *>(workspace);
    trial.places = places.data();
    for (int set = 0; set < sets && error == cudaSuccess; set++) fill(memory + set * size);
  }

  ~malc_bench() {
    if (trial.queue) cudaStreamSynchronize(trial.queue);
    if (memory) cudaFree(memory);
    if (workspace) cudaFree(workspace);
    if (from) cudaEventDestroy(from);
    if (to) cudaEventDestroy(to);
    if (trial.queue) cudaStreamDestroy(trial.queue);
  }

  malc_bench(const malc_bench &) = delete;
  malc_bench &operator=(const malc_bench &) = delete;

  void note(cudaError_t found) {
    if (error == cudaSuccess) error = found;
  }

  int sets_of_buffers() const { return sets; }

  /* Queues a launch on the next buffers. */
  void queue(int way) {
    trial.memory = memory + next * size;
    next = (next + 1) % sets;
    note(product.queue(way, trial));
  }

  /* Whether this way can be taken here: it is, once. */
  bool is_possible(int way) {
    const int64_t before = malc_cublas_count;
    queue(way);
    note(cudaStreamSynchronize(trial.queue));
    return error == cudaSuccess && (!product.ways[way].asks_library || malc_cublas_count > before);
  }

  /* Seconds of what `work` queues. */
  template <class Work>
  double time(const Work &work) {
    float milliseconds = 0;
    note(cudaEventRecord(from, trial.queue));
    work(trial.queue);
    note(cudaEventRecord(to, trial.queue));
    note(cudaEventSynchronize(to));
    if (error == cudaSuccess) note(cudaEventElapsedTime(&milliseconds, from, to));
    return 1e-3 * milliseconds;
  }

  /* So many launches of a way as a graph. */
  cudaGraphExec_t capture(int way, int launches) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    note(cudaStreamBeginCapture(trial.queue, cudaStreamCaptureModeRelaxed));
    for (int n = 0; n < launches; n++) queue(way);
    note(cudaStreamEndCapture(trial.queue, &graph));
    if (error == cudaSuccess) note(cudaGraphInstantiate(&executable, graph, 0));
    if (graph) cudaGraphDestroy(graph);
    return executable;
  }

private:
  void fill(char *set) {
    for (size_t n = 0; n < places.size(); n++) {
      const malc_buffer &buffer = product.buffers[n];
      const bool narrow = buffer.filling == malc_filling::narrow;
      const int64_t elements = buffer.bytes / (narrow ? 2 : 4);
      void *const start = set + places[n];
      if (buffer.filling == malc_filling::zeros) note(cudaMemsetAsync(start, 0, (size_t)buffer.bytes, trial.queue));
      else
        note(malc_launch(malc_fill, (unsigned)((elements + 255) / 256), 256, 0, trial.queue, start, elements, narrow));
    }
  }
};

/* Times every way of a product: rounds by turns, each of about so many seconds, of which the quickest counts. Leaves
 * the seconds of a launch in `took`, -1 for a way that cannot be taken here. Returns what went wrong, or null; `took`
 * has NaN for the way in which it did. */
inline const char *malc_measure(const malc_product &product, int64_t batch, int64_t time, int rounds, double seconds,
                                double *took) {
  constexpr int most = 128; // launches of a graph
  malc_bench bench(product, batch, time);
  const int ways = (int)product.ways.size();
  int taken = -1; // the way that was taken last
  std::vector<cudaGraphExec_t> graphs(ways);
  std::vector<int> launches(ways);
  for (int way = 0; way < ways && bench.error == cudaSuccess; way++) {
    took[way] = -1, taken = way;
    if (!bench.is_possible(way)) continue;
    const double once = bench.time([&](cudaStream_t) { bench.queue(way); });
    const double wanted = once > 0 ? ceil(seconds / once) : 1;
    const int least = bench.sets_of_buffers();
    launches[way] = wanted < least ? least : wanted > most ? most : (int)wanted;
    graphs[way] = bench.capture(way, launches[way]);
    took[way] = INFINITY;
  }
  for (int round = 0; round < rounds && bench.error == cudaSuccess; round++)
    for (int way = 0; way < ways && bench.error == cudaSuccess; way++) {
      if (!graphs[way]) continue;
      taken = way;
      const double all = bench.time([&](cudaStream_t queue) { bench.note(cudaGraphLaunch(graphs[way], queue)); });
      if (all / launches[way] < took[way]) took[way] = all / launches[way];
    }
  for (cudaGraphExec_t graph : graphs)
    if (graph) cudaGraphExecDestroy(graph);
  if (bench.error == cudaSuccess) return nullptr;
  if (taken >= 0) took[taken] = NAN;
  return cudaGetErrorString(bench.error);
}
