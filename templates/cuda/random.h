// random.h - counter-based random numbers: each is a function of a key and its own place, the same on every target.
#pragma once
#include "instructions.h"

/* Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011). */
__host__ __device__ inline void malc_philox(uint32_t (&counter)[4], uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
    const uint64_t a = (uint64_t)0xD2511F53u * counter[0], b = (uint64_t)0xCD9E8D57u * counter[2];
    counter[0] = (uint32_t)(b >> 32) ^ counter[1] ^ key0;
    counter[1] = (uint32_t)b;
    counter[2] = (uint32_t)(a >> 32) ^ counter[3] ^ key1;
    counter[3] = (uint32_t)a;
  }
}

/* Uniform in [0, 1), a multiple of 2^-24. `noise` holds two key words, the step's first sequence of this call, and the
 * layer; `site` is a place of the model, `low` and `high` are an element's number within a sequence. */
DEVICE float malc_uniform(const int32_t *noise, int64_t sequence, uint32_t site, uint32_t low, uint32_t high) {
  uint32_t counter[4] = {low, high, (uint32_t)noise[2] + (uint32_t)sequence, ((uint32_t)noise[3] << 16) + site};
  malc_philox(counter, (uint32_t)noise[0], (uint32_t)noise[1]);
  return (float)(int32_t)(counter[0] >> 8) * 0x1p-24f;
}
