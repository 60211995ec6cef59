// grouped_sm90.h - products of rows with one of several matrices on Hopper GPUs: multiplied as in product_sm90.h.
//
// What slots read lies where their tokens do, and TMA brings only what lies side by side. So all threads of the
// producer gather rows by cp.async, 16 bytes each, into the layout that TMA would leave. An expert's matrix is brought
// by TMA, for both blocks of a cluster at once. Another kernel could gather the rows for TMA first, but would write and
// read 4 bytes more for each element: at 4.3 TB/s and 790 TFLOP/s a quarter of the time of a product of 1408 columns,
// and the cache hands over as many bytes either way. (A prediction; nothing of it has been measured.)
//
// cp.async writes as ordinary accesses do, and wgmma reads asynchronously: a thread whose copies have arrived fences
// them, and only then says so. It does that a few slices after it asked for them, as copies take longer than a slice.
#pragma once
#include "grouped.h"
#include "product_sm90.h"

// ---- Operands ----

/* The rows that sorted slots read: `Sharing` slots the same one. Where the run is `inner`, slots are outer positions,
 * and else inner ones, of which those from `end` on count as zeros. */
template <malc_side Run, int Sharing>
struct malc_gathered_rows {
  static constexpr bool transposed = Run == malc_side::outer, is_gathered = true;
  const __nv_bfloat16 *data;
  const int32_t *order;
  int stride, width; /* elements from row to row, and of a row */
  int end;

  /* The row that the slot at this place of the order reads; -1 where there is none. */
  DEVICE int row(int place, int before) const { return place < before ? order[place] / Sharing : -1; }
};

/* An expert's matrix, as a tensor map of rank 3 in boxes of 64 by 64 has those of all experts. */
template <malc_side Run>
struct malc_mapped_matrices {
  static constexpr bool transposed = Run == malc_side::outer, is_gathered = false;
  const CUtensorMap *map;
  int expert;
};

// ---- Producer ----

/* Brings the slices of a gathered left operand, and of a right one that is gathered or mapped: a warpgroup. */
template <class Shape, class Left, class Right>
struct malc_gatherer {
  static constexpr int threads = 128, warps = 4;
  static constexpr int arrivals = warps + (Right::is_gathered ? 0 : 1); // for a slice
  static constexpr int registers = 72, consumer_registers = 216;
  /* Slices that copies are under way for. Consumers free a slice once the next one is there. */
  static constexpr int ahead = Shape::stages - 2;
  static constexpr int lines = threads / 8; // 128 bytes each, by eight threads

  malc_stages<Shape> stages, arriving; // to be filled next; the first that copies are under way for
  int under_way = 0;
  uint32_t rank;
  malc_place at;

  DEVICE malc_gatherer(uint32_t shared, uint32_t rank) : stages{shared}, arriving{shared}, rank(rank) {}

  DEVICE void begin(const malc_place &tile) { at = malc_share(tile, rank); }

  DEVICE void multiply(const Left &left, const Right &right, int inner, int inner_end) {
    if constexpr (Right::is_gathered) {
      gather_slots(left, right, inner, inner_end);
    } else {
      gather_rows(left, right, inner, inner_end);
    }
  }

  /* Slots are rows of the tile, the same in all slices. */
  DEVICE void gather_rows(const Left &left, const Right &right, int inner, int inner_end) {
    int rows[Shape::rows / lines];
#pragma unroll
    for (int n = 0; n < Shape::rows / lines; n++)
      rows[n] = left.row(at.row + n * lines + static_cast<int>(threadIdx.x) / 8, at.row_end);
#pragma unroll 1
    for (; inner < inner_end; inner += Shape::depth) {
      mbarrier_wait(stages.empty(), stages.parity ^ 1);
      if (threadIdx.x == 0) load(right, inner);
      gather<1>(stages.left(), left, rows, inner);
      hand_over();
    }
  }

  /* Slots are inner positions. The next slice's are looked up while this one's are copied. */
  DEVICE void gather_slots(const Left &left, const Right &right, int inner, int inner_end) {
    constexpr int count = Shape::depth / lines;
    int left_rows[count], right_rows[count];
    const auto look_up = [&] {
#pragma unroll
      for (int n = 0; n < count; n++) {
        const int place = inner + n * lines + static_cast<int>(threadIdx.x) / 8;
        left_rows[n] = left.row(place, left.end);
        right_rows[n] = right.row(place, right.end);
      }
    };
    look_up();
#pragma unroll 1
    while (inner < inner_end) {
      mbarrier_wait(stages.empty(), stages.parity ^ 1);
      gather<Shape::left_boxes>(stages.left(), left, left_rows, at.row);
      gather<Shape::right_boxes>(stages.right(), right, right_rows, at.column);
      inner += Shape::depth;
      look_up();
      hand_over();
    }
  }

  /* Starts to copy `Runs` times 64 elements of each row, from a column on, into boxes that follow one another. */
  template <int Runs, class Rows, int Count>
  static DEVICE void gather(uint32_t to, const Rows &from, const int (&rows)[Count], int column) {
    const int line = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
    column += piece * 8;
    to += line * 128 + (piece ^ line % 8) * 16;
#pragma unroll
    for (int n = 0; n < Count; n++) {
      const __nv_bfloat16 *const row = from.data + static_cast<int64_t>(max(rows[n], 0)) * from.stride;
#pragma unroll
      for (int run = 0; run < Runs; run++) {
        const int at = column + run * Shape::side, left = rows[n] < 0 ? 0 : max(min(from.width - at, 8), 0);
        cp_async_part<16>(to + (run * Count + n) * lines * 128, row + at, left * 2);
      }
    }
  }

  /* By one thread: this block's half of the boxes of an expert's matrix, for both blocks. */
  DEVICE void load(const Right &right, int inner) {
    mbarrier_arrive_expect(stages.full(), Shape::right_boxes * Shape::box_bytes);
#pragma unroll
    for (int box = 0; box < Shape::right_boxes; box++) {
      if (box % Shape::cluster != static_cast<int>(rank)) continue;
      const int column = at.column + box * Shape::side;
      const int x = Right::transposed ? column : inner, y = Right::transposed ? inner : column;
      const uint32_t to = stages.right() + box * Shape::box_bytes;
      if constexpr (Shape::cluster == 1) tma_load_3d(to, right.map, stages.full(), x, y, right.expert);
      else tma_load_3d_multicast(to, right.map, stages.full(), x, y, right.expert, 3);
    }
  }

  /* Goes on to the next stage, and tells the consumers of the one whose copies should have arrived. */
  DEVICE void hand_over() {
    cp_async_commit();
    stages.advance();
    if (under_way < ahead) {
      under_way++;
      return;
    }
    cp_async_wait<ahead>();
    tell();
  }

  DEVICE void tell() {
    fence_async();
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(arriving.full());
    arriving.advance();
  }

  template <int Parts, int Step, int Width, class Finish>
  DEVICE void finish_through_memory(const Finish &) const {}

  /* Waits for all copies, and until nobody needs this block any more. */
  DEVICE void drain() {
    cp_async_wait<0>();
    for (; under_way > 0; under_way--) tell();
#pragma unroll 1
    for (int n = 0; n < Shape::stages; n++) {
      mbarrier_wait(stages.empty(), stages.parity ^ 1);
      stages.advance();
    }
  }
};

// ---- Products ----

/* Tiles of `rows` slots of all experts, `across` for each. Every warp counts them for itself. */
template <int Experts>
DEVICE int malc_tiles_of_all(const int32_t *bounds, int rows, int across) {
  int count = 0;
  for (int expert = threadIdx.x % 32; expert < Experts; expert += 32)
    count += (bounds[expert + 1] - bounds[expert] + rows - 1) / rows;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) count += __shfl_xor_sync(0xffffffffu, count, distance);
  return count * across;
}

/* What malc_grouped does, by all blocks of a launch: clusters take one tile after another of those that there are. */
template <class Shape, int Band, int Experts, int Columns, int Step, class T, class Left, class Right>
DEVICE void malc_grouped_on_hopper(T *result, const malc_slots<Experts> &slots, const Left &left, Right right,
                                   int inner) {
  typedef malc_gatherer<Shape, Left, Right> Gatherer;
  constexpr int rows = Shape::cluster * Shape::rows, across = (Columns + Shape::columns - 1) / Shape::columns;
  malc_begin_jobs<Shape, Gatherer>(right.map);
  const int tiles = malc_tiles_of_all<Experts>(slots.bounds, rows, across);
  malc_run_jobs<Shape, Gatherer>(tiles, [&](auto &tile, int number) {
    const malc_expert_tile own = malc_tile_of<Experts>(slots.bounds, number, rows, across);
    right.expert = own.expert;
    tile.begin(own.place(Columns, rows, Shape::columns, Band));
    tile.multiply(left, right, 0, inner);
    tile.template finish_through_memory<1, Step, 128>([&](const auto &sums, int64_t row, int64_t column) {
      malc_store_sums<Step>(result + static_cast<int64_t>(slots.order[row]) * Columns + column, sums, row, column);
    });
  });
}

/* What malc_grouped_gradient does, likewise. */
template <class Shape, int Band, int Experts, int Rows, int Columns, int Step, class Left, class Right>
DEVICE void malc_grouped_gradient_on_hopper(float *gradient, const malc_slots<Experts> &slots, Left left, Right right,
                                            bool adds) {
  typedef malc_gatherer<Shape, Left, Right> Gatherer;
  const malc_tiles tiles(Rows, Columns, Shape::cluster * Shape::rows, Shape::columns, Band);
  const int count = tiles.count();
  malc_begin_jobs<Shape, Gatherer>();
  malc_run_jobs<Shape, Gatherer>(Experts * count, [&](auto &tile, int number) {
    const int expert = number / count, first = slots.bounds[expert];
    left.end = right.end = slots.bounds[expert + 1];
    float *const own = gradient + static_cast<int64_t>(expert) * Rows * Columns;
    tile.begin(tiles.place(number % count));
    tile.multiply(left, right, first, max(left.end, first + 1)); // of an expert without slots, zeros
    tile.template finish_through_memory<1, Step, 128>([&](const auto &sums, int64_t row, int64_t column) {
      malc_add_sums<Step>(own + row * Columns + column, sums, row, column, adds);
    });
  });
}
