/* sequences.h - where each sequence's tokens lie in a call. */
#ifndef MALC_SEQUENCES_H
#define MALC_SEQUENCES_H
#include <stddef.h>
#include <stdint.h>

/* Consecutive tokens of a call. */
typedef struct { int64_t first, count; } malc_piece;

/* The tokens of a sequence: `time` of them; or, where decoding gives each sequence a number of its own, those from the
 * end of the sequence before it to its own end. `ends` is NULL outside decoding. */
static inline malc_piece malc_piece_of(int64_t sequence, int64_t time, const int32_t *ends) {
  if (!ends) return (malc_piece){ sequence * time, time };
  const int64_t first = sequence > 0 ? ends[sequence - 1] : 0;
  return (malc_piece){ first, ends[sequence] - first };
}

/* The sequence that a token belongs to. */
static inline int64_t malc_sequence_of(int64_t token, int64_t time, const int32_t *ends) {
  if (!ends) return token / time;
  int64_t sequence = 0;
  while (ends[sequence] <= token) sequence++;
  return sequence;
}
#endif
