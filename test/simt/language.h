// language.h - CUDA's words and types for g++: qualifiers, vector types, threadIdx and its kin, memory accesses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if !defined(__GNUC__) || defined(__clang__)
#error "the emulator needs g++: its race detector stands on how that instruments memory accesses"
#endif

#define SIMT_INLINE inline __attribute__((always_inline))

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// The emulator finds a program's shared variables as the thread-local ones of its module, and gives each block its own.
#define __shared__ thread_local

// Vector types, with the alignment that decides how wide an access is.
#define SIMT_VECTOR(type, name, align1, align2, align4)                            \
  struct name##1 { type x; };                                                      \
  struct alignas(align2) name##2 { type x, y; };                                   \
  struct name##3 { type x, y, z; };                                                \
  struct alignas(align4) name##4 { type x, y, z, w; };                             \
  SIMT_INLINE name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  SIMT_INLINE name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  SIMT_INLINE name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SIMT_VECTOR(signed char, char, 1, 2, 4)
SIMT_VECTOR(unsigned char, uchar, 1, 2, 4)
SIMT_VECTOR(short, short, 2, 4, 8)
SIMT_VECTOR(unsigned short, ushort, 2, 4, 8)
SIMT_VECTOR(int, int, 4, 8, 16)
SIMT_VECTOR(unsigned, uint, 4, 8, 16)
SIMT_VECTOR(float, float, 4, 8, 16)
SIMT_VECTOR(long long, longlong, 8, 16, 16)
SIMT_VECTOR(unsigned long long, ulonglong, 8, 16, 16)
SIMT_VECTOR(double, double, 8, 16, 16)
#undef SIMT_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Constants to each thread: the emulator sets them whenever it goes on with a thread.
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace simt {
void sync_threads();
void sync_warp(unsigned mask);

enum class Update {
  add,
  minimum,
  maximum,
  signed_minimum,
  signed_maximum,
  exchange,
  compare,
  increment,
  both,
  either,
  differ
};
/* One atomic read and write of 4 or 8 bytes; returns the old value. */
uint64_t atomic(void *address, unsigned bytes, Update update, uint64_t operand, uint64_t compare);
} // namespace simt

SIMT_INLINE void __syncthreads() { simt::sync_threads(); }
SIMT_INLINE void __syncwarp(unsigned mask = 0xffffffffu) { simt::sync_warp(mask); }
/* Fences order memory, not threads: in the emulator every write is seen at once, and races are found without them. */
SIMT_INLINE void __threadfence() {}
SIMT_INLINE void __threadfence_block() {}

// Loads and stores with a hint to the caches: plain ones here.
template <class T>
SIMT_INLINE T __ldg(const T *address) {
  return *address;
}
template <class T>
SIMT_INLINE T __ldcg(const T *address) {
  return *address;
}
template <class T>
SIMT_INLINE T __ldcs(const T *address) {
  return *address;
}
template <class T>
SIMT_INLINE void __stcg(T *address, T value) {
  *address = value;
}
template <class T>
SIMT_INLINE void __stcs(T *address, T value) {
  *address = value;
}

// Integer atomics. Those of floats add in an order that changes from run to run, and are refused where they are called.
#define SIMT_ATOMIC(name, type, update)                                                              \
  SIMT_INLINE type name(type *address, type value) {                                                 \
    return static_cast<type>(                                                                        \
        simt::atomic(address, sizeof(type), simt::Update::update, static_cast<uint64_t>(value), 0)); \
  }
SIMT_ATOMIC(atomicAdd, int, add)
SIMT_ATOMIC(atomicAdd, unsigned, add)
SIMT_ATOMIC(atomicAdd, unsigned long long, add)
SIMT_ATOMIC(atomicMin, int, signed_minimum)
SIMT_ATOMIC(atomicMin, unsigned, minimum)
SIMT_ATOMIC(atomicMax, int, signed_maximum)
SIMT_ATOMIC(atomicMax, unsigned, maximum)
SIMT_ATOMIC(atomicExch, int, exchange)
SIMT_ATOMIC(atomicExch, unsigned, exchange)
SIMT_ATOMIC(atomicInc, unsigned, increment)
SIMT_ATOMIC(atomicAnd, unsigned, both)
SIMT_ATOMIC(atomicOr, unsigned, either)
SIMT_ATOMIC(atomicXor, unsigned, differ)
#undef SIMT_ATOMIC
SIMT_INLINE unsigned atomicCAS(unsigned *address, unsigned compare, unsigned value) {
  return static_cast<unsigned>(simt::atomic(address, 4, simt::Update::compare, value, compare));
}
float atomicAdd(float *address, float value) = delete;
double atomicAdd(double *address, double value) = delete;
