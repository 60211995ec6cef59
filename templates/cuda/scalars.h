// scalars.h - the scalar functions of generated kernels, in float32: CUDA's own where they are exact to a few units in
// the last place, under the names that all targets print.
#pragma once
#include <math.h>
#include "instructions.h"

DEVICE float malc_abs(float x) { return fabsf(x); }
DEVICE float malc_sqrt(float x) { return sqrtf(x); }
DEVICE float malc_rsqrt(float x) { return rsqrtf(x); }
DEVICE float malc_floor(float x) { return floorf(x); }
/* NaN stays NaN. */
DEVICE float malc_min(float a, float b) { return least_or_nan(a, b); }
DEVICE float malc_max(float a, float b) { return greatest_or_nan(a, b); }
DEVICE float malc_exp(float x) { return expf(x); }
/* Good to 2 units in the last place and x times 2^-24: for what is made of numbers of bfloat16. */
DEVICE float malc_exp_of_bf16(float x) { return exp2_approximate(1.4426950408889634f * x); }
DEVICE float malc_log(float x) { return logf(x); }
DEVICE float malc_log1p(float x) { return log1pf(x); }
/* Without the branches of an exact division: 2 units in the last place, and 0 for a divisor of 2^126 or more. */
DEVICE float malc_sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }
DEVICE float malc_tanh(float x) { return tanhf(x); }
DEVICE float malc_erf(float x) { return erff(x); }
/* An angle in half turns, less whole turns. These go in float64: sinf's own way needs local memory for large angles. */
DEVICE float malc_half_turns(float x) {
  const double turns = x * 0.3183098861837907; // 1 / pi
  return static_cast<float>(turns - 2.0 * rint(0.5 * turns));
}
DEVICE float malc_sin(float x) { return sinpif(malc_half_turns(x)); }
DEVICE float malc_cos(float x) { return cospif(malc_half_turns(x)); }
DEVICE float malc_pow(float x, float y) { return powf(x, y); }
