// instructions.h - the machine instructions behind malc's CUDA kernels: the only place with inline PTX.
//
// Each is a plain function: inline PTX where nvcc compiles, a call of the emulator in test/simt where g++ does
// (MALC_SIMT). Here are those of sm_80 and up; instructions_sm90.h adds sm_90a's. Shared memory is named by 32-bit
// addresses (shared_address); fragments are as in the PTX manual's figures: lane l holds row l/4, columns 2(l%4).
#pragma once

// PTX(what the emulator does, template : outputs : inputs) is one of the two. DEVICE marks these functions.
#ifdef MALC_SIMT
#include "simt.h"
#define PTX(emulated, ...) emulated
#define DEVICE inline __attribute__((always_inline))
#else
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#define PTX(emulated, ...) asm volatile(__VA_ARGS__)
#define DEVICE __device__ __forceinline__
#endif

// ---- Shared memory ----

/* The dynamic shared memory of this block, 1024-byte aligned: as many bytes as the launch asked for. */
DEVICE unsigned char *dynamic_shared() {
#ifdef MALC_SIMT
  return simt::dynamic_shared();
#else
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  return dynamic_shared_memory;
#endif
}

/* The address that instructions know a place in shared memory by. */
DEVICE uint32_t shared_address(const void *pointer) {
#ifdef MALC_SIMT
  return simt::shared_address(pointer);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

// ---- Asynchronous copies from global to shared memory ----

/* Starts a copy of 4, 8 or 16 bytes, both sides aligned to as many, of which only the first `read` are read: the others
 * are zeros. It has happened, for this thread, after a cp_async_wait that covers its group; for others after a barrier
 * that follows. */
template <int Bytes>
DEVICE void cp_async_part(uint32_t shared, const void *global, int read) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (Bytes == 16) // past the first-level cache, which only this size may
    PTX(simt::cp_async(shared, global, 16, read), "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared),
        "l"(global), "r"(read) : "memory");
  else
    PTX(simt::cp_async(shared, global, Bytes, read), "cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared),
        "l"(global), "n"(Bytes), "r"(read) : "memory");
}

/* The same of all bytes, or where not valid, of none. */
template <int Bytes>
DEVICE void cp_async(uint32_t shared, const void *global, bool valid = true) {
  cp_async_part<Bytes>(shared, global, valid ? Bytes : 0);
}

/* Closes this thread's group of copies; a group may be empty. */
DEVICE void cp_async_commit() { PTX(simt::cp_async_commit(), "cp.async.commit_group;" ::: "memory"); }

/* Waits until at most the `Pending` newest groups of this thread are under way. */
template <int Pending>
DEVICE void cp_async_wait() {
  PTX(simt::cp_async_wait(Pending), "cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// ---- Matrices of 8x8 16-bit elements between shared memory and a warp's registers ----

/* Loads 1, 2 or 4 matrices: lane 8m + r gives the 16-byte aligned address of row r of matrix m. */
DEVICE void ldmatrix(uint32_t (&r)[1], uint32_t row) {
  PTX(simt::ldmatrix(r, 1, row, false), "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(row)
      : "memory");
}
DEVICE void ldmatrix(uint32_t (&r)[2], uint32_t row) {
  PTX(simt::ldmatrix(r, 2, row, false), "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]),
      "=r"(r[1]) : "r"(row) : "memory");
}
DEVICE void ldmatrix(uint32_t (&r)[4], uint32_t row) {
  PTX(simt::ldmatrix(r, 4, row, false), "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]),
      "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

/* The same, each matrix transposed on its way. */
DEVICE void ldmatrix_transposed(uint32_t (&r)[1], uint32_t row) {
  PTX(simt::ldmatrix(r, 1, row, true), "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0])
      : "r"(row) : "memory");
}
DEVICE void ldmatrix_transposed(uint32_t (&r)[2], uint32_t row) {
  PTX(simt::ldmatrix(r, 2, row, true), "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]),
      "=r"(r[1]) : "r"(row) : "memory");
}
DEVICE void ldmatrix_transposed(uint32_t (&r)[4], uint32_t row) {
  PTX(simt::ldmatrix(r, 4, row, true), "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}

// ---- Tensor cores ----

/* d += a b: a [16][16] bfloat16 in four registers, b [16][8] in two, d [16][8] float32. a's registers are (row, k),
 * (row + 8, k), (row, k + 8), (row + 8, k + 8); b's (k, column), (k + 8, column), column = lane / 4. */
DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  PTX(simt::mma_bf16(d, a, b0, b1), "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* d += a b: a [16][8] tf32 in four registers (row, k), (row + 8, k), (row, k + 4), (row + 8, k + 4), k = lane % 4,
 * b [8][8] in two, d as above. The low 13 bits of each operand are not looked at: give it what to_tf32 rounded. */
DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  PTX(simt::mma_tf32(d, a, b0, b1), "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Rounds to tf32 (8 bits of exponent, 10 of fraction), ties away from zero. */
DEVICE uint32_t to_tf32(float value) {
  uint32_t rounded;
  PTX(rounded = simt::to_tf32(value), "cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
  return rounded;
}

// ---- Arithmetic ----

/* Two floats rounded to bfloat16 (ties to even) in one register, `low` in its low half. */
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  PTX(packed = simt::pack_bf16(low, high), "cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/* The less and the greater; NaN if one is. */
DEVICE float least_or_nan(float a, float b) {
  float result;
  PTX(result = a < b || a != a ? a : b, "min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
DEVICE float greatest_or_nan(float a, float b) {
  float result;
  PTX(result = a > b || a != a ? a : b, "max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

/* 2^x and tanh x by the special function unit: about 2 units in the last place, and 2^-11 relative. */
DEVICE float exp2_approximate(float x) {
  float result;
  PTX(result = exp2f(x), "ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
DEVICE float tanh_approximate(float x) {
  float result;
  PTX(result = tanhf(x), "tanh.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// ---- Barriers among some of a block's threads ----

/* Waits until `threads` threads, a multiple of 32, have come to barrier `id` (1 to 15; 0 is __syncthreads). */
DEVICE void barrier_sync(int id, int threads) {
  PTX(simt::barrier_sync(id, threads), "bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Counts as come to barrier `id`, and does not wait. */
DEVICE void barrier_arrive(int id, int threads) {
  PTX(simt::barrier_arrive(id, threads), "bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#if defined(MALC_SIMT) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#include "instructions_sm90.h"
#endif
