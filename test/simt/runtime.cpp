// runtime.cpp - the CUDA runtime: memory, streams, events, graphs. A stream's work is done when something waits for it.
#include "runtime.h"
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>
#include "machine.h"
#include "memory.h"

typedef std::function<void()> Work;

namespace {
/* A failed launch: every later call returns it, as on a GPU. */
struct Failure {
  cudaError_t error = cudaSuccess;
  std::string text;
} failure;
cudaError_t last_error = cudaSuccess;
simt_graph *captured = nullptr; // what calls are recorded into

cudaError_t result(cudaError_t error) {
  if (failure.error != cudaSuccess) error = failure.error;
  if (error != cudaSuccess) last_error = error;
  return error;
}
} // namespace

struct simt_event {
  unsigned recorded = 0, done = 0; // how often asked to, and how often it has come to pass
  std::chrono::steady_clock::time_point at;
};
struct simt_graph {
  std::vector<Work> work;
  bool broken = false;
};
struct simt_graph_exec {
  std::shared_ptr<const std::vector<Work>> work;
};
struct simt_step {
  Work work;
  cudaEvent_t waits_for = nullptr; // goes on when this has been recorded as often as `times`
  unsigned times = 0;
};
struct simt_stream {
  std::deque<simt_step> steps;
  simt_graph *capture = nullptr;
};

namespace {
std::vector<simt_stream *> streams{new simt_stream}; // the first is the default stream
simt_stream *stream_of(cudaStream_t stream) { return stream ? stream : streams[0]; }

/* One step of any stream that can go on. */
bool advance() {
  for (simt_stream *stream : streams) {
    if (stream->steps.empty()) continue;
    simt_step &front = stream->steps.front();
    if (front.waits_for && front.waits_for->done < front.times) continue;
    const simt_step step = std::move(front);
    stream->steps.pop_front();
    if (step.work && failure.error == cudaSuccess) step.work();
    return true;
  }
  return false;
}

/* Whether a call that waits, allocates or uses the default stream may be made: not while a stream is captured. */
bool forbidden() {
  if (!captured) return false;
  captured->broken = true;
  return true;
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
  simt_stream *const target = stream_of(stream);
  if (target == streams[0] && forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  if (target->capture)
    target->capture->work.push_back(std::move(work));
  else
    target->steps.push_back({std::move(work)});
  return result(cudaSuccess);
}

/* Whether each launch is waited for, as $CUDA_LAUNCH_BLOCKING says. */
bool launches_block() {
  const char *const blocking = getenv("CUDA_LAUNCH_BLOCKING");
  return blocking && strcmp(blocking, "1") == 0;
}

cudaError_t finish(const std::function<bool()> &done) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  while (!done() && advance()) {
  }
  return result(cudaSuccess);
}

bool reachable(const void *start, size_t bytes) {
  return !simt::is_device_address(start) || simt::is_allocated(simt::Place::device, start, bytes);
}
} // namespace

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorSharedObjectInitFailed: return "shared object initialization failed";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorLaunchFailure: return failure.text.empty() ? "unspecified launch failure" : failure.text.c_str();
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
  }
  return "unrecognized error code";
}
cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = failure.error;
  return error;
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}
/* 8.0, or what MALC_SIMT_CAPABILITY says, such as 9.0. */
static const char *capability() {
  const char *const said = getenv("MALC_SIMT_CAPABILITY");
  return said ? said : "8.0";
}
/* Bytes of shared memory that a block may ask for: 163 KB of an A100, 227 KB of a Hopper GPU. */
static int most_shared_bytes() { return (atoi(capability()) >= 9 ? 227 : 163) * 1024; }
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break; // few, so that persistent kernels loop
    case cudaDevAttrL2CacheSize: *value = 1 << 16; break; // small, so that little is beyond it
    case cudaDevAttrComputeCapabilityMajor: *value = atoi(capability()); break;
    case cudaDevAttrComputeCapabilityMinor: *value = atoi(strchr(capability(), '.') + 1); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = most_shared_bytes(); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = most_shared_bytes() + 1024; break;
    default: return result(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  return finish([] { return false; });
}
cudaError_t cudaDeviceReset() {
  for (simt_stream *stream : streams) {
    stream->steps.clear();
    stream->capture = nullptr;
  }
  captured = nullptr;
  simt::release_all_memory();
  failure = Failure();
  last_error = cudaSuccess;
  return cudaSuccess;
}

static cudaError_t give_memory(simt::Place place, void **pointer, size_t bytes) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  *pointer = simt::allocate(place, bytes);
  return result(*pointer || bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation);
}
static cudaError_t take_memory(simt::Place place, void *pointer) {
  const cudaError_t error = cudaDeviceSynchronize();
  if (error != cudaSuccess) return error;
  return result(!pointer || simt::release_memory(place, pointer) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMalloc(void **pointer, size_t bytes) { return give_memory(simt::Place::device, pointer, bytes); }
cudaError_t cudaFree(void *pointer) { return take_memory(simt::Place::device, pointer); }
cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return give_memory(simt::Place::host, pointer, bytes); }
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void *pointer) { return take_memory(simt::Place::host, pointer); }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *total = size_t{32} << 30;
  *available = *total - simt::allocated_bytes(simt::Place::device);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (!reachable(to, bytes) || !reachable(from, bytes)) return result(cudaErrorInvalidValue);
  const bool from_pageable = !simt::is_device_address(from) && !simt::is_allocated(simt::Place::host, from, bytes);
  const bool to_pageable = !simt::is_device_address(to) && !simt::is_allocated(simt::Place::host, to, bytes);
  if ((from_pageable || to_pageable) && stream_of(stream)->capture) { // by the time of the replay it may be gone
    forbidden();
    return result(cudaErrorStreamCaptureUnsupported);
  }
  if (from_pageable) { // staged before the call returns
    auto staged =
        std::make_shared<std::vector<char>>(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    return enqueue(stream, [=] { memcpy(to, staged->data(), bytes); });
  }
  const cudaError_t error = enqueue(stream, [=] { memmove(to, from, bytes); });
  return error == cudaSuccess && to_pageable ? cudaStreamSynchronize(stream) : error;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t before = cudaDeviceSynchronize();
  if (before != cudaSuccess) return before;
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  if (!reachable(to, bytes)) return result(cudaErrorInvalidValue);
  return enqueue(stream, [=] { memset(to, value, bytes); });
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  streams.push_back(*stream = new simt_stream);
  return result(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t error = cudaStreamSynchronize(stream);
  std::erase(streams, stream);
  delete stream;
  return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return finish([=] { return stream_of(stream)->steps.empty(); });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  advance();
  const cudaError_t error = result(cudaSuccess);
  return error == cudaSuccess && !stream_of(stream)->steps.empty() ? cudaErrorNotReady : error;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  simt_stream *const target = stream_of(stream);
  if (captured) { // recorded one after the other, in an order that the events allow
    target->capture = captured;
    return result(cudaSuccess);
  }
  target->steps.push_back({nullptr, event, event->recorded});
  return result(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
  *event = new simt_event;
  return result(cudaSuccess);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const cudaError_t error = cudaEventSynchronize(event);
  delete event;
  return error;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (!stream_of(stream)->capture) event->recorded++;
  return enqueue(stream, [=] {
    event->done++;
    event->at = std::chrono::steady_clock::now();
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return finish([=] { return event->done >= event->recorded; });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  advance();
  const cudaError_t error = result(cudaSuccess);
  return error == cudaSuccess && event->done < event->recorded ? cudaErrorNotReady : error;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
  if (from->done == 0 || to->done == 0) return result(cudaErrorInvalidResourceHandle);
  if (from->done < from->recorded || to->done < to->recorded) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return result(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (failure.error != cudaSuccess) return result(failure.error);
  if (captured || !stream) return result(cudaErrorStreamCaptureUnsupported); // the default stream cannot be captured
  stream->capture = captured = new simt_graph;
  return result(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (!captured || stream->capture != captured) return result(cudaErrorInvalidValue);
  for (simt_stream *other : streams) other->capture = nullptr;
  *graph = captured;
  captured = nullptr;
  if (!(*graph)->broken) return result(cudaSuccess);
  delete *graph;
  *graph = nullptr;
  return result(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
  *executable = new simt_graph_exec{std::make_shared<std::vector<Work>>(graph->work)};
  return result(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (!executable) return result(cudaErrorInvalidValue);
  return enqueue(stream, [work = executable->work] {
    for (const Work &step : *work)
      if (failure.error == cudaSuccess) step();
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return result(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return result(cudaSuccess);
}

cudaError_t simt::queue(Call *call, const void *kernel, dim3 grid, dim3 block, unsigned cluster, bool overlaps,
                        unsigned shared_bytes, cudaStream_t stream, bool checked) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  auto launch = std::make_shared<Launch>(
      Launch{std::unique_ptr<Call>(call), kernel, grid, block, cluster, shared_bytes, overlaps, checked});
  if (threads == 0 || threads > 1024 || block.z > 64 || blocks == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
      grid.z > 65535 || shared_bytes > static_cast<unsigned>(most_shared_bytes()) || cluster == 0 || cluster > 8 || grid.x % cluster != 0)
    return result(cudaErrorInvalidConfiguration);
  const cudaError_t error = enqueue(stream, [launch] {
    run(*launch);
    if (!machine.fault.empty()) failure = {cudaErrorLaunchFailure, machine.fault};
  });
  if (error != cudaSuccess || stream_of(stream)->capture || !launches_block()) return error;
  return cudaStreamSynchronize(stream);
}
