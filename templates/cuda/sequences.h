// sequences.h - where each sequence's tokens lie in a call.
#pragma once
#include "instructions.h"

/* Consecutive tokens of a call. */
struct malc_piece {
  int64_t first, count;
};

/* The tokens of a sequence: `time` of them; or, where decoding gives each sequence a number of its own, those from the
 * end of the sequence before it to its own end. `ends` is null outside decoding. */
DEVICE malc_piece malc_piece_of(int64_t sequence, int64_t time, const int32_t *ends) {
  if (!ends) return {sequence * time, time};
  const int64_t first = sequence > 0 ? ends[sequence - 1] : 0;
  return {first, ends[sequence] - first};
}

/* The sequence that a token belongs to. */
DEVICE int64_t malc_sequence_of(int64_t token, int64_t time, const int32_t *ends) {
  if (!ends) return token / time;
  int64_t sequence = 0;
  while (ends[sequence] <= token) sequence++;
  return sequence;
}
