// grouped.h - products of rows with one of several matrices: the experts that each row chose, or each head's own.
//
// Slots are sorted by expert (slots.h), so that each expert's rows meet its matrix together: a block has a tile of one
// expert's slots, reads their rows where they lie, and stores each result where its slot is. How many slots an expert
// has only the device knows. So there are blocks for the worst case; each finds its own tile, or ends.
#pragma once
#include "product.h"
#include "slots.h"

// ---- Operands ----

/* The rows that sorted slots read, as an operand: where the run is `inner`, slots are its outer positions, and else its
 * inner ones. `Sharing` slots read the same row. */
template <class T, malc_side Run, int Aligned, int Sharing>
struct malc_slot_rows {
  typedef T type;
  static constexpr malc_side run = Run;
  static constexpr int aligned = Aligned, parts = 1;
  const T *data;
  const int32_t *order;
  int64_t row; /* elements of a row */
  int last;    /* what lies past it is asked for, but not read */

  DEVICE const T *at(int, int outer, int inner) const {
    const int place = Run == malc_side::inner ? outer : inner, within = Run == malc_side::inner ? inner : outer;
    return data + order[min(place, last)] / Sharing * row + within;
  }
};

// ---- Tiles of experts ----

/* Tiles of so many rows that the slots of all experts have at most: none is divided into more than it has whole tiles,
 * and one besides. */
__host__ __device__ constexpr int64_t malc_expert_tiles(int64_t slots, int experts, int rows) {
  return slots / rows + (slots < experts ? slots : experts);
}

/* One of an expert's tiles, and the expert's sorted slots [first, end). The expert is -1 where there is no such tile. */
struct malc_expert_tile {
  int expert, first, end, number;

  /* The sorted slots and the columns of the tile, where tiles are of `rows` by `width`, in bands of `high`. */
  DEVICE malc_place place(int columns, int rows, int width, int high = 8) const {
    malc_place at = malc_tiles(end - first, columns, rows, width, high).place(number);
    at.row += first;
    at.row_end += first;
    return at;
  }
};

/* The tile of this number among those of all experts, which have `across` for every `rows` slots. Every warp finds it
 * for itself. */
template <int Experts>
DEVICE malc_expert_tile malc_tile_of(const int32_t *bounds, int number, int rows, int across) {
  const int lane = threadIdx.x % 32;
  for (int base = 0; base < Experts; base += 32) {
    const int begin = bounds[min(base + lane, Experts)], end = bounds[min(base + lane + 1, Experts)];
    const int own = (end - begin + rows - 1) / rows * across;
    int through = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, through, distance);
      if (lane >= distance) through += other;
    }
    const unsigned beyond = __ballot_sync(0xffffffffu, through > number);
    if (beyond != 0) {
      const int which = __ffs(beyond) - 1;
      return {base + which, __shfl_sync(0xffffffffu, begin, which), __shfl_sync(0xffffffffu, end, which),
              number - __shfl_sync(0xffffffffu, through - own, which)};
    }
    number -= __shfl_sync(0xffffffffu, through, 31);
  }
  return {-1, 0, 0, 0};
}

// ---- Products ----

/* Stores `Step` sums, 1 or 4, from a column on. */
template <int Step, class T, class Sums>
DEVICE void malc_store_sums(T *to, const Sums &sums, int64_t row, int64_t column) {
  if constexpr (Step == 4) {
    float four[4];
    sums.four(four, 0, row, column);
    malc_store_4(to, four);
  } else {
    malc_store(to, sums(0, row, column));
  }
}

/* The same; with `adds`, they are added to what is there. */
template <int Step, class Sums>
DEVICE void malc_add_sums(float *to, const Sums &sums, int64_t row, int64_t column, bool adds) {
  if constexpr (Step == 4) {
    float four[4], before[4] = {};
    sums.four(four, 0, row, column);
    if (adds) malc_load_4(before, to);
#pragma unroll
    for (int n = 0; n < 4; n++) four[n] += before[n];
    malc_store_4(to, four);
  } else {
    *to = (adds ? *to : 0.0f) + sums(0, row, column);
  }
}

/* Moves an operand to an expert's matrix, which has so many columns of `inner` elements: matrices follow one
 * another. */
template <class Right>
DEVICE void malc_skip_matrices(Right &right, int expert, int inner, int columns) {
  right.data[0] += static_cast<int64_t>(expert) * (Right::run == malc_side::inner ? columns : inner) * right.stride;
}

/* result[slot][Columns] = what the slot reads, `inner` elements, times its expert's matrix: one block's tile of it. */
template <class Tile, int Experts, int Columns, int Step, class T, class Left, class Right>
DEVICE void malc_grouped(T *result, const malc_slots<Experts> &slots, const Left &left, Right right, int inner) {
  constexpr int across = (Columns + Tile::columns - 1) / Tile::columns;
  const malc_expert_tile own = malc_tile_of<Experts>(slots.bounds, blockIdx.x, Tile::rows, across);
  if (own.expert < 0) return;
  malc_skip_matrices(right, own.expert, inner, Columns);
  Tile tile(own.place(Columns, Tile::rows, Tile::columns));
  tile.multiply(left, right, 0, inner);
  tile.template finish<1, Step>([&](const auto &sums, int64_t row, int64_t column) {
    malc_store_sums<Step>(result + static_cast<int64_t>(slots.order[row]) * Columns + column, sums, row, column);
  });
}

constexpr int malc_few_columns = 16; /* of a block, where rows are few */

/* The same for few rows, as in decoding: blocks have malc_few_rows slots of an expert, and malc_few_columns columns. */
template <int Threads, int Experts, int Columns, int Step, class Left, class Right>
DEVICE void malc_grouped_few(float *result, const malc_slots<Experts> &slots, const Left &left, Right right,
                             int inner) {
  constexpr int across = (Columns + malc_few_columns - 1) / malc_few_columns;
  const malc_expert_tile own = malc_tile_of<Experts>(slots.bounds, blockIdx.x, malc_few_rows, across);
  if (own.expert < 0) return;
  malc_skip_matrices(right, own.expert, inner, Columns);
  const malc_place at = own.place(Columns, malc_few_rows, malc_few_columns);
  const auto finish = [&](const auto &sums, int64_t row, int64_t column) {
    malc_store_sums<Step>(result + static_cast<int64_t>(slots.order[row]) * Columns + column, sums, row, column);
  };
  malc_multiply_few<Threads, malc_few_columns, Step>(left, right, at, inner, finish);
}

/* gradient[expert][Rows][Columns] = the sum of left x right over the expert's slots, in their order: one block's tile.
 * With `adds`, that is added. */
template <class Tile, int Experts, int Rows, int Columns, int Step, class Left, class Right>
DEVICE void malc_grouped_gradient(float *gradient, const malc_slots<Experts> &slots, const Left &left,
                                  const Right &right, bool adds) {
  const malc_tiles tiles(Rows, Columns, Tile::rows, Tile::columns);
  const int expert = blockIdx.x / tiles.count();
  gradient += static_cast<int64_t>(expert) * Rows * Columns;
  Tile tile(tiles.place(blockIdx.x % tiles.count()));
  tile.multiply(left, right, slots.bounds[expert], slots.bounds[expert + 1]);
  tile.template finish<1, Step>([&](const auto &sums, int64_t row, int64_t column) {
    malc_add_sums<Step>(gradient + row * Columns + column, sums, row, column, adds);
  });
}

/* result[row][head][Columns] = left[row][head][Inner] times the head's matrix: one block's tile, or where rows are few
 * and the matrices lie by columns, its malc_few_columns columns. */
template <class Tile, int Threads, int Heads, int Inner, int Columns, int Step, class Left, class Right>
DEVICE void malc_each(float *result, int64_t rows, Left left, Right right) {
  constexpr bool streams = Right::run == malc_side::inner;
  const bool few = streams && rows <= malc_few_rows;
  const malc_tiles tiles(rows, Columns, few ? malc_few_rows : Tile::rows, few ? malc_few_columns : Tile::columns);
  const int head = blockIdx.x / tiles.count();
  left.data[0] += head * Inner;
  malc_skip_matrices(right, head, Inner, Columns);
  const malc_place at = tiles.place(blockIdx.x % tiles.count());
  const auto finish = [&](const auto &sums, int64_t row, int64_t column) {
    malc_store_sums<Step>(result + (row * Heads + head) * Columns + column, sums, row, column);
  };
  if constexpr (streams)
    if (few) {
      malc_multiply_few<Threads, malc_few_columns, Step>(left, right, at, Inner, finish);
      return;
    }
  Tile tile(at);
  tile.multiply(left, right, 0, Inner);
  tile.template finish<1, Step>(finish);
}
