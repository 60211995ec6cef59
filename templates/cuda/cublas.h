// cublas.h - products by cuBLASLt, NVIDIA's own, where the machine has it: the library is looked for when the program
// runs, and nothing of it is needed to compile or to load one.
//
// MALC_CUBLAS=0 in the environment leaves it aside; any other text is the library's path. Where it is not, and for
// shapes that it has no algorithm for, the program's own kernels run.
#pragma once
#include <dlfcn.h>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include "launch.h"

// ---- What is called of the library, and the numbers that its header (cublasLt.h of CUDA 12 and 13) gives names ----

enum { CUBLAS_OK = 0, CUBLAS_NO_MEMORY = 3, CUBLAS_BAD_VALUE = 7, CUBLAS_FAILED = 13 }; // cublasStatus_t
enum { CUBLAS_COMPUTE_FLOAT = 68 };                                                     // cublasComputeType_t
enum { CUBLAS_FLOAT = 0, CUBLAS_BFLOAT16 = 14 };                                        // cudaDataType_t
enum { CUBLAS_TRANSPOSE_A = 3, CUBLAS_TRANSPOSE_B = 4 };                                // ..MatmulDescAttributes_t
enum { CUBLAS_MOST_WORKSPACE = 1, CUBLAS_LEAST_ALIGNMENT_A = 5, CUBLAS_MATRICES = 4 };  // ..PreferenceAttributes_t

/* cublasLtMatmulHeuristicResult_t: an algorithm for products of a shape, and what it needs. */
struct malc_cublas_algorithm {
  uint64_t algorithm[8];
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

/* The library, opened. What it makes is known by handles. */
struct malc_cublas {
  typedef void *Handle;
  typedef int (*Create)(Handle *made);
  typedef int (*Destroy)(Handle made);
  typedef int (*Set)(Handle of, int attribute, const void *value, size_t bytes);

  Create cublasLtCreate, cublasLtMatmulPreferenceCreate;
  Destroy cublasLtMatmulDescDestroy, cublasLtMatrixLayoutDestroy, cublasLtMatmulPreferenceDestroy;
  Set cublasLtMatmulDescSetAttribute, cublasLtMatmulPreferenceSetAttribute;
  int (*cublasLtMatmulDescCreate)(Handle *product, int compute_type, int scale_type);
  int (*cublasLtMatrixLayoutCreate)(Handle *layout, int type, uint64_t rows, uint64_t columns, int64_t stride);
  int (*cublasLtMatmulAlgoGetHeuristic)(Handle library, Handle product, Handle a, Handle b, Handle c, Handle d,
                                        Handle preference, int wanted, malc_cublas_algorithm *found, int *count);
  int (*cublasLtMatmul)(Handle library, Handle product, const void *alpha, const void *a, Handle a_layout,
                        const void *b, Handle b_layout, const void *beta, const void *c, Handle c_layout, void *d,
                        Handle d_layout, const malc_cublas_algorithm *algorithm, void *workspace, size_t bytes,
                        cudaStream_t queue);
  Handle library = nullptr; /* null: it is not there, or left aside */
  bool missing = false;     /* MALC_CUBLAS names what is no such library */

  malc_cublas() {
    const char *const said = getenv("MALC_CUBLAS");
    if (said && strcmp(said, "0") == 0) return;
    const bool named = said && *said;
    void *file = dlopen(named ? said : "libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!file && !named) file = dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL);
    if (!file || !find_all(file) || cublasLtCreate(&library) != CUBLAS_OK) library = nullptr;
    missing = named && !library;
  }

private:
  /* Whether all functions are there. */
  bool find_all(void *file) {
    bool found = true;
    const auto find = [&](auto &function, const char *name) {
      void *const address = dlsym(file, name);
      memcpy(&function, &address, sizeof address);
      found = found && address;
    };
    find(cublasLtCreate, "cublasLtCreate");
    find(cublasLtMatmulDescCreate, "cublasLtMatmulDescCreate");
    find(cublasLtMatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute");
    find(cublasLtMatmulDescDestroy, "cublasLtMatmulDescDestroy");
    find(cublasLtMatrixLayoutCreate, "cublasLtMatrixLayoutCreate");
    find(cublasLtMatrixLayoutDestroy, "cublasLtMatrixLayoutDestroy");
    find(cublasLtMatmulPreferenceCreate, "cublasLtMatmulPreferenceCreate");
    find(cublasLtMatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute");
    find(cublasLtMatmulPreferenceDestroy, "cublasLtMatmulPreferenceDestroy");
    find(cublasLtMatmulAlgoGetHeuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(cublasLtMatmul, "cublasLtMatmul");
    return found;
  }
};

/* The library, looked for once. */
inline const malc_cublas &malc_find_cublas() {
  static const malc_cublas found;
  return found;
}

// ---- Products ----

/* A bfloat16 operand as malc_operand of product.h has it: runs lie `stride` elements apart, along the inner positions,
 * or else along the rows of the left operand or the columns of the right one. */
struct malc_cublas_operand {
  const __nv_bfloat16 *data;
  int64_t stride;
  bool runs_inner;
};

/* result[row][column] = sum over i of left[row][i] right[column][i], or added to what is there. */
struct malc_cublas_product {
  int64_t rows, columns, inner;
  malc_cublas_operand left, right;
  void *result;
  int64_t stride; /* elements from row to row of the result */
  bool narrow;    /* the result is of bfloat16, not of float32 */
  bool adds;
};

/* Floats of a launch's workspace that are the library's own: 32 MiB, as NVIDIA recommends for Hopper. */
constexpr int64_t malc_cublas_floats = 32 * 1024 * 1024 / sizeof(float);

/* How products of one shape are multiplied: asked of the library when the shape is new. Matrices lie by columns there:
 * what it computes is the transposed result, the right operand first. */
class malc_cublas_plan {
  typedef malc_cublas::Handle Handle;
  malc_cublas_product shape = {}; /* whose data do not matter */
  bool asked = false, serves = false;
  Handle product = nullptr, a = nullptr, b = nullptr, d = nullptr;
  malc_cublas_algorithm algorithm = {};

  static bool create_layout(Handle *layout, bool narrow, bool transposed, int64_t rows, int64_t columns,
                            int64_t stride) {
    const uint64_t down = transposed ? columns : rows, across = transposed ? rows : columns;
    const int type = narrow ? CUBLAS_BFLOAT16 : CUBLAS_FLOAT;
    return malc_find_cublas().cublasLtMatrixLayoutCreate(layout, type, down, across, stride) == CUBLAS_OK;
  }

  bool describe() {
    const malc_cublas &cublas = malc_find_cublas();
    const int transpose_a = shape.right.runs_inner, transpose_b = !shape.left.runs_inner;
    const auto set = [&](int attribute, const int &value) {
      return cublas.cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value) == CUBLAS_OK;
    };
    return cublas.cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_FLOAT, CUBLAS_FLOAT) == CUBLAS_OK &&
           set(CUBLAS_TRANSPOSE_A, transpose_a) && set(CUBLAS_TRANSPOSE_B, transpose_b) &&
           create_layout(&a, true, transpose_a, shape.columns, shape.inner, shape.right.stride) &&
           create_layout(&b, true, transpose_b, shape.inner, shape.rows, shape.left.stride) &&
           create_layout(&d, shape.narrow, false, shape.columns, shape.rows, shape.stride);
  }

  bool choose() {
    const malc_cublas &cublas = malc_find_cublas();
    Handle preference = nullptr;
    if (cublas.cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_OK) return false;
    const auto set = [&](int attribute, auto value) {
      return cublas.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) == CUBLAS_OK;
    };
    bool chosen = set(CUBLAS_MOST_WORKSPACE, static_cast<uint64_t>(malc_cublas_floats * sizeof(float)));
    for (int n = 0; n < CUBLAS_MATRICES; n++) chosen = chosen && set(CUBLAS_LEAST_ALIGNMENT_A + n, uint32_t(16));
    int count = 0;
    chosen = chosen && cublas.cublasLtMatmulAlgoGetHeuristic(cublas.library, product, a, b, d, d, preference, 1,
                                                             &algorithm, &count) == CUBLAS_OK;
    cublas.cublasLtMatmulPreferenceDestroy(preference);
    return chosen && count > 0 && algorithm.status == CUBLAS_OK;
  }

  void drop() {
    const malc_cublas &cublas = malc_find_cublas();
    if (product) cublas.cublasLtMatmulDescDestroy(product);
    for (Handle layout : {a, b, d})
      if (layout) cublas.cublasLtMatrixLayoutDestroy(layout);
    product = a = b = d = nullptr;
  }

public:
  /* Whether the library has an algorithm. A plan is asked for one product, of which calls may differ in sizes alone. */
  bool has(const malc_cublas_product &wanted) {
    const bool is_new = shape.rows != wanted.rows || shape.columns != wanted.columns || shape.inner != wanted.inner;
    if (asked && !is_new) return serves;
    drop();
    shape = wanted;
    serves = describe() && choose();
    asked = true;
    return serves;
  }

  /* Queues a product of the shape that it was asked for last. */
  cudaError_t multiply(const malc_cublas_product &given, void *workspace, cudaStream_t queue) const {
    const malc_cublas &cublas = malc_find_cublas();
    const float alpha = 1, beta = given.adds ? 1 : 0;
    const int status =
        cublas.cublasLtMatmul(cublas.library, product, &alpha, given.right.data, a, given.left.data, b, &beta,
                              given.result, d, given.result, d, &algorithm, workspace, algorithm.workspace, queue);
    switch (status) {
      case CUBLAS_OK: return cudaSuccess;
      case CUBLAS_NO_MEMORY: return cudaErrorMemoryAllocation;
      case CUBLAS_BAD_VALUE: return cudaErrorInvalidValue;
      case CUBLAS_FAILED: return cudaErrorLaunchFailure;
      default: return cudaErrorNotSupported;
    }
  }
};

/* Products that the library multiplied so far: what measures them asks whether it did. */
inline int64_t malc_cublas_count = 0;

/* The products of a launcher: all are multiplied by the library, or none. */
template <int Count>
class malc_cublas_plans {
  malc_cublas_plan plans[Count];
  std::mutex one_at_a_time; /* models of one library may run on several threads */

public:
  /* Queues the products in order where the library has them all; else returns false. */
  bool multiply(const malc_cublas_product (&products)[Count], void *workspace, cudaStream_t queue,
                cudaError_t *error) {
    const malc_cublas &cublas = malc_find_cublas();
    *error = cublas.missing ? cudaErrorSharedObjectInitFailed : cudaSuccess;
    if (!cublas.library) return cublas.missing;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    for (int n = 0; n < Count; n++)
      if (!plans[n].has(products[n])) return false;
    for (int n = 0; n < Count && *error == cudaSuccess; n++)
      *error = plans[n].multiply(products[n], workspace, queue);
    malc_cublas_count += Count;
    return true;
  }
};
