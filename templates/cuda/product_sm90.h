// product_sm90.h - tiles of products of bfloat16 numbers on Hopper GPUs: TMA brings the operands, wgmma multiplies.
//
// Blocks run in clusters of one or two, as many as fit the GPU, and a cluster takes one job after another: a tile of
// 128 rows to a block. In a block one thread (the producer) brings slices of 64 inner positions, a few ahead of their
// use: the block's own of the left operand, and its share of the right one's, which both blocks get by multicast. Two
// warpgroups (the consumers) have 64 rows each. Each finishes its elements without waiting for the other, so that one's
// finishing overlaps the other's multiplication, and the producer is ahead with the next job's slices.
//
// Slices lie in shared memory as boxes of 64 outer by 64 inner positions, in TMA's 128-byte swizzle. Only TMA writes
// and only wgmma reads them, so they need no fence_async; product_sm90_finish.h has the boxes that do. Beyond a
// tensor's edges boxes hold zeros.
#pragma once
#include "launch.h"
#include "product.h"
#include "product_sm90_finish.h"

/* An operand, or those of several products side by side, as tensor maps in boxes of 64 by 64 have it. */
template <malc_side Run, int Parts = 1>
struct malc_mapped {
  static constexpr malc_side run = Run;
  static constexpr int parts = Parts;
  static constexpr bool transposed = Run == malc_side::outer; // what wgmma calls MN-major
  const CUtensorMap *maps[Parts];
};

/* Tiles of `Columns` columns, in clusters of `Cluster` blocks, with so many slices under way and so many boxes for what
 * each consumer finishes; and what they take in shared memory. A launch has one shape, which
 * compiler/targets/cuda/hopper-schedule.ts chooses. */
template <int Columns, int Cluster, int Stages, int Boxes>
struct malc_hopper_shape {
  static_assert(Columns % 64 == 0 && Columns <= 256 && (Cluster == 1 || Cluster == 2), "tiles of these");
  static_assert(Stages >= 2 && Boxes >= 2, "one besides what is multiplied; what finish_through_memory takes");
  static constexpr int columns = Columns, cluster = Cluster, stages = Stages, boxes = Boxes, threads = 384;
  static constexpr int rows = 128, side = 64, depth = 64; // of a block's tile; of a box; of a slice
  static constexpr int box_bytes = side * depth * 2;
  static constexpr int left_boxes = rows / side, right_boxes = Columns / side;
  static constexpr int stage_bytes = (left_boxes + right_boxes) * box_bytes;
  /* Dynamic shared memory: the stages, each consumer's boxes, two barriers of each stage, one of each slot of boxes. */
  static constexpr int boxes_at = stages * stage_bytes, barriers_at = boxes_at + 2 * boxes * malc_box_bytes;
  static constexpr int brought_at = barriers_at + stages * 16, most_slots = 4;
  static constexpr int shared_bytes = brought_at + 2 * most_slots * 8;
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

  template <int Parts, class... Tensors>
  DEVICE void prepare(const Tensors &...) const {}
  template <int Parts, class Finish, class... Tensors>
  DEVICE void finish_in_place(const Finish &, const Tensors &...) const {}
  template <int Parts, int Step, int Width, class Finish>
  DEVICE void finish_through_memory(const Finish &) const {}

  /* Waits until nobody needs this block any more: its barriers, and what the other block gets from it. */
  DEVICE void drain() {
#pragma unroll 1
    for (int n = 0; n < Shape::stages; n++) {
      mbarrier_wait(stages.empty(), stages.parity ^ 1);
      stages.advance();
    }
  }
};

/* What a warp finishes through memory at a time: 8 rows of 128 sums, of `Parts` products side by side. Rows are
 * swizzled by 8 banks, so that what fragments store lies in all of them. */
template <int Parts>
struct malc_chunk_sums {
  static constexpr int bytes = 8 * 128 * 4;
  const float *sums;
  malc_place at;
  DEVICE static int offset(int row, int column) { return row * 128 + (column ^ row % 4 * 8); }
  DEVICE const float *place(int product, int64_t row, int64_t column) const {
    const int of_product = static_cast<int>(column) - at.column;
    return sums + offset(static_cast<int>(row) - at.row, product * (128 / Parts) + of_product);
  }
  DEVICE float operator()(int product, int64_t row, int64_t column) const { return *place(product, row, column); }
  /* Those of four columns from a multiple of four on. */
  DEVICE void four(float (&to)[4], int product, int64_t row, int64_t column) const {
    malc_load_4(to, place(product, row, column));
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
  uint32_t brought_parity = 0; // a bit for each slot
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

  /* Asks for the first columns of what is read where the result lies: between begin and multiply. */
  template <int Parts, class... Tensors>
  DEVICE void prepare(const Tensors &...tensors) {
    typedef malc_slots_of<Shape::boxes, Tensors...> Slots;
    if constexpr (Slots::brought_bytes > 0) {
      if (own_row() >= at.row_end) return;
      barrier_sync(1 + warpgroup, 128); // all of the tile before is finished
      if (threadIdx.x % 128 != 0) return;
      bulk_wait_read<0>();
#pragma unroll
      for (int chunk = 0; chunk < Slots::count; chunk++) bring<Parts, Slots>(chunk, tensors...);
    }
  }

  /* Calls finish(sums, row, column, inside, two of each tensor...) for every two columns: what is not `inside` the
   * result may read (row and column are then others) and must not write, except to tensors. Tensors are what was
   * prepared. */
  template <int Parts, class Finish, class... Tensors>
  DEVICE void finish_in_place(const Finish &finish, Tensors &...tensors) {
    typedef malc_slots_of<Shape::boxes, Tensors...> Slots;
    constexpr bool passes = sizeof...(Tensors) > 0, brings = Slots::brought_bytes > 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    const bool first = threadIdx.x % 128 == 0;
    if (own_row() >= at.row_end) return;
#pragma unroll
    for (int chunk = 0; chunk < Shape::columns / Parts / 64; chunk++) {
      const int slot = chunk % Slots::count, column = at.column + chunk * 64;
      if (column >= at.column_end) break;
      if constexpr (brings) {
        mbarrier_wait(brought(slot), brought_parity >> slot & 1);
        brought_parity ^= 1 << slot;
        if constexpr (Slots::apart > 0) barrier_sync(1 + warpgroup, 128); // the first has waited for what is apart
      } else if constexpr (passes) {
        if (first && chunk == 0) bulk_wait_read<0>();
        if (first && chunk >= Slots::count) bulk_wait_read<Slots::count - 1>();
        barrier_sync(1 + warpgroup, 128);
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        (tensors.take(slot_at(Slots::template start<Tensors>(slot)), half), ...);
        if constexpr (brings) __syncwarp(); // before any of the warp writes to the same boxes
#pragma unroll
        for (int n = 0; n < 8; n++) {
          const int r = own_row() + warp * 16 + n % 2 * 8 + lane / 4, c = column + half * 32 + n / 2 * 8 + lane % 4 * 2;
          const malc_sums_of_two<Shape::columns, Parts> two{sums, chunk * 32 + half * 16 + n * 2};
          finish(two, r < at.row_end ? r : at.row, c < at.column_end ? c : at.column,
                 r < at.row_end && c < at.column_end, tensors.pairs[n]...);
        }
        (tensors.leave(slot_at(Slots::template start<Tensors>(slot)), half,
                       malc_place{own_row() + warp * 16, at.row_end, column + half * 32, at.column_end}),
         ...);
      }
      if constexpr (passes) {
        fence_async();
        barrier_sync(1 + warpgroup, 128);
        if (first) {
          (tensors.send(stages.shared + slot_at(Slots::template start<Tensors>(slot)), column, own_row()), ...);
          bulk_commit();
          if constexpr (brings) {
            bulk_wait_read<0>();
            bring<Parts, Slots>(chunk + Slots::count, tensors...);
          }
        }
      }
    }
    __syncwarp(); // the warp is together, as the next wgmma needs it
    (tensors.conclude(malc_place{own_row() + warp * 16, at.row_end, at.column, at.column_end}), ...);
  }

  /* Calls finish(sums, row, column) for every `Step`-th element, of `Parts` products side by side, through memory: sums
   * are those of other columns too. A warp has 16 rows: it leaves 8 of them, `Width` columns of each product at a time,
   * in its own part of the boxes. */
  template <int Parts, int Step, int Width, class Finish>
  DEVICE void finish_through_memory(const Finish &finish) {
    constexpr int columns = Shape::columns / Parts, chunk_columns = 128 / Parts; // of a product
    constexpr int steps = chunk_columns / Step;
    static_assert(Width % 8 == 0 && Width <= chunk_columns, "a chunk has whole fragments, and fits");
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;
    float *const chunk = reinterpret_cast<float *>(dynamic_shared() + slot_at(warp * malc_chunk_sums<Parts>::bytes));
    if (threadIdx.x % 128 == 0) bulk_wait_read<0>();
    barrier_sync(1 + warpgroup, 128);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = own_row() + warp * 16 + half * 8;
#pragma unroll
      for (int first = 0; first < columns; first += Width) {
        const malc_place place{row, min(row + 8, at.row_end), at.column + first,
                               min(at.column + first + Width, at.column_end)};
        if (place.row >= place.row_end || place.column >= place.column_end) continue; // so for all of the warp
        const malc_chunk_sums<Parts> chunk_sums{chunk, place};
#pragma unroll
        for (int part = 0; part < Parts; part++)
#pragma unroll
          for (int column = 0; column < Width && first + column < columns; column += 8) {
            const int fragment = (part * columns + first + column) / 2 + 2 * half;
            float *const to = chunk + chunk_sums.offset(lane / 4, part * chunk_columns + column + lane % 4 * 2);
            *reinterpret_cast<float2 *>(to) = make_float2(sums[fragment], sums[fragment + 1]);
          }
        __syncwarp();
        // Two at once: more would need registers that are not left beside the sums.
#pragma unroll 2
        for (int index = lane; index < 8 * steps; index += 32) {
          const int r = place.row + index / steps, c = place.column + index % steps * Step;
          if (r < place.row_end && c < place.column_end) finish(chunk_sums, r, c);
        }
        __syncwarp(); // the chunk is free, and the warp together, as the next wgmma needs it
      }
    }
    fence_async(); // before TMA writes to the boxes
  }

  /* Waits until what was left has arrived. */
  DEVICE void drain() const {
    if (threadIdx.x % 128 == 0) bulk_wait<0>();
  }

private:
  DEVICE int own_row() const { return at.row + warpgroup * 64; }
  /* An offset within this warpgroup's boxes, in dynamic shared memory. */
  DEVICE int slot_at(int offset) const { return Shape::boxes_at + warpgroup * Shape::boxes * malc_box_bytes + offset; }
  /* The barrier of what TMA brings to a slot. */
  DEVICE uint32_t brought(int slot) const {
    return stages.shared + Shape::brought_at + (warpgroup * Shape::most_slots + slot) * 8;
  }

  /* Asks for the n-th 64 columns of a tile, where there are such: the warpgroup's first thread. */
  template <int Parts, class Slots, class... Tensors>
  DEVICE void bring(int chunk, const Tensors &...tensors) const {
    const int slot = chunk % Slots::count, column = at.column + chunk * 64;
    if (chunk >= Shape::columns / Parts / 64 || column >= at.column_end) return;
    mbarrier_arrive_expect(brought(slot), Slots::brought_bytes);
    const auto start = [&](int offset) { return stages.shared + slot_at(offset); };
    (tensors.bring(start(Slots::template start<Tensors>(slot)), brought(slot), column, own_row()), ...);
  }
};

/* How a kernel of jobs begins: barriers, and the tensor maps are fetched. Then it waits for earlier launches, which it
 * may overlap: until here no thread has touched what another kernel reads or writes. */
template <class Shape, class Producer = malc_producer<Shape>, class... Maps>
DEVICE void malc_begin_jobs(const Maps *...maps) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const uint32_t shared = shared_address(dynamic_shared());
  if (threadIdx.x == 0) {
    for (malc_stages<Shape> stages{shared}; stages.parity == 0; stages.advance()) {
      mbarrier_init(stages.full(), Producer::arrivals);
      mbarrier_init(stages.empty(), 2 * Shape::cluster); // by each warpgroup that reads what a producer brings
    }
    for (int slot = 0; slot < 2 * Shape::most_slots; slot++) mbarrier_init(shared + Shape::brought_at + slot * 8, 1);
    mbarrier_init_fence();
    (tma_prefetch(maps), ...);
  }
  if constexpr (Shape::cluster == 1) __syncthreads();
  else cluster_sync();
  grid_dependency_wait();
#endif
}

/* Does all jobs, by all blocks, after malc_begin_jobs: job(role, number) calls begin, multiply and finish of a role. */
template <class Shape, class Producer = malc_producer<Shape>, class Job>
DEVICE void malc_run_jobs(int jobs, const Job &job) {
#if defined(MALC_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const uint32_t shared = shared_address(dynamic_shared()), rank = Shape::cluster == 1 ? 0 : cluster_rank();
  // By a shuffle, so that the compiler knows that all of a warp have the same.
  const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);
  const int first = blockIdx.x / Shape::cluster, clusters = gridDim.x / Shape::cluster;
  if (warpgroup == 0) {
    registers_decrease<Producer::registers>();
    if (threadIdx.x < Producer::threads) {
      Producer producer(shared, rank);
      for (int number = first; number < jobs; number += clusters) {
        if (number + clusters >= jobs) grid_dependency_launch(); // this block's last
        job(producer, number);
      }
      producer.drain();
    }
  } else {
    registers_increase<Producer::consumer_registers>();
    malc_consumer<Shape> consumer(shared, rank, warpgroup - 1);
    for (int number = first; number < jobs; number += clusters) job(consumer, number);
    consumer.drain();
  }
#else
  (void)jobs, (void)job;
#endif
}
