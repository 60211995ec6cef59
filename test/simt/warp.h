// warp.h - what the lanes of a warp do together: shuffles, votes, reductions of integers.
//
// Every lane of the mask must come to the same call; a lane that does not is reported. None of them orders memory
// accesses: only __syncwarp does.
#pragma once
#include "language.h"

namespace simt {
enum class Shuffle { index, up, down, exclusive_or };
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int operand, int width);
enum class Vote { ballot, all, any };
unsigned vote(Vote kind, unsigned mask, bool predicate);
unsigned reduce(Update update, unsigned mask, unsigned value);

template <class T>
SIMT_INLINE T shuffle_value(Shuffle kind, unsigned mask, T value, int operand, int width) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, operand, width);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}
} // namespace simt

template <class T>
SIMT_INLINE T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return simt::shuffle_value(simt::Shuffle::index, mask, value, lane, width);
}
template <class T>
SIMT_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return simt::shuffle_value(simt::Shuffle::up, mask, value, static_cast<int>(delta), width);
}
template <class T>
SIMT_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return simt::shuffle_value(simt::Shuffle::down, mask, value, static_cast<int>(delta), width);
}
template <class T>
SIMT_INLINE T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  return simt::shuffle_value(simt::Shuffle::exclusive_or, mask, value, lane_mask, width);
}

SIMT_INLINE unsigned __ballot_sync(unsigned mask, int predicate) {
  return simt::vote(simt::Vote::ballot, mask, predicate != 0);
}
SIMT_INLINE int __all_sync(unsigned mask, int predicate) {
  return simt::vote(simt::Vote::all, mask, predicate != 0) != 0;
}
SIMT_INLINE int __any_sync(unsigned mask, int predicate) {
  return simt::vote(simt::Vote::any, mask, predicate != 0) != 0;
}

SIMT_INLINE unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return simt::reduce(simt::Update::add, mask, value);
}
SIMT_INLINE unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  return simt::reduce(simt::Update::minimum, mask, value);
}
SIMT_INLINE unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return simt::reduce(simt::Update::maximum, mask, value);
}
SIMT_INLINE int __reduce_add_sync(unsigned mask, int value) {
  return static_cast<int>(simt::reduce(simt::Update::add, mask, static_cast<unsigned>(value)));
}
SIMT_INLINE int __reduce_min_sync(unsigned mask, int value) {
  return static_cast<int>(simt::reduce(simt::Update::signed_minimum, mask, static_cast<unsigned>(value)));
}
SIMT_INLINE int __reduce_max_sync(unsigned mask, int value) {
  return static_cast<int>(simt::reduce(simt::Update::signed_maximum, mask, static_cast<unsigned>(value)));
}
SIMT_INLINE unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return simt::reduce(simt::Update::both, mask, value);
}
SIMT_INLINE unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return simt::reduce(simt::Update::either, mask, value);
}
SIMT_INLINE unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return simt::reduce(simt::Update::differ, mask, value);
}
