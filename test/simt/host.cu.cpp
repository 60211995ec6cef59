// host.cu.cpp - tests of the emulator: the CUDA runtime. Work is late, errors stick, graphs replay.
#include "check.h"

using check::Device;
using check::expect;

__global__ void increment(float *values, float by) { values[threadIdx.x] += by; }
__global__ void fail_if(const int *flag, float *out) { out[*flag ? 1 << 20 : 0] = 1; }

TEST(work_is_late) {
  Device<float> values(std::vector<float>(32, 1.0f));
  float *pinned;
  check::succeeded(cudaMallocHost(reinterpret_cast<void **>(&pinned), 128), "cudaMallocHost");
  pinned[0] = -1;
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  LAUNCH(increment, 1, 32, 0, stream, values, 2.0f);
  check::succeeded(cudaMemcpyAsync(pinned, values, 128, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  expect(pinned[0], -1, "before the synchronisation");
  check::succeeded(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  expect(pinned[0], 3, "after it");
  pinned[0] = 5;
  cudaMemcpyAsync(values, pinned, 128, cudaMemcpyHostToDevice, stream);
  pinned[0] = 6; // too early: this is what arrives
  cudaStreamSynchronize(stream);
  expect(values.read()[0], 6, "overwritten source");
  cudaStreamDestroy(stream);
}

TEST(streams_and_events) {
  Device<float> values(std::vector<float>(32, 0.0f));
  cudaStream_t first, second;
  cudaEvent_t done;
  cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
  cudaMemsetAsync(values, 0, 128, second);
  cudaEventRecord(done, second);
  cudaStreamWaitEvent(first, done);
  LAUNCH(increment, 1, 32, 0, first, values, 1.0f);
  LAUNCH(increment, 1, 32, 0, second, values, 2.0f);
  expect(cudaEventQuery(done), cudaErrorNotReady, "nothing has been recorded");
  while (cudaEventQuery(done) == cudaErrorNotReady) {
  }
  cudaDeviceSynchronize();
  expect(values.read()[7], 3, "sum");
  cudaEventDestroy(done);
  cudaStreamDestroy(first);
  cudaStreamDestroy(second);
}

TEST(graph) {
  Device<float> values(std::vector<float>(32, 0.0f));
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  cudaGraph_t recorded;
  cudaGraphExec_t executable;
  check::succeeded(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  for (int i = 0; i < 3; i++) LAUNCH(increment, 1, 32, 0, stream, values, 1.0f);
  check::succeeded(cudaStreamEndCapture(stream, &recorded), "cudaStreamEndCapture");
  check::succeeded(cudaGraphInstantiate(&executable, recorded), "cudaGraphInstantiate");
  cudaGraphDestroy(recorded);
  expect(values.read()[0], 0, "a captured launch has run");
  for (int i = 0; i < 5; i++) check::succeeded(cudaGraphLaunch(executable, stream), "cudaGraphLaunch");
  cudaStreamSynchronize(stream);
  expect(values.read()[31], 15, "sum");
  cudaGraphExecDestroy(executable);
  cudaStreamDestroy(stream);
}

TEST(graph_of_copies) {
  Device<float> values(std::vector<float>(32, 0.0f)), others(std::vector<float>(32, 5.0f));
  float *pinned;
  check::succeeded(cudaMallocHost(reinterpret_cast<void **>(&pinned), 256), "cudaMallocHost");
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  cudaGraph_t recorded;
  cudaGraphExec_t executable;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  cudaMemsetAsync(others, 0, 64, stream);
  cudaMemcpyAsync(values, pinned, 128, cudaMemcpyHostToDevice, stream);
  LAUNCH(increment, 1, 32, 0, stream, values, 1.0f);
  cudaMemcpyAsync(pinned + 32, values, 128, cudaMemcpyDeviceToHost, stream);
  check::succeeded(cudaStreamEndCapture(stream, &recorded), "cudaStreamEndCapture");
  check::succeeded(cudaGraphInstantiate(&executable, recorded), "cudaGraphInstantiate");
  for (int i = 1; i <= 3; i++) { // what is copied is what is there when the graph runs
    pinned[31] = static_cast<float>(i);
    check::succeeded(cudaGraphLaunch(executable, stream), "cudaGraphLaunch");
    cudaStreamSynchronize(stream);
    expect(pinned[63], i + 1, "copied, incremented and copied back");
  }
  expect(others.read()[15], 0, "cleared");
  expect(others.read()[16], 5, "beyond what is cleared");
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(recorded);
  cudaStreamDestroy(stream);
}

/* Whether a call is refused while a stream is captured, and spoils the graph. */
template <class Call>
static void breaks_a_capture(const char *name, Call call) {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaGraph_t recorded;
  check::succeeded(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  expect(call(stream), cudaErrorStreamCaptureUnsupported, name);
  expect(cudaStreamEndCapture(stream, &recorded), cudaErrorStreamCaptureUnsupported, std::string(name) + ", ending");
  expect(recorded == nullptr, 1, std::string(name) + ", graph");
  cudaStreamDestroy(stream);
}

TEST(waiting_breaks_a_capture) {
  Device<float> values(32);
  static float pageable[32];
  void *memory;
  cudaEvent_t event;
  cudaEventCreate(&event);
  breaks_a_capture("cudaStreamSynchronize", [](cudaStream_t stream) { return cudaStreamSynchronize(stream); });
  breaks_a_capture("cudaDeviceSynchronize", [](cudaStream_t) { return cudaDeviceSynchronize(); });
  breaks_a_capture("cudaStreamQuery", [](cudaStream_t stream) { return cudaStreamQuery(stream); });
  breaks_a_capture("cudaEventSynchronize", [=](cudaStream_t) { return cudaEventSynchronize(event); });
  breaks_a_capture("cudaMalloc", [&](cudaStream_t) { return cudaMalloc(&memory, 4); });
  breaks_a_capture("cudaMallocHost", [&](cudaStream_t) { return cudaMallocHost(&memory, 4); });
  breaks_a_capture("cudaFree", [&](cudaStream_t) { return cudaFree(values); });
  breaks_a_capture("cudaMemcpy", [&](cudaStream_t) { return cudaMemcpy(pageable, values, 128, cudaMemcpyDefault); });
  breaks_a_capture("cudaMemset", [&](cudaStream_t) { return cudaMemset(values, 0, 128); });
  breaks_a_capture("a launch on the default stream",
                   [&](cudaStream_t) { return malc_launch(increment, 1, 32, 0, nullptr, values, 1.0f); });
  breaks_a_capture("a copy to pageable memory", [&](cudaStream_t stream) {
    return cudaMemcpyAsync(pageable, values, 128, cudaMemcpyDeviceToHost, stream);
  });
  breaks_a_capture("a copy from pageable memory", [&](cudaStream_t stream) {
    return cudaMemcpyAsync(values, pageable, 128, cudaMemcpyHostToDevice, stream);
  });
  cudaEventDestroy(event);
}

TEST(a_fault_in_a_graph) {
  Device<int> flag(std::vector<int>{1});
  Device<float> out(std::vector<float>(32, 0.0f));
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  cudaGraph_t recorded;
  cudaGraphExec_t executable;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
  LAUNCH(fail_if, 1, 1, 0, stream, flag, out);
  cudaStreamEndCapture(stream, &recorded);
  cudaGraphInstantiate(&executable, recorded);
  expect(cudaGraphLaunch(executable, stream), cudaSuccess, "the launch of the graph");
  expect(cudaStreamSynchronize(stream), cudaErrorLaunchFailure, "the wait");
  expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaErrorLaunchFailure, "a capture after it");
  cudaDeviceReset();
}

TEST(blocking_launches) {
  Device<int> flag(std::vector<int>{1});
  Device<float> out(std::vector<float>(32, 0.0f));
  setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
  expect(malc_launch(increment, 1, 32, 0, nullptr, out, 1.0f), cudaSuccess, "a launch that is right");
  expect(malc_launch(fail_if, 1, 1, 0, nullptr, flag, out), cudaErrorLaunchFailure, "one that fails");
  unsetenv("CUDA_LAUNCH_BLOCKING");
  cudaDeviceReset();
}

TEST(errors_stick) {
  Device<int> flag(std::vector<int>{1});
  Device<float> out(std::vector<float>(32, 0.0f));
  LAUNCH(fail_if, 1, 1, 0, nullptr, flag, out);
  expect(cudaPeekAtLastError(), cudaSuccess, "before the kernel has run");
  expect(cudaDeviceSynchronize(), cudaErrorLaunchFailure, "the wait");
  expect(malc_launch(increment, 1, 32, 0, nullptr, out, 1.0f), cudaErrorLaunchFailure, "the next launch");
  expect(cudaGetLastError(), cudaErrorLaunchFailure, "the last error");
  expect(cudaGetLastError(), cudaErrorLaunchFailure, "and it stays");
  if (std::string(cudaGetErrorString(cudaErrorLaunchFailure)).find("kernel fail_if") != 0)
    check::fail("the report names no kernel");
  cudaDeviceReset();
  expect(cudaDeviceSynchronize(), cudaSuccess, "after a reset");
}

TEST(wrong_arguments) {
  Device<float> values(32);
  float host[64] = {};
  expect(malc_launch(increment, 1, 1025, 0, nullptr, values, 1.0f), cudaErrorInvalidConfiguration, "1025 threads");
  expect(malc_launch(increment, 0, 32, 0, nullptr, values, 1.0f), cudaErrorInvalidConfiguration, "no blocks");
  expect(malc_launch(increment, 1, 32, 300000, nullptr, values, 1.0f), cudaErrorInvalidConfiguration, "shared memory");
  // What an A100 has, and a Hopper GPU.
  for (const auto &[capability, most] : {std::pair{"8.0", 163u * 1024}, std::pair{"9.0", 227u * 1024}}) {
    setenv("MALC_SIMT_CAPABILITY", capability, 1);
    expect(malc_launch(increment, 1, 32, most, nullptr, values, 1.0f), cudaSuccess, capability);
    expect(malc_launch(increment, 1, 32, most + 4, nullptr, values, 1.0f), cudaErrorInvalidConfiguration, capability);
  }
  unsetenv("MALC_SIMT_CAPABILITY");
  expect(malc_launch(increment, malc_grid(3).clusters_of(2), 32, 0, nullptr, values, 1.0f),
         cudaErrorInvalidConfiguration, "half a cluster");
  expect(cudaMemcpy(host, values, 132, cudaMemcpyDeviceToHost), cudaErrorInvalidValue, "a copy of too much");
  expect(cudaFree(host), cudaErrorInvalidValue, "what is not the device's");
  cudaGetLastError();
}
