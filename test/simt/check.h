// check.h - small tests in CUDA C++: TEST(name) must hold in several schedules, FAULT(name, words) be reported in them.
//
// A program lists its tests with no argument, and runs those that its arguments name: a line for each, `ok` or `failed`.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>
#include "launch.h"

namespace check {
struct Test {
  const char *name, *fault; // words of the expected report; null: none is expected
  void (*body)();
};
inline std::vector<Test> tests;
inline std::string failure;
struct Registration {
  Registration(const char *name, const char *fault, void (*body)()) { tests.push_back({name, fault, body}); }
};

inline void fail(const std::string &text) {
  if (failure.empty()) failure = text;
}
inline void succeeded(cudaError_t error, const char *call) {
  if (error != cudaSuccess) fail(std::string(call) + ": " + cudaGetErrorString(error));
}
inline void expect_near(double actual, double expected, double tolerance, const std::string &what) {
  if (actual != expected && !(std::fabs(actual - expected) <= tolerance))
    fail(what + ": " + std::to_string(actual) + " instead of " + std::to_string(expected));
}
inline void expect(double actual, double expected, const std::string &what) { expect_near(actual, expected, 0, what); }

/* An array in device memory. */
template <class T>
class Device {
  T *start = nullptr;
  size_t count;

 public:
  explicit Device(size_t count) : count(count) {
    succeeded(cudaMalloc(reinterpret_cast<void **>(&start), count * sizeof(T)), "cudaMalloc");
  }
  explicit Device(const std::vector<T> &values) : Device(values.size()) {
    succeeded(cudaMemcpy(start, values.data(), count * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Device(const Device &) = delete;
  ~Device() { cudaFree(start); }
  operator T *() const { return start; }
  std::vector<T> read() const {
    std::vector<T> values(count);
    succeeded(cudaMemcpy(values.data(), start, count * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
};

/* Small numbers that bfloat16 and tf32 hold exactly, the same ones every time. */
inline float number(size_t i) { return static_cast<float>(static_cast<int>(i * 2654435761u >> 7 & 15) - 7) / 8; }
inline std::vector<__nv_bfloat16> bf16_numbers(size_t count) {
  std::vector<__nv_bfloat16> values(count);
  for (size_t i = 0; i < count; i++) values[i] = number(i);
  return values;
}

/* On a GPU, which has a schedule of its own each time, tests only run more often. */
inline void schedule(unsigned seed) {
#ifdef MALC_SIMT
  simt::schedule(seed);
#else
  (void)seed;
#endif
}

inline bool run(const Test &test) {
  for (unsigned seed = 0; seed < 4 && failure.empty(); seed++) {
    schedule(seed);
    test.body();
    const cudaError_t error = cudaDeviceSynchronize();
    const std::string report = cudaGetErrorString(error);
    if (!test.fault) {
      succeeded(error, "cudaDeviceSynchronize");
    } else {
      // What is reported first may depend on the schedule; that something is must not.
      failure = error != cudaErrorLaunchFailure                             ? "nothing was reported"
                : seed == 0 && report.find(test.fault) == std::string::npos ? "the report is: " + report
                                                                            : "";
    }
    if (!failure.empty()) failure = "schedule " + std::to_string(seed) + ": " + failure;
    cudaDeviceReset();
  }
  printf("%s %s %s\n", failure.empty() ? "ok" : "failed", test.name, failure.c_str());
  const bool passed = failure.empty();
  failure.clear();
  return passed;
}
} // namespace check

#define TEST(name)                                                                   \
  static void test_##name();                                                         \
  static const check::Registration registration_##name(#name, nullptr, test_##name); \
  static void test_##name()
#define FAULT(name, words)                                                         \
  static void test_##name();                                                       \
  static const check::Registration registration_##name(#name, words, test_##name); \
  static void test_##name()
#define LAUNCH(...) check::succeeded(malc_launch(__VA_ARGS__), "malc_launch")

int main(int count, char **names) {
  bool passed = true;
  for (const check::Test &test : check::tests) {
    if (count == 1) printf("%s\n", test.name);
    for (int i = 1; i < count; i++)
      if (std::string(names[i]) == test.name) passed = check::run(test) && passed;
  }
  return passed ? 0 : 1;
}
