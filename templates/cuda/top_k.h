// top_k.h - the places of the greatest scores of each row: which experts a token is sent to.
#pragma once
#include "rows.h"

/* A score and its place. */
struct malc_pick {
  float score;
  int place;
};

/* Greater scores come first, of equal ones the earlier; what is not a number precedes nothing. */
DEVICE bool malc_precedes(const malc_pick &a, const malc_pick &b) {
  return a.score > b.score || (a.score == b.score && a.place < b.place);
}

/* The last of the first `count` picks of a warp's candidates [0, candidates), for all lanes. score(place) is a
 * candidate's score, or not a number where it cannot be picked; at least `count` of them can. Each pick is the first
 * that the one before precedes, so nothing needs to be remembered of what is picked already. */
template <class Score>
DEVICE malc_pick malc_last_pick(int count, int candidates, const Score &score) {
  malc_pick last = {INFINITY, -1};
  for (int n = 0; n < count; n++) {
    malc_pick best = {-INFINITY, candidates};
    for (int place = threadIdx.x % 32; place < candidates; place += 32) {
      const malc_pick own = {score(place), place};
      if (malc_precedes(last, own) && malc_precedes(own, best)) best = own;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const malc_pick other = {__shfl_xor_sync(0xffffffffu, best.score, distance),
                               __shfl_xor_sync(0xffffffffu, best.place, distance)};
      if (malc_precedes(other, best)) best = other;
    }
    last = best;
  }
  return last;
}

/* A score that can be picked: what is not a number comes last. */
DEVICE float malc_comparable(float score) { return score == score ? score : -INFINITY; }

/* The sum of the `Counted` greatest of scores[size], which are one or two: a group's score. */
template <int Counted>
DEVICE float malc_group_score(const float *scores, int size) {
  float greatest = scores[0], second = size > 1 ? -INFINITY : 0.0f;
  for (int i = 1; i < size; i++) {
    second = fmaxf(second, fminf(greatest, scores[i]));
    greatest = fmaxf(greatest, scores[i]);
  }
  return Counted == 2 ? greatest + second : greatest;
}

constexpr int malc_top_k_rows = 4; /* rows of a block: a warp each */

/* chosen[rows][Chosen]: the places of the greatest of scores[rows][Candidates], ascending; of equal scores the earlier
 * is greater. The scores lie in `Groups` groups of equal size, and only those of the best `Open` groups can be chosen;
 * groups are compared by the sum of their `Counted` greatest scores. Scores that are not numbers give some places, but
 * never one twice. */
template <int Candidates, int Chosen, int Groups, int Open, int Counted>
DEVICE void malc_top_k(int32_t *chosen, const float *scores, int64_t rows) {
  constexpr int size = Candidates / Groups;
  __shared__ float group_scores[malc_top_k_rows][Groups];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * malc_top_k_rows + warp;
  if (row >= rows) return;
  scores += row * Candidates;
  chosen += row * Chosen;
  malc_pick last_group = {-INFINITY, Groups};
  if constexpr (Open < Groups) {
    for (int group = lane; group < Groups; group += 32)
      group_scores[warp][group] = malc_comparable(malc_group_score<Counted>(scores + group * size, size));
    __syncwarp();
    last_group = malc_last_pick(Open, Groups, [&](int group) { return group_scores[warp][group]; });
  }
  const auto score = [&](int place) {
    if (Open < Groups && malc_precedes(last_group, {group_scores[warp][place / size], place / size})) return NAN;
    return malc_comparable(scores[place]);
  };
  const malc_pick last = malc_last_pick(Chosen, Candidates, score);
  int before = 0; /* chosen places before these 32 */
  for (int first = 0; first < Candidates; first += 32) {
    const int place = first + lane;
    const bool is_chosen =
        place < Candidates && (place == last.place || malc_precedes({score(place), place}, last));
    const unsigned all = __ballot_sync(0xffffffffu, is_chosen);
    if (is_chosen) chosen[before + __popc(all & ((1u << lane) - 1))] = place;
    before += __popc(all);
  }
}
