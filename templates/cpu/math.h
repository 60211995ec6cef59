/* math.h - the scalar functions of generated programs, in float32, written so that compilers vectorize them.
 *
 * No branch, no table, no call: once inlined, a loop under `#pragma omp simd` becomes vector code without -ffast-math;
 * -fno-math-errno and -fno-trapping-math are needed. The polynomials are minimax fits on the intervals that the
 * comments name. The largest error relative to the exact result, where that is not denormal, with fused multiply-add
 * (test/cpu-kernels.test.ts measures it):
 *
 *   exp 1e-7   exp2 1.9e-7   log 1.2e-7   tanh 2e-7   sigmoid 2e-7
 *   erf 1.2e-7   sin, cos 1.3e-7   rsqrt 1.2e-7   pow 6.1e-8
 *
 * NaN stays NaN. Results of exp and exp2 below 2^-125 become 0, which keeps slow denormals out of a softmax. */
#ifndef MALC_MATH_H
#define MALC_MATH_H
#include <stdint.h>

#define MALC_INLINE static inline __attribute__((always_inline, unused))
#define MALC_INFINITY __builtin_inff()
#define MALC_NAN __builtin_nanf("")

MALC_INLINE uint32_t malc_bits(float x) {
  union { float number; uint32_t bits; } both = { .number = x };
  return both.bits;
}

MALC_INLINE float malc_from_bits(uint32_t bits) {
  union { uint32_t bits; float number; } both = { .bits = bits };
  return both.number;
}

MALC_INLINE float malc_abs(float x) { return __builtin_fabsf(x); }
MALC_INLINE float malc_sqrt(float x) { return __builtin_sqrtf(x); }
MALC_INLINE float malc_rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
MALC_INLINE float malc_floor(float x) { return __builtin_floorf(x); }
MALC_INLINE float malc_min(float a, float b) { return a < b || a != a ? a : b; }
MALC_INLINE float malc_max(float a, float b) { return a > b || a != a ? a : b; }

/* e^x = 2^n e^r with n = round(x / ln 2), so |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer and leaves it in
 * the lowest bits of the sum; the 126 added besides makes those bits the exponent field of 2^(n - 1). */
MALC_INLINE float malc_exp(float x) {
  const float rounder = 0x1.8p23f + 126.0f;
  const float limited = x > 89.0f ? 89.0f : x; /* e^89 is infinite already */
  const float shifted = limited * 1.44269504f + rounder;
  const float n = shifted - rounder;
  const float r = (limited - n * 0x1.62e4p-1f) - n * 1.42860677e-6f; /* ln 2 in two parts: n times the first is exact */
  float p = 1.38144637e-3f;
  p = p * r + 8.36878177e-3f;
  p = p * r + 4.16683927e-2f;
  p = p * r + 1.66665196e-1f;
  p = p * r + 4.99999940e-1f;
  p = p * (r * r) + r + 1.0f;
  const float half = malc_from_bits(malc_bits(shifted) << 23); /* 2^(n - 1): 2^128 would not fit */
  return x < -86.6433976f ? 0.0f : p * half * 2.0f;
}

/* 2^x for x <= 127, as malc_exp has e^x, here with the bits of 2^n itself. The polynomial is a minimax fit to 9.2e-8 on
 * [-1/2, 1/2]. */
MALC_INLINE float malc_exp2(float x) {
  const float rounder = 0x1.8p23f + 127.0f;
  const float shifted = x + rounder;
  const float r = x - (shifted - rounder);
  float p = 1.32647271e-3f;
  p = p * r + 9.67151265e-3f;
  p = p * r + 5.55073374e-2f;
  p = p * r + 2.40222421e-1f;
  p = p * r + 6.93146978e-1f;
  p = p * r + 1.0f;
  return x < -125.0f ? 0.0f : p * malc_from_bits(malc_bits(shifted) << 23);
}

/* log x = n ln 2 + log(1 + f) with 1 + f in [2/3, 4/3): f is exact and small near x = 1, where the result is small. */
MALC_INLINE float malc_log(float x) {
  const int denormal = x < 0x1p-126f;
  const uint32_t bits = malc_bits(denormal ? x * 0x1p23f : x);
  const int32_t exponent = (int32_t)(bits - 0x3f2aaaabu) >> 23;
  const float f = malc_from_bits(bits - ((uint32_t)exponent << 23)) - 1.0f;
  const float n = (float)(denormal ? exponent - 23 : exponent);
  float p = -1.28916711e-1f;
  p = p * f + 1.39843851e-1f;
  p = p * f - 1.21842623e-1f;
  p = p * f + 1.40058801e-1f;
  p = p * f - 1.66804880e-1f;
  p = p * f + 2.00104058e-1f;
  p = p * f - 2.49997973e-1f;
  p = p * f + 3.33332151e-1f;
  p = p * f - 0.5f;
  const float result = n * 0x1.62e4p-1f + (p * (f * f) + (n * 1.42860677e-6f + f));
  const float positive = x < MALC_INFINITY ? result : x; /* infinity and NaN are their own logarithms */
  return x > 0.0f || x != x ? positive : x == 0.0f ? -MALC_INFINITY : MALC_NAN;
}

/* log(1 + x) = log y + log((1 + x) / y) for y, what 1 + x rounds to; the second is what the rounding lost, over y. */
MALC_INLINE float malc_log1p(float x) {
  const float y = 1.0f + x;
  const float lost = (x - (y - 1.0f)) / y;
  return malc_log(y) + (y > 0.0f && y < MALC_INFINITY ? lost : 0.0f);
}

MALC_INLINE float malc_sigmoid(float x) { return 1.0f / (1.0f + malc_exp(-x)); }

/* An odd polynomial below 0.55, where 1 - 2 / (1 + e^2|x|) would cancel. */
MALC_INLINE float malc_tanh(float x) {
  const float z = x * x;
  float p = 1.64375827e-2f;
  p = p * z - 5.26718162e-2f;
  p = p * z + 1.33207247e-1f;
  p = p * z - 3.33329469e-1f;
  const float small = p * z * x + x;
  const float large = 1.0f - 2.0f / (1.0f + malc_exp(2.0f * malc_abs(x)));
  return malc_abs(x) < 0.55f ? small : __builtin_copysignf(large, x);
}

/* An odd polynomial below 0.9; above, 1 - e^-q with q(|x|) a fit to -log(erfc |x|). At 4, erf is 1 in float32. */
MALC_INLINE float malc_erf(float x) {
  const float z = x * x;
  float p = -6.09036302e-4f;
  p = p * z + 5.01196319e-3f;
  p = p * z - 2.67789084e-2f;
  p = p * z + 1.12821408e-1f;
  p = p * z - 3.76125246e-1f;
  p = p * z + 1.28379151e-1f;
  const float small = p * x + x;
  const float a = malc_abs(x) > 4.0f ? 4.0f : malc_abs(x);
  float q = -1.98218404e-4f;
  q = q * a + 3.06547899e-3f;
  q = q * a - 2.23151725e-2f;
  q = q * a + 1.04113601e-1f;
  q = q * a + 6.36976182e-1f;
  q = q * a + 1.12779725f;
  q = q * a + 1.66458238e-4f;
  const float large = 1.0f - malc_exp(-q);
  return malc_abs(x) < 0.9f ? small : __builtin_copysignf(large, x);
}

/* sin(x + quarters * pi / 2). The nearest multiple of pi/2 is taken off in double with pi/2 in two parts (Cody and
 * Waite), which is exact to |x| = 1.6e6. Beyond 2^29 a float32 angle means nothing: the result is NaN. */
MALC_INLINE float malc_sine(float x, int32_t quarters) {
  const int sensible = malc_abs(x) <= 0x1p29f;
  const double angle = sensible ? x : 0.0f;
  const double n = (angle * 0.63661977236758134 + 0x1.8p52) - 0x1.8p52;
  const float r = (float)((angle - n * 1.57079632673412561) - n * 6.07710050650619225e-11);
  const float z = r * r;
  const float sine = ((-1.95149580e-4f * z + 8.33215844e-3f) * z - 1.66666552e-1f) * z * r + r;
  const float cosine = (((2.44327857e-5f * z - 1.38873130e-3f) * z + 4.16666456e-2f) * z - 0.5f) * z + 1.0f;
  const int32_t quadrant = (int32_t)n + quarters;
  const float value = quadrant & 1 ? cosine : sine;
  return sensible ? (quadrant & 2 ? -value : value) : MALC_NAN;
}

MALC_INLINE float malc_sin(float x) { return malc_sine(x, 0); }
MALC_INLINE float malc_cos(float x) { return malc_sine(x, 1); }

/* |x|^y = 2^(y log2 |x|) in double: y multiplies the logarithm's error. Special cases as in C's pow, but
 * minus infinity to a fraction is NaN, as for every negative base. */
MALC_INLINE float malc_pow(float x, float y) {
  const float magnitude = malc_abs(x);
  const int denormal = magnitude < 0x1p-126f;
  const uint32_t bits = malc_bits(denormal ? magnitude * 0x1p23f : magnitude);
  const int32_t exponent = (int32_t)(bits - 0x3f2aaaabu) >> 23;
  const double mantissa = malc_from_bits(bits - ((uint32_t)exponent << 23));
  const double s = (mantissa - 1.0) / (mantissa + 1.0), z = s * s; /* log m = 2 artanh s */
  double logarithm = 0.29079801621546286;
  logarithm = logarithm * z + 0.31928804658730237;
  logarithm = logarithm * z + 0.41222607926890814;
  logarithm = logarithm * z + 0.57707775677674690;
  logarithm = logarithm * z + 0.96179669482038540;
  logarithm = logarithm * z + 2.88539008177742700;
  logarithm = logarithm * s + (double)(denormal ? exponent - 23 : exponent);
  double power = logarithm == 0.0 ? 0.0 : y * logarithm;
  power = power > 200.0 ? 200.0 : power < -200.0 ? -200.0 : power; /* past both ends of float32 */
  const double rounder = 0x1.8p52 + 1023.0; /* as in malc_exp */
  union { double number; uint64_t bits; } shifted = { .number = power + rounder }, scale;
  const double r = power - (shifted.number - rounder);
  double p = 1.5201900554502759e-5;
  p = p * r + 1.5469316849689568e-4;
  p = p * r + 1.3333922852176187e-3;
  p = p * r + 9.6180271743778310e-3;
  p = p * r + 5.5504103528414630e-2;
  p = p * r + 2.4022651198739714e-1;
  p = p * r + 6.9314718072872110e-1;
  p = p * r + 1.0;
  scale.bits = shifted.bits << 52;
  float result = (float)(p * scale.number);

  result = magnitude < MALC_INFINITY ? result : (y > 0.0f ? MALC_INFINITY : 0.0f);
  result = magnitude == 0.0f ? (y > 0.0f ? 0.0f : MALC_INFINITY) : result;
  const int whole = malc_floor(y) == y;
  const int odd = whole && malc_floor(0.5f * y) * 2.0f != y;
  result = x < 0.0f ? (!whole ? MALC_NAN : odd ? -result : result) : result;
  result = x != x || y != y ? MALC_NAN : result;
  return y == 0.0f || x == 1.0f ? 1.0f : result;
}

#endif
