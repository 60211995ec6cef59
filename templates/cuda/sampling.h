// sampling.h - from logits to tokens, on the device: what malc_sampler of malc.h asks for, one block for each text.
//
// Nothing is sorted. The candidates are the tokens whose score is above a floor, and the first few of those at it, by
// their numbers; each filter finds its floor by bisection, on the scores' bits in an order that is theirs. Weights are
// added in float64 and in a fixed order: the same logits, seed and position give the same token.
#pragma once
#include "malc.h"
#include "random.h"
#include "sequences.h"

enum { MALC_CHOICE_THREADS = 1024, MALC_CHOICE_WARPS = MALC_CHOICE_THREADS / 32 };

/* Bits that compare as the numbers do; both zeros are one. */
DEVICE uint32_t malc_ordered(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* The sum over the block's threads, for all of them. */
static DEVICE double malc_choice_sum(double value) {
  __shared__ double of_warps[MALC_CHOICE_WARPS];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  __syncthreads(); // the sum before was read
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < MALC_CHOICE_WARPS; warp++) sum += of_warps[warp];
  return sum;
}

/* The greatest or the least of the threads' numbers, for all of them. */
static DEVICE uint32_t malc_choice_extreme(uint32_t value, bool greatest) {
  __shared__ uint32_t of_warps[MALC_CHOICE_WARPS];
  const auto better = [=](uint32_t a, uint32_t b) { return (a > b) == greatest ? a : b; };
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = better(value, __shfl_xor_sync(0xffffffffu, value, distance));
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (int warp = 0; warp < MALC_CHOICE_WARPS; warp++) value = better(value, of_warps[warp]);
  return value;
}

/* What is added up over tokens: of those with keys from `from` up to `to`, which is excluded, their weight or one. */
struct malc_measure {
  uint32_t from, to;
  bool weighs;
};

/* A text's scores, and which tokens are candidates. */
struct malc_candidates {
  const float *scores;
  int count; /* of scores */
  double temperature;
  float largest;
  uint32_t floor; /* candidates have a greater key, */
  double ties;    /* or this one, of which so many are candidates */

  /* That of the likeliest token is 1. */
  DEVICE double weight(float score) const { return exp(((double)score - largest) / temperature); }

  DEVICE double of(malc_measure measure, float score) const {
    const uint32_t key = malc_ordered(score);
    return key < measure.from || key >= measure.to ? 0.0 : measure.weighs ? weight(score) : 1.0;
  }

  __device__ __noinline__ double sum(malc_measure measure) const {
    double sum = 0;
    for (int token = threadIdx.x; token < count; token += MALC_CHOICE_THREADS) sum += of(measure, scores[token]);
    return malc_choice_sum(sum);
  }

  DEVICE double count_at(uint32_t key) const { return sum({key, key + 1, false}); }
  /* Of one token with this key. */
  DEVICE double weight_at(uint32_t key) const { return sum({key, key + 1, true}) / count_at(key); }
  DEVICE double ties_at(uint32_t key) const { return key == floor ? fmin(ties, count_at(key)) : count_at(key); }

  /* The candidates' weight. */
  DEVICE double whole() const { return sum({floor + 1, ~0u, true}) + ties_at(floor) * weight_at(floor); }

  /* The greatest key down to which weights, or ones, add up to the target, or to more than it where `beyond`; the floor
   * where none does. `above` becomes the sum over greater keys. */
  DEVICE uint32_t reach(double target, bool beyond, bool weighs, double &above) const {
    uint32_t low = floor, high = malc_ordered(largest) + 1;
    above = 0;
    while (high - low > 1) {
      const uint32_t middle = low + (high - low) / 2;
      const double reached = above + sum({middle, high, weighs});
      if (beyond ? reached > target : reached >= target) {
        low = middle;
      } else {
        high = middle;
        above = reached;
      }
    }
    return low;
  }
};

/* The first token, by number, up to which a measure adds up to more than the target: each warp adds up a piece. */
static __device__ __noinline__ int malc_walk(const malc_candidates &tokens, double target, malc_measure measure) {
  __shared__ double of_warps[MALC_CHOICE_WARPS];
  __shared__ int found, last;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int count = tokens.count, piece = (count + MALC_CHOICE_THREADS - 1) / MALC_CHOICE_THREADS * 32;
  const int end = min((warp + 1) * piece, count);
  if (threadIdx.x == 0) found = last = -1;
  double sum = 0;
  for (int token = warp * piece + lane; token < end; token += 32) sum += tokens.of(measure, tokens.scores[token]);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (lane == 0) of_warps[warp] = sum;
  __syncthreads();
  double before = 0;
  for (int n = 0; n < warp; n++) before += of_warps[n];
  double later = 0; // what pieces behind this one have
  for (int n = warp + 1; n < MALC_CHOICE_WARPS; n++) later += of_warps[n];
  // Rounding may leave a last crumb: then it is the last token with a measure.
  const bool is_here = before <= target && (target < before + sum || later == 0);
  int own = -1, tail = -1;
  for (int first = warp * piece; is_here && own < 0 && first < end; first += 32) {
    const int token = first + lane;
    const double value = token < end ? tokens.of(measure, tokens.scores[token]) : 0;
    double through = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const double other = __shfl_up_sync(0xffffffffu, through, distance);
      if (lane >= distance) through += other;
    }
    const unsigned beyond = __ballot_sync(0xffffffffu, value > 0 && before + through > target);
    const unsigned some = __ballot_sync(0xffffffffu, value > 0);
    if (beyond) own = first + __ffs(beyond) - 1;
    if (some) tail = first + 31 - __clz(some);
    before += __shfl_sync(0xffffffffu, through, 31);
  }
  if (lane == 0 && own >= 0) atomicMax(&found, own);
  if (lane == 0) atomicMax(&last, tail);
  __syncthreads();
  const int token = found >= 0 ? found : last;
  __syncthreads(); // before the next walk begins
  return token;
}

/* Uniform in [0, 1), a multiple of 2^-53: the first number of stream `position` of the seed, as the host draws it. */
DEVICE double malc_choice_uniform(uint64_t seed, uint64_t position) {
  uint32_t words[4] = {0, 0, (uint32_t)position, (uint32_t)(position >> 32)};
  malc_philox(words, (uint32_t)seed, (uint32_t)(seed >> 32));
  return ((double)(words[0] >> 5) * 67108864.0 + (double)(words[1] >> 6)) * 0x1p-53;
}

/* Penalises the tokens that the text has, each once: a bit in shared memory says which were. */
DEVICE void malc_penalize(float *scores, int count, double penalty, const int32_t *text, int64_t length) {
  unsigned *const seen = reinterpret_cast<unsigned *>(dynamic_shared());
  for (int word = threadIdx.x; word < (count + 31) / 32; word += MALC_CHOICE_THREADS) seen[word] = 0;
  __syncthreads();
  for (int64_t n = threadIdx.x; n < length; n += MALC_CHOICE_THREADS) {
    const int token = text[n];
    const unsigned bit = 1u << token % 32;
    if (atomicOr(&seen[token / 32], bit) & bit) continue;
    const double score = scores[token];
    scores[token] = (float)(score > 0 ? score / penalty : score * penalty);
  }
  __syncthreads();
}

/* The token that a sampler chooses: malc.h says how. */
DEVICE int malc_choose_token(float *scores, int count, const malc_sampler &sampler, const int32_t *text,
                             int64_t length) {
  malc_candidates tokens = {scores, count, sampler.temperature, 0, 0, 0};
  double faults = 0;
  for (int token = threadIdx.x; token < count; token += MALC_CHOICE_THREADS) faults += isnan(scores[token]) ? 1 : 0;
  if (malc_choice_sum(faults) > 0) return MALC_NOT_A_NUMBER;
  if (sampler.repetition_penalty != 1) malc_penalize(scores, count, sampler.repetition_penalty, text, length);

  uint32_t key = 0;
  for (int token = threadIdx.x; token < count; token += MALC_CHOICE_THREADS)
    key = max(key, malc_ordered(scores[token]));
  key = malc_choice_extreme(key, true);
  const int likeliest = malc_walk(tokens, 0, {key, key + 1, false});
  if (sampler.temperature == 0) return likeliest;
  tokens.largest = scores[likeliest];
  const double uniform = malc_choice_uniform(sampler.seed, (uint64_t)length);

  for (int token = threadIdx.x; token < count; token += MALC_CHOICE_THREADS)
    if (tokens.weight(scores[token]) >= sampler.min_p) key = min(key, malc_ordered(scores[token]));
  tokens.floor = malc_choice_extreme(key, false);
  tokens.ties = count;
  if (sampler.top_k == 0 && sampler.top_p < 0) // in the order of their numbers
    return malc_walk(tokens, uniform * tokens.whole(), {tokens.floor, ~0u, true});
  double above;
  if (sampler.top_k > 0 && tokens.sum({tokens.floor, ~0u, false}) > (double)sampler.top_k) {
    tokens.floor = tokens.reach((double)sampler.top_k, false, false, above);
    tokens.ties = (double)sampler.top_k - above;
  }
  if (sampler.top_p >= 0) {
    const double target = sampler.top_p * tokens.whole();
    key = tokens.reach(target, false, true, above);
    tokens.ties = fmax(1.0, fmin(tokens.ties_at(key), ceil((target - above) / tokens.weight_at(key))));
    tokens.floor = key;
  }
  const double target = uniform * tokens.whole(); // the likeliest first
  key = tokens.reach(target, true, true, above);
  const double tie = fmin(tokens.ties_at(key) - 1, floor((target - above) / tokens.weight_at(key)));
  return malc_walk(tokens, fmax(0.0, tie), {key, key + 1, false});
}

/* A block for each text: row n of the logits is the one that ends at the call's token lasts[n], and is overwritten.
 * history: [texts][context], the tokens of each text; shared memory: a bit for each token of the vocabulary. */
static __global__ void __launch_bounds__(MALC_CHOICE_THREADS)
    malc_choose_tokens(float *logits, int count, const malc_sampler *samplers, const int32_t *lasts,
                       const int32_t *positions, const int32_t *ends, const int32_t *history, int64_t context,
                       int32_t *chosen) {
  const int row = blockIdx.x, last = lasts[row];
  const int32_t *text = history + malc_sequence_of(last, 0, ends) * context;
  const int token = malc_choose_token(logits + (int64_t)row * count, count, samplers[row], text, positions[last] + 1);
  if (threadIdx.x == 0) chosen[row] = token;
}
