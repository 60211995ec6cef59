// tune.h - times a computation in several ways, by turns, so that `--autotune` can choose: the generated tune.cu has
// the model's own kernels, and says what each is handed.
//
// The buffers are there several times, more than the second-level cache holds, and launches take one set after another.
// Launches of a way are a graph, as in a step: none waits for the host. A way that fails is left out, as long as the
// device goes on.
#pragma once
#include <cmath>
#include <string>
#include <vector>
#include "cublas.h"
#include "random.h"

/* What a buffer begins with: numbers from -1 to 1 as float32 or as bfloat16, for it takes more power to multiply them
 * than zeros; or integers, below `count` and about as many of each; or the bounds of documents of `count` positions. */
enum class malc_filling { floats, narrow, integers, bounds };

struct malc_buffer {
  int64_t bytes;
  malc_filling filling;
  unsigned count;
};

/* An address, whatever is there. */
struct malc_address {
  void *there;
  template <class T>
  operator T *() const {
    return static_cast<T *>(there);
  }
};

/* One run of the computation. */
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

struct malc_computation {
  cudaError_t (*queue)(int way, const malc_trial &trial);
  std::vector<malc_buffer> buffers;
  std::vector<malc_way> ways;
};

static __global__ void malc_fill(void *to, int64_t elements, malc_filling filling, unsigned count) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  uint32_t bits[4] = {(uint32_t)i, (uint32_t)(i >> 32), 0, 0};
  malc_philox(bits, 1, 0);
  const float value = (float)bits[0] / 2147483648.0f - 1.0f;
  if (filling == malc_filling::integers) static_cast<int32_t *>(to)[i] = (int32_t)(bits[0] % count);
  else if (filling == malc_filling::bounds) static_cast<int32_t *>(to)[i] = (int32_t)(i % 2 * count);
  else if (filling == malc_filling::narrow) static_cast<__nv_bfloat16 *>(to)[i] = __float2bfloat16_rn(value);
  else static_cast<float *>(to)[i] = value;
}

/* What the device has for one computation at a time. */
class malc_bench {
  const malc_computation &computation;
  malc_trial trial = {};
  std::vector<int64_t> places;
  int64_t size = 0; /* of a set of buffers */
  int sets = 1, next = 0;
  char *memory = nullptr, *workspace = nullptr;
  cudaEvent_t from = nullptr, to = nullptr;

  static int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

public:
  cudaError_t error = cudaSuccess; /* the first one */

  malc_bench(const malc_computation &computation, int64_t batch, int64_t time) : computation(computation) {
    trial.batch = batch, trial.time = time;
    for (const malc_buffer &buffer : computation.buffers) {
      places.push_back(size);
      size += aligned(buffer.bytes);
    }
    int64_t most = 256;
    for (const malc_way &way : computation.ways) most = way.workspace > most ? way.workspace : most;
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

  /* Forgets what went wrong. False where the device does not go on. */
  bool goes_on() {
    cudaGetLastError();
    const cudaError_t still = cudaStreamSynchronize(trial.queue);
    if (still == cudaSuccess) error = cudaSuccess;
    return still == cudaSuccess;
  }

  int sets_of_buffers() const { return sets; }

  /* Queues a launch on the next buffers. */
  void queue(int way) {
    trial.memory = memory + next * size;
    next = (next + 1) % sets;
    note(computation.queue(way, trial));
  }

  /* Whether this way can be taken here: it is, once. */
  bool is_possible(int way) {
    const int64_t before = malc_cublas_count;
    queue(way);
    note(cudaStreamSynchronize(trial.queue));
    return error == cudaSuccess && (!computation.ways[way].asks_library || malc_cublas_count > before);
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
      const malc_buffer &buffer = computation.buffers[n];
      const int64_t elements = buffer.bytes / (buffer.filling == malc_filling::narrow ? 2 : 4);
      note(malc_launch(malc_fill, (unsigned)((elements + 255) / 256), 256, 0, trial.queue, set + places[n], elements,
                       buffer.filling, buffer.count));
    }
  }
};

/* Why ways of the computation that was measured last failed; empty where they did not. */
inline std::vector<std::string> malc_failures;

/* Times every way of a computation whose `took` is not NaN: rounds by turns, each of about so many seconds, of which
 * the quickest counts. Leaves the seconds of a launch in `took`, -1 for a way that cannot be taken here, and NaN for
 * one that fails. Returns null, or what went wrong where the device does not go on. */
inline const char *malc_measure(const malc_computation &computation, int64_t batch, int64_t time, int rounds,
                                double seconds, double *took) {
  constexpr int most = 128; // launches of a graph
  const int ways = (int)computation.ways.size();
  malc_failures.assign(ways, "");
  static std::string lost;
  malc_bench bench(computation, batch, time);
  lost = bench.error == cudaSuccess ? "" : cudaGetErrorString(bench.error);
  std::vector<cudaGraphExec_t> graphs(ways);
  std::vector<int> launches(ways);
  const auto measure = [&](int way, const auto &work) {
    if (!lost.empty() || std::isnan(took[way])) return;
    work();
    if (bench.error == cudaSuccess) return;
    took[way] = NAN;
    malc_failures[way] = cudaGetErrorString(bench.error);
    if (!bench.goes_on()) lost = malc_failures[way];
  };
  for (int way = 0; way < ways; way++)
    measure(way, [&] {
      took[way] = -1;
      if (!bench.is_possible(way)) return;
      const double once = bench.time([&](cudaStream_t) { bench.queue(way); });
      const double wanted = once > 0 ? ceil(seconds / once) : 1;
      const int least = bench.sets_of_buffers();
      launches[way] = wanted < least ? least : wanted > most ? most : (int)wanted;
      graphs[way] = bench.capture(way, launches[way]);
      took[way] = INFINITY;
    });
  for (int round = 0; round < rounds; round++)
    for (int way = 0; way < ways; way++)
      if (graphs[way])
        measure(way, [&] {
          const double all = bench.time([&](cudaStream_t queue) { bench.note(cudaGraphLaunch(graphs[way], queue)); });
          if (all / launches[way] < took[way]) took[way] = all / launches[way];
        });
  for (cudaGraphExec_t graph : graphs)
    if (graph) cudaGraphExecDestroy(graph);
  return lost.empty() ? nullptr : lost.c_str();
}
