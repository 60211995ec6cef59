// product_sm90.h - tiles of products of bfloat16 numbers on Hopper GPUs: TMA brings the operands, wgmma multiplies.
//
// Blocks run in clusters of one or two, as many as fit the GPU, and a cluster takes one job after another: a tile of 128
// rows to a block. In a block one thread (the producer) brings slices of 64 inner positions, a few ahead of their use:
// the block's own of the left operand, and its share of the right one's, which both blocks get by multicast. Two warpgroups
// (the consumers) have 64 rows each. A warp finishes its elements without waiting for others, so that one warpgroup's
// finishing overlaps the other's multiplication, and the producer is ahead with the next job's slices.
//
// Slices lie in shared memory as boxes of 64 outer by 64 inner positions, in TMA's 128-byte swizzle. Only TMA writes
// and only wgmma reads them, and sums pass through memory of their own: no ordinary access meets an asynchronous one,
// so none needs a fence_async. Beyond a tensor's edges boxes hold zeros.
#pragma once
#include "launch.h"
#include "product.h"

/* An operand, or those of several products side by side, as tensor maps in boxes of 64 by 64 have it. */
template <malc_side Run, int Parts = 1>
struct malc_mapped {
  static constexpr malc_side run = Run;
  static constexpr int parts = Parts;
  static constexpr bool transposed = Run == malc_side::outer; // what wgmma calls MN-major
  const CUtensorMap *maps[Parts];
};

/* Tiles of `Columns` columns, in clusters of `Cluster` blocks, with so many slices under way; and what they take in
 * shared memory. A launch has one shape: compiler/targets/cuda/hopper-schedule.ts chooses it. */
template <int Columns, int Cluster, int Stages>
struct malc_hopper_shape {
  static_assert(Columns % 64 == 0 && Columns <= 256 && (Cluster == 1 || Cluster == 2) && Stages >= 2, "such a shape");
  static constexpr int columns = Columns, cluster = Cluster, stages = Stages, threads = 384;
  static constexpr int rows = 128, side = 64, depth = 64; // of a block's tile; of a box; of a slice
  static constexpr int box_bytes = side * depth * 2;
  static constexpr int left_boxes = rows / side, right_boxes = Columns / side;
  static constexpr int stage_bytes = (left_boxes + right_boxes) * box_bytes;
  /* Sums that a warp finishes at a time. */
  static constexpr int chunk_rows = 8, chunk_columns = 128;
  static constexpr int chunk_bytes = chunk_rows * malc_tile_sums<chunk_columns>::stride * 4;
  static constexpr int chunks_at = stages * stage_bytes, barriers_at = chunks_at + 8 * chunk_bytes;
  /* Dynamic shared memory: the stages, a chunk for each warp of the consumers, two barriers for each stage. */
  static constexpr int shared_bytes = barriers_at + stages * 16;
  static_assert(shared_bytes <= 232448, "227 KB");
};

/* The blocks of a launch: no more clusters than have a job, or run at once. */
template <class Shape>
malc_grid malc_hopper_grid(int64_t jobs) {
  const int64_t clusters = malc_multiprocessors() / Shape::cluster;
  const int64_t blocks = Shape::cluster * (jobs < clusters ? jobs : clusters);
  return malc_grid(static_cast<unsigned>(blocks)).clusters_of(Shape::cluster);
}

/* The stages, in the order in which they are filled and used; `parity` is that of their barriers' phases. */
template <class Shape>
struct malc_stages {
  uint32_t shared; /* address of the first */
  int stage = 0;
  uint32_t parity = 0;

  DEVICE uint32_t left() const { return shared + stage * Shape::stage_bytes; }
  DEVICE uint32_t right() const { return left() + Shape::left_boxes * Shape::box_bytes; }
  DEVICE uint32_t full() const { return shared + Shape::barriers_at + stage * 16; }
  DEVICE uint32_t empty() const { return full() + 8; }
  DEVICE void advance() {
    if (++stage < Shape::stages) return;
    stage = 0;
    parity ^= 1;
  }
};

/* The rows of a cluster's tile that a block has: none, where there are few. */
DEVICE malc_place malc_share(malc_place at, uint32_t rank) {
  at.row += static_cast<int>(rank) * 128;
  at.row_end = min(at.row_end, at.row + 128);
  return at;
}

/* Brings the slices: one thread of the block. A job calls the same functions of producer and consumers. */
template <class Shape>
struct malc_producer {
  static constexpr int threads = 1, arrivals = 1; // of a slice's bringing
  static constexpr int registers = 24, consumer_registers = 240;
  malc_stages<Shape> stages;
  uint32_t rank;
  malc_place at;

  DEVICE malc_producer(uint32_t shared, uint32_t rank) : stages{shared}, rank(rank) {}

  DEVICE void begin(const malc_place &tile) { at = malc_share(tile, rank); }

  template <class Left, class Right>
  DEVICE void multiply(const Left &left, const Right &right, int inner, int inner_end) {
    constexpr int boxes_of_part = Shape::right_boxes / Right::parts;
#pragma unroll 1
    for (; inner < inner_end; inner += Shape::depth) {
      mbarrier_wait(stages.empty(), stages.parity ^ 1);
      mbarrier_arrive_expect(stages.full(), Shape::stage_bytes);
#pragma unroll
      for (int box = 0; box < Shape::left_boxes; box++) {
        const int row = at.row + box * Shape::side;
        tma_load_2d(stages.left() + box * Shape::box_bytes, left.maps[0], stages.full(),
                    Left::transposed ? row : inner, Left::transposed ? inner : row);
      }
#pragma unroll
      for (int box = 0; box < Shape::right_boxes; box++) {
        if (box % Shape::cluster != static_cast<int>(rank)) continue;
        const int column = at.column + box % boxes_of_part * Shape::side;
        const int x = Right::transposed ? column : inner, y = Right::transposed ? inner : column;
        const uint32_t to = stages.right() + box * Shape::box_bytes;
        const CUtensorMap *const map = right.maps[box / boxes_of_part];
        if constexpr (Shape::cluster == 1) tma_load_2d(to, map, stages.full(), x, y);
        else tma_load_2d_multicast(to, map, stages.full(), x, y, 3);
      }
      stages.advance();
    }
  }

  template <int Parts, int Step, int Width, class Finish>
  DEVICE void finish(const Finish &) const {}

  /* Waits until nobody needs this block any more: its barriers, and what the other block gets from it. */
  DEVICE void drain() {
#pragma unroll 1
    for (int n = 0; n < Shape::stages; n++) {
      mbarrier_wait(stages.empty(), stages.parity ^ 1);
      stages.advance();
    }
  }
};

/* Multiplies and finishes 64 rows: a warpgroup. */
template <class Shape>
struct malc_consumer {
  malc_stages<Shape> stages;
  uint32_t rank;
  int warpgroup;
  malc_place at;
  int accumulates = 0;
  float sums[Shape::columns / 2];

  DEVICE malc_consumer(uint32_t shared, uint32_t rank, int warpgroup)
      : stages{shared}, rank(rank), warpgroup(warpgroup) {}

  DEVICE void begin(const malc_place &tile) {
    at = malc_share(tile, rank);
    accumulates = 0;
  }

  /* Adds the product over the inner positions [inner, inner_end), of which there is one at least. */
  template <class Left, class Right>
  DEVICE void multiply(const Left &left, const Right &right, int inner, int inner_end) {
    (void)left, (void)right;
    // From 16 inner positions to the next 16, in units of 16 bytes: along a row of a box, or over 16 of its rows.
    constexpr int left_step = Left::transposed ? 128 : 2, right_step = Right::transposed ? 128 : 2;
    uint32_t before = 0; // the barrier of the stage before
#pragma unroll 1
    for (int k = inner; k < inner_end; k += Shape::depth) {
      mbarrier_wait(stages.full(), stages.parity);
      const uint64_t a = wgmma_descriptor(stages.left() + warpgroup * Shape::box_bytes, Shape::box_bytes, 1024);
      const uint64_t b = wgmma_descriptor(stages.right(), Shape::box_bytes, 1024);
      wgmma_fence();
#pragma unroll
      for (int n = 0; n < Shape::depth / 16; n++)
        wgmma<Shape::columns, Left::transposed, Right::transposed>(sums, a + n * left_step, b + n * right_step,
                                                                   n == 0 ? accumulates : 1);
      wgmma_commit();
      accumulates = 1;
      // One slice is multiplied while the next one's wgmmas are queued: the stage before is free now.
      wgmma_wait<1>();
      if (k > inner) release(before);
      before = stages.empty();
      stages.advance();
    }
    wgmma_wait<0>();
    release(before);
  }

  /* Tells the producers of both blocks that this warpgroup has read a stage: both fill it. */
  DEVICE void release(uint32_t empty) const {
    const uint32_t thread = threadIdx.x % 128;
    if constexpr (Shape::cluster == 1) {
      if (thread == 0) mbarrier_arrive(empty);
    } else if (thread < Shape::cluster) mbarrier_arrive_remote(empty, thread);
  }

  /* Calls finish(sums, row, column) for every `Step`-th element, of `Parts` products side by side. A warp has 16 rows:
   * it leaves 8 of them, `Width` columns of each product at a time, in its own part of shared memory. */
  template <int Parts, int Step, int Width, class Finish>
  DEVICE void finish(const Finish &finish) const {
    typedef malc_tile_sums<Shape::chunk_columns, Parts> Sums;
    constexpr int columns = Shape::columns / Parts; // of a product
    static_assert(Width % 8 == 0 && Width <= Shape::chunk_columns / Parts, "a chunk has whole fragments, and fits");
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    float *const chunk = reinterpret_cast<float *>(dynamic_shared() + Shape::chunks_at +
                                                   (warpgroup * 4 + warp) * Shape::chunk_bytes);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = at.row + warpgroup * 64 + warp * 16 + half * 8;
#pragma unroll
      for (int first = 0; first < columns; first += Width) {
        const malc_place place{row, min(row + 8, at.row_end), at.column + first,
                               min(at.column + first + Width, at.column_end)};
        if (place.row >= place.row_end || place.column >= place.column_end) continue; // so for all of the warp
#pragma unroll
        for (int part = 0; part < Parts; part++)
#pragma unroll
          for (int column = 0; column < Width && first + column < columns; column += 8) {
            const int fragment = (part * columns + first + column) / 2 + 2 * half;
            float *const to = chunk + lane / 4 * Sums::stride + part * (Shape::chunk_columns / Parts) + column;
            *reinterpret_cast<float2 *>(to + lane % 4 * 2) = make_float2(sums[fragment], sums[fragment + 1]);
          }
        __syncwarp();
        malc_finish_tile<32, Shape::chunk_rows, Shape::chunk_columns, Parts, Step>(chunk, place, finish, lane);
        __syncwarp(); // the chunk is free, and the warp together, as the next wgmma needs it
      }
    }
  }
};

/* Does all jobs, by all blocks: job(role, number) calls begin, multiply and finish of a role. */
template <class Shape, class Producer = malc_producer<Shape>, class Job>
DEVICE void malc_run_jobs(int jobs, const Job &job) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const uint32_t shared = shared_address(dynamic_shared()), rank = Shape::cluster == 1 ? 0 : cluster_rank();
  // By a shuffle, so that the compiler knows that all of a warp have the same.
  const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);
  if (threadIdx.x == 0) {
    for (malc_stages<Shape> stages{shared}; stages.parity == 0; stages.advance()) {
      mbarrier_init(stages.full(), Producer::arrivals);
      mbarrier_init(stages.empty(), 2 * Shape::cluster); // by each warpgroup that reads what a producer brings
    }
    mbarrier_init_fence();
  }
  if constexpr (Shape::cluster == 1) __syncthreads();
  else cluster_sync();
  const int first = blockIdx.x / Shape::cluster, clusters = gridDim.x / Shape::cluster;
  if (warpgroup == 0) {
    registers_decrease<Producer::registers>();
    if (threadIdx.x < Producer::threads) {
      Producer producer(shared, rank);
      for (int number = first; number < jobs; number += clusters) job(producer, number);
      producer.drain();
    }
  } else {
    registers_increase<Producer::consumer_registers>();
    malc_consumer<Shape> consumer(shared, rank, warpgroup - 1);
    for (int number = first; number < jobs; number += clusters) job(consumer, number);
  }
#endif
}
