// tensor_map.h - what the emulator keeps in the 128 bytes of a CUtensorMap.
#pragma once
#include "runtime.h"

namespace simt {
struct TensorMap {
  static const uint64_t mark = 0x70616d726f736e65; // in place of a map that nobody encoded
  uint64_t marked;
  char *base;
  uint64_t sizes[4];   // elements, innermost first
  uint64_t strides[3]; // bytes
  uint32_t box[4], rank, element_bytes, swizzled;

  uint32_t box_bytes() const { return box[0] * box[1] * box[2] * box[3] * element_bytes; }
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

/* The map of an instruction of this rank by the current thread; faults where it is none. */
const TensorMap &tensor_map(const CUtensorMap *map, unsigned rank);
/* The address that the 128-byte swizzle puts a byte at: 16-byte chunks change places within 8 rows of 128 bytes. */
inline uint32_t swizzle(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }
} // namespace simt
