// attention_sm90.h - attention of bfloat16 products on sm_90a: TMA copies, wgmma multiplies (FlashAttention-3,
// arXiv:2407.08608), for vectors of up to 192 elements and values of up to 128.
//
// A warp of its own copies; it and the threads that multiply meet at mbarriers. A warpgroup of those owns 64 vectors
// of one head, and the vectors that pass come in blocks through a ring of two stages: while one is multiplied, the
// other is copied. Scores are accumulators of a warpgroup, and packed, the left operands of the next product.
//
// Tiles are chunks of 64 elements of all their vectors, as TMA's 128-byte swizzle leaves them and wgmma reads them. TMA
// fills what lies beyond a vector's elements, or beyond a text's end, with zeros, and does not store it.
//
// What keeps ordinary and asynchronous accesses in order: tiles are written by TMA and read by wgmma, which are one
// proxy, so that the mbarriers between them suffice; ordinary stores to a tile come after the wait for the wgmmas
// that read it, and before fence_async and the TMA that stores it. Statistics are stored and loaded ordinarily.
#pragma once
#include "attention.h"
#include "launch.h"

constexpr int attention_sm90_own = 64; // vectors of a warpgroup
__host__ __device__ constexpr int attention_greater(int a, int b) { return a > b ? a : b; }

/* A shape whose rows are the queries of one head: keys and values are copied for each, from the second-level cache. */
template <class Shape>
struct attention_of_head : Shape {
  static constexpr int kv_heads = Shape::heads;
};

/* A block of scores as wgmma leaves it: lane l of a warp has rows l / 4 and l / 4 + 8 of the warp's 16, and of every
 * eight columns two. */
template <int Columns>
struct attention_sm90_layout {
  static constexpr int all_rows = attention_sm90_own, all_columns = Columns;
  static constexpr int rows = 2, columns = Columns / 4, lanes = 4;
  typedef float scores[Columns / 2];
  typedef uint32_t packed[Columns / 16][4];
  DEVICE static int row(int i) { return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i; }
  DEVICE static int column(int c) { return c / 2 * 8 + threadIdx.x % 4 * 2 + c % 2; }
  DEVICE static float &at(scores &scores, int i, int c) { return scores[c / 2 * 4 + 2 * i + c % 2]; }
  /* The scores of 16 columns are the left operand of 16 further along k, but for their rounding. */
  DEVICE static void pack(packed &to, const scores &scores) {
#pragma unroll
    for (int k = 0; k < Columns / 16; k++)
#pragma unroll
      for (int n = 0; n < 4; n++) to[k][n] = pack_bf16(scores[8 * k + 2 * n], scores[8 * k + 2 * n + 1]);
  }
};

/* Vectors in shared memory: chunks of 64 elements of each. */
template <int Vectors, int Chunks>
struct alignas(1024) attention_sm90_tile {
  __nv_bfloat16 elements[Chunks][Vectors][64];
};

/* A block of warpgroups that multiply, and one before them that copies and gives them its registers. */
template <int Groups, int Copying = Groups == 3 ? 32 : 24>
struct attention_sm90_block {
  static constexpr int groups = Groups, threads = 128 * (1 + Groups), own = Groups * attention_sm90_own;
  static constexpr int copying_registers = Copying;
  static constexpr int multiplying_registers = ((Groups == 3 ? 512 : 504) - Copying) / Groups;
  /* A block for each `own` vectors of a head: of queries, or of keys. */
  static dim3 grid(int64_t batch, int64_t time, int heads) {
    return dim3(static_cast<unsigned>((time + own - 1) / own), static_cast<unsigned>(heads),
                static_cast<unsigned>(batch));
  }
};

/* The sizes of a shape's kernels, and what their shared memory holds. */
template <class Shape>
struct attention_sm90 {
  static_assert(Shape::dim <= 192 && Shape::value_dim <= 128, "accumulators fit in registers");
  static constexpr int widest = attention_greater(Shape::dim, Shape::value_dim);
  static constexpr int key_chunks = attention_ceiling(Shape::dim, 64);
  static constexpr int value_chunks = attention_ceiling(Shape::value_dim, 64);
  /* Elements that are multiplied along k, and that sums have: widths of wgmma. */
  static constexpr int key_depth = attention_ceiling(Shape::dim, 16) * 16;
  static constexpr int value_depth = attention_ceiling(Shape::value_dim, 16) * 16;
  static constexpr int key_sums = attention_ceiling(Shape::dim, 32) * 32;
  static constexpr int value_sums = attention_ceiling(Shape::value_dim, 32) * 32;

  /* Scores, masks and dropout of the model's take registers too. */
  static constexpr bool formulas = Shape::scored || Shape::masked || Shape::drops;

  static constexpr bool slim = widest <= 64 && !formulas; /* there is room for a third warpgroup */
  typedef attention_sm90_block<slim ? 3 : 2, slim ? 32 : 40> forward;
  typedef attention_sm90_block<slim ? 3 : 2> query_gradient;
  typedef attention_sm90_block<slim && Shape::window == 0 && !Shape::documents ? 3 : 2> key_gradient;
  /* Vectors that pass at a time. */
  static constexpr int forward_columns = formulas ? 64 : 128;
  static constexpr int query_gradient_columns = 64;
  static constexpr int key_gradient_columns = widest <= (formulas ? 64 : 128) ? 64 : 32; /* queries */
  /* And that TMA copies at a time. */
  static constexpr int box = key_gradient_columns;

  struct forward_memory {
    attention_sm90_tile<attention_sm90_own, attention_greater(key_chunks, value_chunks)>
        queries[forward::groups]; /* and then the output */
    attention_sm90_tile<forward_columns, key_chunks> keys[2];
    attention_sm90_tile<forward_columns, value_chunks> values[2];
    uint64_t own_full[forward::groups], own_done[forward::groups];
    uint64_t keys_full[2], keys_empty[2], values_full[2], values_empty[2];
  };
  struct query_gradient_memory {
    attention_sm90_tile<attention_sm90_own, key_chunks> queries[query_gradient::groups]; /* then their gradient */
    attention_sm90_tile<attention_sm90_own, value_chunks> outputs[query_gradient::groups];
    attention_sm90_tile<query_gradient_columns, key_chunks> keys[2];
    attention_sm90_tile<query_gradient_columns, value_chunks> values[2];
    uint64_t own_full, full[2], empty[2];
  };
  struct key_gradient_memory {
    attention_sm90_tile<attention_sm90_own, key_chunks> keys[key_gradient::groups];     /* then their gradient */
    attention_sm90_tile<attention_sm90_own, value_chunks> values[key_gradient::groups]; /* likewise */
    attention_sm90_tile<key_gradient_columns, key_chunks> queries[2];
    attention_sm90_tile<key_gradient_columns, value_chunks> outputs[2];
    float2 statistics[2][key_gradient_columns];
    uint64_t own_full, full[2], empty[2];
  };
  /* As many blocks as run at once, or as there are tiles. */
  static unsigned forward_grid(int64_t batch, int64_t time) {
    const int64_t tiles = (time + forward::own - 1) / forward::own * Shape::heads * batch;
    const int64_t most = malc_multiprocessors();
    return static_cast<unsigned>(tiles < most ? tiles : most);
  }
  static constexpr unsigned forward_shared = sizeof(forward_memory);
  static constexpr unsigned query_gradient_shared = sizeof(query_gradient_memory);
  static constexpr unsigned key_gradient_shared = sizeof(key_gradient_memory);
};

#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* How a kernel begins: its barriers, by `prepare`, and the tensor maps are fetched. Then it waits for earlier launches,
 * which this one may overlap: until here no thread has touched what another kernel reads or writes. */
template <class Prepare, class... Maps>
DEVICE void attention_follow_sm90(const Prepare &prepare, const Maps *...maps) {
  if (threadIdx.x == 0) {
    prepare();
    mbarrier_init_fence();
    (tma_prefetch(maps), ...);
  }
  __syncthreads();
  grid_dependency_wait();
}

/* Copies a head's vectors from `first`, Box at a time. The barrier expects the size of the tile. By one thread. */
template <int Box, int Vectors, int Chunks>
DEVICE void attention_load_sm90(attention_sm90_tile<Vectors, Chunks> &to, const CUtensorMap *from, uint32_t barrier,
                                int first, int head, int sequence) {
#pragma unroll
  for (int chunk = 0; chunk < Chunks; chunk++)
#pragma unroll
    for (int n = 0; n < Vectors; n += Box)
      tma_load_4d(shared_address(to.elements[chunk][n]), from, barrier, chunk * 64, first + n, head, sequence);
}

/* This warp has read a stage of a ring. Every warp arrives, as each only waits for its own part of a wgmma. */
DEVICE void attention_release_sm90(uint64_t &empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(shared_address(&empty));
}

/* scores = the own vectors times passing vectors, transposed: both K-major. Issued only: fence, commit and wait are the
 * caller's, here and below. */
template <int Depth, int OwnChunks, int Columns, int Chunks>
DEVICE void attention_multiply_sm90(float (&scores)[Columns / 2],
                                    const attention_sm90_tile<attention_sm90_own, OwnChunks> &own,
                                    const attention_sm90_tile<Columns, Chunks> &passing) {
#pragma unroll
  for (int k = 0; k < Depth / 16; k++) {
    const uint32_t a = shared_address(own.elements[k / 4]), b = shared_address(passing.elements[k / 4]);
    wgmma<Columns, 0, 0>(scores, wgmma_descriptor(a + k % 4 * 32, 16, 1024), wgmma_descriptor(b + k % 4 * 32, 16, 1024),
                         k != 0);
  }
}

/* sum += weights [64][Vectors] times passing vectors, which are MN-major. */
template <int HalfWidth, int Vectors, int Chunks>
DEVICE void attention_accumulate_sm90(float (&sum)[HalfWidth], const uint32_t (&weights)[Vectors / 16][4],
                                      const attention_sm90_tile<Vectors, Chunks> &passing) {
  const uint32_t start = shared_address(passing.elements);
#pragma unroll
  for (int k = 0; k < Vectors / 16; k++)
    wgmma_registers<2 * HalfWidth, 1>(sum, weights[k], wgmma_descriptor(start + k * 2048, Vectors * 128, 1024), 1);
}

/* Leaves a warpgroup's sums, each row by its factor, in its own tile: a warp writes the 16 vectors that only its own
 * products have read, for which it has waited. */
template <int HalfWidth, int Chunks>
DEVICE void attention_leave_sm90(attention_sm90_tile<attention_sm90_own, Chunks> &tile, const float (&sum)[HalfWidth],
                                 const float (&factor)[2]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int n = 0; n < HalfWidth / 8; n++) {
    uint32_t four[4];
#pragma unroll
    for (int e = 0; e < 4; e++)
      four[e] = pack_bf16(factor[e % 2] * sum[8 * n + 2 * e], factor[e % 2] * sum[8 * n + 2 * e + 1]);
    const int sixteen_bytes = (n % 4 * 2 + lane / 16) ^ row % 8; // the swizzle
    stmatrix(shared_address(tile.elements[n / 4][row]) + sixteen_bytes * 16, four);
  }
  fence_async(); // by every writer, before the barrier: TMA reads what they wrote
}

/* Stores chunks of such a tile, Box vectors at a time. By one thread. */
template <int Box, int Chunks, int Room>
DEVICE void attention_take_sm90(const CUtensorMap *to, const attention_sm90_tile<attention_sm90_own, Room> &tile,
                                int first, int head, int sequence) {
  for (int chunk = 0; chunk < Chunks; chunk++)
    for (int n = 0; n < attention_sm90_own; n += Box)
      tma_store_4d(to, shared_address(tile.elements[chunk][n]), chunk * 64, first + n, head, sequence);
}

/* Both, and the wait for it. `barrier` is the warpgroup's own. */
template <int Box, int HalfWidth, int Chunks>
DEVICE void attention_store_sm90(const CUtensorMap *to, attention_sm90_tile<attention_sm90_own, Chunks> &tile,
                                 const float (&sum)[HalfWidth], const float (&factor)[2], int first, int head,
                                 int sequence, int barrier) {
  attention_leave_sm90(tile, sum, factor);
  barrier_sync(barrier, 128);
  if (threadIdx.x % 128 != 0) return;
  attention_take_sm90<Box, attention_ceiling(HalfWidth, 32)>(to, tile, first, head, sequence);
  bulk_commit();
  bulk_wait<0>();
}
#endif
