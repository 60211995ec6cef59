// cuda-attention.h - what the driver of cuda-attention.test.ts calls kernels with: copies of its arrays on the device.
#pragma once
#include <string>
#include "launch.h"
#include "scalars.h"
#include "attention_bf16_backward.h"
#include "attention_bf16_forward.h"
#include "attention_f32_backward.h"
#include "attention_f32_forward.h"
#include "attention_sm90_backward.h"
#include "attention_sm90_forward.h"
#include "attention_sm90_gradient.h"

/* The first error of a call, for its caller to read. */
inline std::string failure;
inline void check(cudaError_t error) {
  if (error != cudaSuccess && failure.empty()) failure = cudaGetErrorString(error);
}

/* The order in which threads run: any number has its own. A GPU's is never the same. */
extern "C" void schedule(uint32_t seed) {
#ifdef MALC_SIMT
  simt::schedule(seed);
#else
  (void)seed;
#endif
}

/* Whether kernels for sm_90a are launched. */
extern "C" int on_hopper() { return malc_on_hopper(); }

/* An array on the device: a copy of the host's, or of bytes that nobody has written. */
template <class T>
class Device {
  T *start = nullptr;
  size_t bytes;

public:
  explicit Device(int64_t count) : bytes(count * sizeof(T)) { check(cudaMalloc((void **)&start, bytes)); }
  Device(const void *host, int64_t count) : Device(count) {
    check(cudaMemcpy(start, host, bytes, cudaMemcpyHostToDevice));
  }
  Device(const Device &) = delete;
  ~Device() { cudaFree(start); }
  operator T *() const { return start; }
  T *get() const { return start; }
  void read(void *host) const { check(cudaMemcpy(host, start, bytes, cudaMemcpyDeviceToHost)); }
};

/* Ends a call: null, or what went wrong, after which the device begins anew. */
inline const char *finish(std::string &report) {
  report.swap(failure);
  failure.clear();
  if (report.empty()) return nullptr;
  cudaDeviceReset();
  return report.c_str();
}
