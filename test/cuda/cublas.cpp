// cublas.cpp - a stand-in for libcublasLt in the emulator, for tests: the functions that templates/cuda/cublas.h calls,
// on matrices that lie by columns. What the library would refuse, it refuses.
//
// Each program has an emulator of its own: what queues work there is looked for in whoever calls.
#include <dlfcn.h>
#include <cstdlib>
#include <vector>
#include "simt.h"

enum { OK = 0, BAD_VALUE = 7, NOT_SUPPORTED = 15 };
enum { FLOAT = 0, BFLOAT16 = 14 };

namespace {
struct Product {
  bool transposed[2] = {};
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Preference {
  uint64_t workspace = 0;
  unsigned aligned = 0; /* of how many matrices an alignment was said */
};
struct Algorithm {
  uint64_t magic, rest[7];
};
struct Found {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Found) == 96, "as in cublasLt.h");
constexpr uint64_t MAGIC = 0x6d616c63;
constexpr size_t WORKSPACE = 1 << 20;

struct Matrix {
  const Layout layout;
  const void *data;
  float at(uint64_t row, uint64_t column) const {
    const uint64_t index = column * layout.stride + row;
    if (layout.type == FLOAT) return static_cast<const float *>(data)[index];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t *>(data)[index]) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  void set(uint64_t row, uint64_t column, float value) const {
    const uint64_t index = column * layout.stride + row;
    void *const to = const_cast<void *>(data);
    if (layout.type == FLOAT) {
      static_cast<float *>(to)[index] = value;
      return;
    }
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    static_cast<uint16_t *>(to)[index] = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

/* d = a b + beta d, of op(a) and op(b). */
void multiply(Product product, Matrix a, Matrix b, Matrix d, float beta, uint64_t inner, unsigned char *workspace) {
  for (size_t byte = 0; byte < WORKSPACE; byte++) workspace[byte] = 0xff; // nobody may keep anything there
  for (uint64_t column = 0; column < d.layout.columns; column++)
    for (uint64_t row = 0; row < d.layout.rows; row++) {
      float sum = 0;
      for (uint64_t k = 0; k < inner; k++) {
        const float left = product.transposed[0] ? a.at(k, row) : a.at(row, k);
        const float right = product.transposed[1] ? b.at(column, k) : b.at(k, column);
        sum += left * right;
      }
      d.set(row, column, sum + (beta == 0 ? 0 : beta * d.at(row, column)));
    }
}

bool is_aligned(const void *data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

template <class T, class... Arguments>
int make(void **to, Arguments... arguments) {
  *to = new T{arguments...};
  return OK;
}
template <class T>
int destroy(void *object) {
  delete static_cast<T *>(object);
  return OK;
}
} // namespace

extern "C" {
static int products = 0;
/* How many products were queued so far, in this process. */
int stand_in_products() { return products; }

size_t cublasLtGetVersion() { return 130000; }
int cublasLtCreate(void **library) { return make<int>(library, 0); }
int cublasLtMatmulDescCreate(void **product, int compute_type, int scale_type) {
  return compute_type == 68 && scale_type == FLOAT ? make<Product>(product) : NOT_SUPPORTED;
}
int cublasLtMatmulDescSetAttribute(void *product, int attribute, const void *value, size_t bytes) {
  int transposed;
  if (bytes != sizeof transposed || attribute < 3 || attribute > 4) return BAD_VALUE;
  memcpy(&transposed, value, bytes);
  static_cast<Product *>(product)->transposed[attribute - 3] = transposed == 1;
  return transposed == 0 || transposed == 1 ? OK : BAD_VALUE;
}
int cublasLtMatmulDescDestroy(void *product) { return destroy<Product>(product); }
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  if (static_cast<int64_t>(rows) > stride || (type != FLOAT && type != BFLOAT16)) return BAD_VALUE;
  return make<Layout>(layout, type, rows, columns, stride);
}
int cublasLtMatrixLayoutDestroy(void *layout) { return destroy<Layout>(layout); }
int cublasLtMatmulPreferenceCreate(void **preference) { return make<Preference>(preference); }
int cublasLtMatmulPreferenceSetAttribute(void *to, int attribute, const void *value, size_t bytes) {
  auto *const preference = static_cast<Preference *>(to);
  if (attribute == 1 && bytes == sizeof(uint64_t)) {
    memcpy(&preference->workspace, value, bytes);
    return OK;
  }
  uint32_t alignment = 0;
  if (attribute < 5 || attribute > 8 || bytes != sizeof alignment) return BAD_VALUE;
  memcpy(&alignment, value, bytes);
  preference->aligned++;
  return alignment == 16 ? OK : BAD_VALUE;
}
int cublasLtMatmulPreferenceDestroy(void *preference) { return destroy<Preference>(preference); }

/* Whether these are matrices of one product: op(a) [d.rows][k], op(b) [k][d.columns]. */
static bool fit(const Product &product, const Layout &a, const Layout &b, const Layout &d, uint64_t *inner) {
  *inner = product.transposed[0] ? a.rows : a.columns;
  return (product.transposed[0] ? a.columns : a.rows) == d.rows &&
         (product.transposed[1] ? b.rows : b.columns) == d.columns &&
         (product.transposed[1] ? b.columns : b.rows) == *inner && a.type == BFLOAT16 && b.type == BFLOAT16;
}

/* None where the environment says so (STAND_IN_HAS_NONE): shapes that the library has nothing for. */
int cublasLtMatmulAlgoGetHeuristic(void *, void *product, void *a, void *b, void *c, void *d, void *preference, int,
                                   Found *found, int *count) {
  uint64_t inner = 0;
  const auto *const wanted = static_cast<Preference *>(preference);
  const Layout *const layouts[] = {static_cast<Layout *>(a), static_cast<Layout *>(b), static_cast<Layout *>(d)};
  if (c != d || !fit(*static_cast<Product *>(product), *layouts[0], *layouts[1], *layouts[2], &inner)) return BAD_VALUE;
  if (wanted->aligned != 4 || wanted->workspace < WORKSPACE) return BAD_VALUE;
  *count = getenv("STAND_IN_HAS_NONE") ? 0 : 1;
  *found = {{MAGIC, {}}, WORKSPACE, OK, 1, {}};
  return *count ? OK : NOT_SUPPORTED;
}

int cublasLtMatmul(void *, void *product, const float *alpha, const void *a, void *a_layout, const void *b,
                   void *b_layout, const float *beta, const void *c, void *c_layout, void *d, void *d_layout,
                   const Algorithm *algorithm, void *workspace, size_t bytes, cudaStream_t stream) {
  typedef cudaError_t (*Queue)(simt::Call *, const void *, dim3, dim3, unsigned, unsigned, cudaStream_t, bool);
  const auto &as = *static_cast<Product *>(product);
  const Matrix left{*static_cast<Layout *>(a_layout), a}, right{*static_cast<Layout *>(b_layout), b};
  const Matrix result{*static_cast<Layout *>(d_layout), d};
  uint64_t inner = 0;
  if (*alpha != 1 || c != d || c_layout != d_layout) return BAD_VALUE;
  if (algorithm->magic != MAGIC || bytes != WORKSPACE) return BAD_VALUE;
  if (!is_aligned(a) || !is_aligned(b) || !is_aligned(d) || !is_aligned(workspace)) return BAD_VALUE;
  if (!fit(as, left.layout, right.layout, result.layout, &inner)) return BAD_VALUE;
  Dl_info caller;
  if (!dladdr(__builtin_return_address(0), &caller)) return NOT_SUPPORTED;
  void *const program = dlopen(caller.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  const char *const name = "_ZN4simt5queueEPNS_4CallEPKv4dim3S4_jjP11simt_streamb";
  const auto queue = reinterpret_cast<Queue>(program ? dlsym(program, name) : nullptr);
  if (!queue) return NOT_SUPPORTED;
  auto *const call =
      new simt::KernelCall<Product, Matrix, Matrix, Matrix, float, uint64_t, unsigned char *>(
          multiply, as, left, right, result, *beta, inner, static_cast<unsigned char *>(workspace));
  products++;
  return queue(call, reinterpret_cast<const void *>(multiply), 1, 1, 1, 0, stream, false) == cudaSuccess ? OK : 13;
}
}
