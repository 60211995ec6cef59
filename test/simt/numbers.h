// numbers.h - bfloat16, and CUDA's names for arithmetic, bits and conversions.
#pragma once
#include <cmath>
#include "language.h"

using std::isfinite;
using std::isinf;
using std::isnan;

SIMT_INLINE unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }
SIMT_INLINE int __float_as_int(float value) { return __builtin_bit_cast(int, value); }
SIMT_INLINE float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
SIMT_INLINE float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }

// ---- bfloat16: the upper half of a float ----

struct __nv_bfloat16 {
  unsigned short bits;
  __nv_bfloat16() = default;
  /* Ties to even; a NaN becomes 0x7fff, as on the GPU. */
  __nv_bfloat16(float value) {
    const unsigned all = __float_as_uint(value);
    bits = (all & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (all + 0x7fffu + (all >> 16 & 1)) >> 16;
  }
  operator float() const { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

SIMT_INLINE __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
SIMT_INLINE __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
SIMT_INLINE float __bfloat162float(__nv_bfloat16 value) { return value; }
SIMT_INLINE unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
SIMT_INLINE __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __builtin_bit_cast(__nv_bfloat16, bits); }
SIMT_INLINE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
SIMT_INLINE __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
SIMT_INLINE __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
SIMT_INLINE __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
SIMT_INLINE float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
SIMT_INLINE float __low2float(__nv_bfloat162 v) { return v.x; }
SIMT_INLINE float __high2float(__nv_bfloat162 v) { return v.y; }

// ---- Minimum and maximum: of one type, as CUDA has them ----

#define SIMT_EXTREMES(type)                                      \
  SIMT_INLINE type min(type a, type b) { return b < a ? b : a; } \
  SIMT_INLINE type max(type a, type b) { return a < b ? b : a; }
SIMT_EXTREMES(int)
SIMT_EXTREMES(unsigned)
SIMT_EXTREMES(long)
SIMT_EXTREMES(unsigned long)
SIMT_EXTREMES(long long)
SIMT_EXTREMES(unsigned long long)
#undef SIMT_EXTREMES
SIMT_INLINE float min(float a, float b) { return fminf(a, b); }
SIMT_INLINE float max(float a, float b) { return fmaxf(a, b); }

// ---- Functions that the C library lacks; those of the special function unit are the exact ones here ----

SIMT_INLINE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
SIMT_INLINE double rsqrt(double x) { return 1.0 / sqrt(x); }
SIMT_INLINE float __expf(float x) { return expf(x); }
SIMT_INLINE float __exp2f(float x) { return exp2f(x); }
SIMT_INLINE float __logf(float x) { return logf(x); }
SIMT_INLINE float __log2f(float x) { return log2f(x); }
#if !__GLIBC_PREREQ(2, 41) // newer ones have these
SIMT_INLINE double sinpi(double x) { return sin(3.141592653589793 * x); }
SIMT_INLINE double cospi(double x) { return cos(3.141592653589793 * x); }
SIMT_INLINE float sinpif(float x) { return static_cast<float>(sinpi(x)); }
SIMT_INLINE float cospif(float x) { return static_cast<float>(cospi(x)); }
#endif
SIMT_INLINE float __sinf(float x) { return sinf(x); }
SIMT_INLINE float __cosf(float x) { return cosf(x); }
SIMT_INLINE float __powf(float x, float y) { return powf(x, y); }
SIMT_INLINE float __fdividef(float x, float y) { return x / y; }
SIMT_INLINE float __frcp_rn(float x) { return 1.0f / x; }
SIMT_INLINE float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
SIMT_INLINE float __fsqrt_rn(float x) { return sqrtf(x); }
SIMT_INLINE float __fadd_rn(float x, float y) { return x + y; }
SIMT_INLINE float __fmul_rn(float x, float y) { return x * y; }
SIMT_INLINE float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
SIMT_INLINE float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

SIMT_INLINE unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned long long>(x) * y >> 32; }
SIMT_INLINE int __mulhi(int x, int y) { return static_cast<long long>(x) * y >> 32; }
SIMT_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
SIMT_INLINE int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
SIMT_INLINE int __ffs(int x) { return __builtin_ffs(x); }
SIMT_INLINE unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (static_cast<unsigned long long>(high) << 32 | low) << (shift & 31) >> 32;
}
SIMT_INLINE int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }
SIMT_INLINE int __float2int_rz(float x) { return static_cast<int>(x); }
SIMT_INLINE float __int2float_rn(int x) { return static_cast<float>(x); }
SIMT_INLINE float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
