// tensor_map.cpp - encodes tensor maps, with the driver's conditions, and moves boxes.
#include "tensor_map.h"
#include "machine.h"

namespace simt {
/* cuTensorMapEncodeTiled: for ranks 2 to 4, float32 and bfloat16, swizzled by 128 bytes or not at all. */
static CUresult encode(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base, const cuuint64_t *sizes,
                       const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *steps, CUtensorMapInterleave,
                       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const uint32_t element_bytes = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ? 2 : 4;
  const bool swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  if (rank < 2 || rank > 4 || reinterpret_cast<uintptr_t>(map) % 64 != 0 ||
      reinterpret_cast<uintptr_t>(base) % 16 != 0 || (!swizzled && swizzle != CU_TENSOR_MAP_SWIZZLE_NONE))
    return CUDA_ERROR_INVALID_VALUE;
  TensorMap made{};
  made.marked = TensorMap::mark;
  made.base = static_cast<char *>(base);
  made.rank = rank;
  made.element_bytes = element_bytes;
  made.swizzled = swizzled;
  for (unsigned i = 0; i < 4; i++) {
    made.sizes[i] = i < rank ? sizes[i] : 1;
    made.box[i] = i < rank ? box[i] : 1;
    if (made.sizes[i] == 0 || made.sizes[i] > uint64_t{1} << 32 || made.box[i] == 0 || made.box[i] > 256)
      return CUDA_ERROR_INVALID_VALUE;
    if (i < rank && steps[i] != 1) return CUDA_ERROR_INVALID_VALUE;
  }
  for (unsigned i = 0; i + 1 < rank; i++) {
    made.strides[i] = strides[i];
    if (strides[i] % 16 != 0 || strides[i] >= uint64_t{1} << 40) return CUDA_ERROR_INVALID_VALUE;
  }
  const uint32_t row_bytes = box[0] * element_bytes;
  if (row_bytes % 16 != 0 || (swizzled && row_bytes > 128)) return CUDA_ERROR_INVALID_VALUE;
  memcpy(static_cast<void *>(map), &made, sizeof(made));
  return CUDA_SUCCESS;
}

const TensorMap &tensor_map(const CUtensorMap *map, unsigned rank) {
  if (reinterpret_cast<uintptr_t>(map) % 64 != 0) fault("a tensor map at an address that is not a multiple of 64");
  const auto &found = *reinterpret_cast<const TensorMap *>(map);
  if (found.marked != TensorMap::mark) fault("this is no tensor map: encode_tensor_map has not filled it");
  if (found.rank != rank) fault("a tensor map of rank %u in an instruction of rank %u", found.rank, rank);
  return found;
}
} // namespace simt

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *outcome) {
  const bool known = strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = known ? reinterpret_cast<void *>(&simt::encode) : nullptr;
  *outcome = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
