// launch.h - what the host side of a CUDA program does by more than one call of the runtime: launches and tensor maps.
#pragma once
#include "instructions.h"

/* The blocks of a launch, and how they run: from a number of blocks or a dim3. */
struct malc_grid {
  dim3 blocks;
  unsigned cluster = 1; /* consecutive blocks (in x) that form a cluster */
  bool overlaps = false; /* may start before the launch before it has ended: the kernel waits, as by malc_follow */

  malc_grid(unsigned x) : blocks(x) {}
  malc_grid(dim3 blocks) : blocks(blocks) {}
  malc_grid clusters_of(unsigned size) const {
    malc_grid grid = *this;
    grid.cluster = size;
    return grid;
  }
  malc_grid overlapping() const {
    malc_grid grid = *this;
    grid.overlaps = true;
    return grid;
  }
};

/* An attribute of the current device; 0 where there is none. */
inline int malc_device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
}

/* Whether kernels for sm_90a are launched in place of those for sm_80: the program was compiled for sm_90a
 * (-DMALC_HOPPER), and the device is one. Asked once: a process has one kind of device. */
inline bool malc_on_hopper() {
#ifdef MALC_HOPPER
  static const bool answer = malc_device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
                             malc_device_attribute(cudaDevAttrComputeCapabilityMinor) == 0;
  return answer;
#else
  return false;
#endif
}

/* Whether the next launch of a stream may overlap the one before: where a graph of CUDA 12.3 or newer is captured for a
 * Hopper GPU, and a kernel comes before it and no copy. Launches that are queued one by one are seen one by one. */
inline bool malc_may_overlap(cudaStream_t stream) {
#if defined(MALC_HOPPER) && CUDART_VERSION >= 12030 && !defined(MALC_SIMT)
#if CUDART_VERSION >= 13000
  const auto capture_of = cudaStreamGetCaptureInfo;
#else
  const auto capture_of = cudaStreamGetCaptureInfo_v3;
#endif
  int driver = 0;
  if (!malc_on_hopper() || cudaDriverGetVersion(&driver) != cudaSuccess || driver < 12030) return false;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t *before = nullptr;
  const cudaGraphEdgeData *edges = nullptr;
  size_t count = 0;
  cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
  if (capture_of(stream, &capture, nullptr, nullptr, &before, &edges, &count) != cudaSuccess) return false;
  return capture == cudaStreamCaptureStatusActive && count == 1 &&
         cudaGraphNodeGetType(before[0], &type) == cudaSuccess && type == cudaGraphNodeTypeKernel;
#else
  (void)stream;
  return false;
#endif
}

/* How a kernel begins whose launches overlap the one before: lets the next one's blocks start where there is room for
 * them, and waits for all that earlier launches wrote. Every thread comes here before it touches memory. */
DEVICE void malc_follow() {
#if defined(MALC_SIMT) || (defined(MALC_HOPPER) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
  grid_dependency_launch();
  grid_dependency_wait();
#endif
}

/* Queues a kernel; arguments are converted to the kernel's parameters. Returns what the CUDA runtime returns. */
template <class... Parameters, class... Arguments>
cudaError_t malc_launch(void (*kernel)(Parameters...), malc_grid grid, dim3 block, unsigned shared_bytes,
                        cudaStream_t stream, const Arguments &...arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "as many arguments as the kernel has parameters");
#ifdef MALC_SIMT
  return simt::launch(kernel, grid.blocks, block, grid.cluster, grid.overlaps, shared_bytes, stream,
                      arguments...);
#else
  const void *address = reinterpret_cast<const void *>(kernel);
  // More than 48 KB must be asked for, with what the kernel's own variables take of them.
  if (shared_bytes > 32 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t configuration = {};
  configuration.gridDim = grid.blocks;
  configuration.blockDim = block;
  configuration.dynamicSmemBytes = shared_bytes;
  configuration.stream = stream;
  configuration.attrs = attributes;
  if (grid.cluster > 1) {
    cudaLaunchAttribute &attribute = attributes[configuration.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = grid.cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  if (grid.overlaps && malc_may_overlap(stream)) {
    cudaLaunchAttribute &attribute = attributes[configuration.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  return cudaLaunchKernelEx(&configuration, kernel, static_cast<Parameters>(arguments)...);
#endif
}

/* Whether this is code for sm_90a, in a program whose kernels have forms for it: the others are never launched there,
 * and stay empty, so that nvcc has half the work. */
#if defined(MALC_HOPPER) && defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool malc_code_for_hopper = true;
#else
constexpr bool malc_code_for_hopper = false;
#endif

/* Multiprocessors of the device, for kernels whose blocks take one tile after another. Asked once. */
inline int malc_multiprocessors() {
  static const int count = malc_device_attribute(cudaDevAttrMultiProcessorCount);
  return count;
}

/* Elements of a long row, each of so many bytes, that a block keeps in shared memory: all, or as many as there is room
 * for in half a multiprocessor's, so that one block reads while another computes. Whole pieces of 16 bytes. */
inline int malc_row_room(int elements, size_t bytes) {
  const size_t others = 2048; /* what the system takes, and variables of the kernel */
  const size_t room = malc_device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / 2 - others;
  const size_t all = elements * bytes;
  return static_cast<int>((all < room ? all : room) / 16 * 16 / bytes);
}

/* Marks bytes of device memory that no kernel may touch, such as a gap between buffers of one allocation: the emulator
 * reports a kernel that does. Nothing on a GPU. */
inline void malc_guard(void *start, size_t bytes) {
#ifdef MALC_SIMT
  simt::guard(start, bytes);
#else
  (void)start;
  (void)bytes;
#endif
}

/* What encode_tensor_map asks of the driver, whose encoder is found through the runtime, so that nothing links against
 * the driver. */
inline cudaError_t malc_encode_tensor_map(CUtensorMap *map, const void *base, CUtensorMapDataType type, uint64_t bytes,
                                          unsigned rank, const uint64_t (&sizes)[4], const uint64_t (&strides)[3],
                                          unsigned box_columns, unsigned box_rows) {
  typedef CUresult (*Encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                             const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                             CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  void *found = nullptr;
  cudaDriverEntryPointQueryResult outcome;
#if CUDART_VERSION >= 12050 || defined(MALC_SIMT)
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &outcome);
#else
  const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &outcome);
#endif
  if (error != cudaSuccess) return error;
  if (outcome != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  const cuuint64_t dimensions[4] = {sizes[0], sizes[1], sizes[2], sizes[3]};
  const cuuint64_t apart[3] = {strides[0] * bytes, strides[1] * bytes, strides[2] * bytes};
  const cuuint32_t box[4] = {box_columns, box_rows, 1, 1}, steps[4] = {1, 1, 1, 1};
  const CUresult result = reinterpret_cast<Encode>(found)(
      map, type, rank, const_cast<void *>(base), dimensions, apart, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/* Describes a tensor of bfloat16 or float32 of columns, rows and, in rank 3 and 4, one or two more dimensions to TMA in
 * boxes of [box_rows][box_columns], rows of 128 bytes at most, swizzled by 128 bytes. Strides are in elements,
 * multiples of 16 bytes, in any order; the base is 16-byte aligned. Sizes begin with the columns, strides with that
 * from row to row. */
inline cudaError_t encode_tensor_map(CUtensorMap *map, const __nv_bfloat16 *base, unsigned rank,
                                     const uint64_t (&sizes)[4], const uint64_t (&strides)[3], unsigned box_columns,
                                     unsigned box_rows) {
  return malc_encode_tensor_map(map, base, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, rank, sizes, strides, box_columns,
                                box_rows);
}
inline cudaError_t encode_tensor_map(CUtensorMap *map, const float *base, unsigned rank, const uint64_t (&sizes)[4],
                                     const uint64_t (&strides)[3], unsigned box_columns, unsigned box_rows) {
  return malc_encode_tensor_map(map, base, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, rank, sizes, strides, box_columns,
                                box_rows);
}
