/* grouped.h - products of rows with one of several matrices: the experts that each row chose, or each head's own; and
 * the choice itself.
 *
 * A slot is one choice of one row. Slots are sorted by expert, so that each expert's rows meet its matrix together
 * (MegaBlocks, Gale et al., 2022): a task gathers rows, multiplies them as matmul.h does, and puts the results where
 * the slots say. Every slot is served, whatever the choice. As in matmul.h, every element is one chain of
 * multiply-adds in an order that the number of threads does not change. */
#ifndef MALC_GROUPED_H
#define MALC_GROUPED_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "matmul.h"
#include "runtime.h"

enum { MALC_GROUPED_ROWS = 8 * MALC_ROWS }; /* most rows of a task: enough to pay for packing the matrix */

/* ---- Choosing ---- */

/* chosen[count]: the places of the greatest of scores[candidates], ascending; of equal scores the earlier is greater.
 * count <= candidates; scores that are not numbers give some places, but never one twice. */
MALC_STATIC void malc_top_k(int32_t *chosen, int64_t count, const float *scores, int64_t candidates) {
  int64_t held = 0; /* places so far, the greatest score first */
  for (int64_t i = 0; i < candidates; i++) {
    if (held == count && !(scores[i] > scores[chosen[count - 1]])) continue;
    int64_t at = held < count ? held++ : count - 1;
    for (; at > 0 && scores[i] > scores[chosen[at - 1]]; at--) chosen[at] = chosen[at - 1];
    chosen[at] = (int32_t)i;
  }
  for (int64_t i = 1; i < count; i++) { /* ascending places */
    const int32_t place = chosen[i];
    int64_t at = i;
    for (; at > 0 && chosen[at - 1] > place; at--) chosen[at] = chosen[at - 1];
    chosen[at] = place;
  }
}

/* The sum of the `count` greatest of scores[size], which are one or two: a group's score. */
MALC_STATIC float malc_group_score(const float *scores, int64_t size, int count) {
  float greatest = scores[0], second = 0.0f;
  for (int64_t i = 1; i < size; i++) {
    const bool leads = scores[i] > greatest;
    const float other = leads ? greatest : scores[i];
    greatest = leads ? scores[i] : greatest;
    second = i == 1 || other > second ? other : second;
  }
  return count == 2 ? greatest + second : greatest;
}

/* ---- Slots ---- */

/* Slots by expert: those of expert e are order[bounds[e]] to order[bounds[e + 1] - 1], ascending. */
typedef struct {
  int64_t experts;
  const int32_t *bounds, *order;
  int32_t *blocks; /* room for experts + 1 numbers: a product's own */
} malc_slots;

/* What slots read: slot s reads `row` floats from data + s / sharing * row. */
typedef struct {
  const float *data;
  int64_t row, sharing;
} malc_slot_rows;

/* Sorts slots by their expert, index[slots]; `memory` holds slots + 2 * (experts + 1) numbers. */
MALC_STATIC malc_slots malc_sort_slots(const int32_t *index, int64_t slots, int64_t experts, int32_t *memory) {
  int32_t *bounds = memory, *blocks = bounds + experts + 1, *order = blocks + experts + 1;
  int32_t *next = bounds + 1; /* where each expert's next slot goes; in the end, where the following expert begins */
  memset(bounds, 0, (size_t)(experts + 1) * sizeof *bounds);
  for (int64_t slot = 0; slot < slots; slot++) next[index[slot]]++;
  int32_t begin = 0;
  for (int64_t e = 0; e < experts; e++) {
    const int32_t count = next[e];
    next[e] = begin;
    begin += count;
  }
  for (int64_t slot = 0; slot < slots; slot++) order[next[index[slot]]++] = (int32_t)slot;
  return (malc_slots){ experts, bounds, order, blocks };
}

/* to[count][width] = elements [begin, begin + width) of what these slots read. */
MALC_STATIC void malc_gather(float *to, malc_slot_rows from, const int32_t *slots, int64_t count, int64_t begin,
                             int64_t width) {
  for (int64_t i = 0; i < count; i++)
    memcpy(to + i * width, from.data + slots[i] / from.sharing * from.row + begin, (size_t)width * sizeof *to);
}

/* The inverse: elements [begin, begin + width) of the slots' rows, which are `row` floats long. */
MALC_STATIC void malc_scatter(float *to, int64_t row, const float *from, const int32_t *slots, int64_t count,
                              int64_t begin, int64_t width) {
  for (int64_t i = 0; i < count; i++)
    memcpy(to + slots[i] * row + begin, from + i * width, (size_t)width * sizeof *to);
}

/* ---- Products ---- */

/* A task of an expert with MALC_FEW_ROWS slots or fewer: its matrix is read in place. */
MALC_STATIC void malc_grouped_few(float *result, int64_t columns, malc_slot_rows left, malc_matrix weights,
                                  const int32_t *slots, int64_t count, int64_t inner, int64_t column, int64_t width,
                                  float *own) {
  float *rows = own, *tile = rows + count * inner;
  malc_gather(rows, left, slots, count, 0, inner);
  malc_multiply_few(tile, width, (malc_matrix){ rows, inner, 1 }, count, weights, inner, column, width);
  malc_scatter(result, columns, tile, slots, count, column, width);
}

/* A task of an expert with more: these slots times `width` columns of its matrix, from `column` on. */
MALC_STATIC void malc_grouped_many(float *result, int64_t columns, malc_slot_rows left, malc_matrix weights,
                                   const int32_t *slots, int64_t count, int64_t inner, int64_t column, int64_t width,
                                   float *own) {
  float *packed = own, *strips = packed + malc_packed_size(inner, width), *rows = strips + MALC_SCRATCH;
  float *tile = rows + MALC_ROWS * MALC_DEPTH;
  weights.data += column * weights.column_stride;
  malc_pack_alone(packed, weights, inner, width);
  for (int64_t i = 0; i < count; i += MALC_ROWS, slots += MALC_ROWS) {
    const int64_t height = malc_least(MALC_ROWS, count - i);
    for (int64_t begin = 0; begin < inner; begin += MALC_DEPTH) {
      const int64_t depth = malc_least(MALC_DEPTH, inner - begin);
      malc_panels panels = malc_packed_panels(packed, inner, 0);
      panels.data += begin * panels.row_stride;
      malc_gather(rows, left, slots, height, begin, depth);
      malc_multiply_panels(tile, width, (malc_matrix){ rows, depth, 1 }, height, panels, depth, width, strips,
                           begin > 0);
    }
    malc_scatter(result, columns, tile, slots, height, column, width);
  }
}

/* result[slot][columns] = what the slot reads, [inner], times its expert's matrix, for every slot. `weights` is the
 * first expert's matrix, [inner][columns]; the others follow it. `at_once`, a multiple of MALC_PANEL, is the most
 * columns of a task. Opens a parallel region; thread n works in scratch + n * scratch_stride, which holds a packed
 * matrix of [inner][at_once], MALC_SCRATCH floats, and MALC_ROWS rows of MALC_DEPTH floats and of `at_once`. */
MALC_STATIC void malc_grouped(float *result, malc_slot_rows left, malc_matrix weights, malc_slots slots, int64_t inner,
                              int64_t columns, int64_t at_once, float *scratch, int64_t scratch_stride) {
  /* Rows of a task: few enough that every thread gets several tasks. */
  const int64_t chunks = (columns + at_once - 1) / at_once, wanted = 4 * omp_get_max_threads();
  const int64_t even = (slots.bounds[slots.experts] * chunks + wanted - 1) / wanted;
  const int64_t most = even < MALC_ROWS ? MALC_ROWS : malc_least(even, MALC_GROUPED_ROWS);
  int32_t *blocks = slots.blocks; /* expert e has the blocks of rows from blocks[e] to blocks[e + 1] */
  blocks[0] = 0;
  for (int64_t e = 0; e < slots.experts; e++)
    blocks[e + 1] = blocks[e] + (int32_t)((slots.bounds[e + 1] - slots.bounds[e] + most - 1) / most);
  const int64_t all = blocks[slots.experts];
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t block = 0; block < all; block++)
    for (int64_t column = 0; column < columns; column += at_once) {
      int64_t e = 0;
      while (blocks[e + 1] <= block) e++;
      const int64_t count = slots.bounds[e + 1] - slots.bounds[e], parts = blocks[e + 1] - blocks[e];
      const int64_t share = (count + parts - 1) / parts, first = (block - blocks[e]) * share;
      const malc_matrix matrix = { weights.data + e * inner * columns, weights.row_stride, weights.column_stride };
      const int32_t *own_slots = slots.order + slots.bounds[e] + first;
      const int64_t rows = malc_least(share, count - first), width = malc_least(at_once, columns - column);
      float *own = scratch + malc_thread() * scratch_stride;
      if (count <= MALC_FEW_ROWS)
        malc_grouped_few(result, columns, left, matrix, own_slots, rows, inner, column, width, own);
      else
        malc_grouped_many(result, columns, left, matrix, own_slots, rows, inner, column, width, own);
    }
}

/* One task of malc_grouped_gradient: height x width elements of one expert's gradient, from (row, column) on. */
MALC_STATIC void malc_gradient_task(float *tile, int64_t columns, malc_slot_rows left, malc_slot_rows right,
                                    const int32_t *slots, int64_t count, int64_t row, int64_t height, int64_t column,
                                    int64_t width, bool accumulate, float *own) {
  float *strips = own, *lefts = strips + MALC_SCRATCH, *packed = lefts + MALC_ROWS * MALC_DEPTH;
  if (count == 0 && !accumulate)
    for (int64_t i = 0; i < height; i++) memset(tile + i * columns, 0, (size_t)width * sizeof *tile);
  for (int64_t begin = 0; begin < count; begin += MALC_DEPTH, slots += MALC_DEPTH, accumulate = true) {
    const int64_t depth = malc_least(MALC_DEPTH, count - begin);
    const malc_panels panels = malc_packed_panels(packed, depth, 0);
    for (int64_t j = 0; j < width; j += MALC_TILE_COLUMNS) {
      const int64_t lanes = malc_least(MALC_TILE_COLUMNS, width - j);
      float *panel = packed + j * depth;
      if (lanes < MALC_TILE_COLUMNS) memset(panel, 0, (size_t)(MALC_TILE_COLUMNS * depth) * sizeof *panel);
      for (int64_t k = 0; k < depth; k++)
        memcpy(panel + k * MALC_TILE_COLUMNS, right.data + slots[k] / right.sharing * right.row + column + j,
               (size_t)lanes * sizeof *panel);
    }
    for (int64_t i = 0; i < height; i += MALC_ROWS) {
      const int64_t rows = malc_least(MALC_ROWS, height - i);
      malc_gather(lefts, left, slots, depth, row + i, rows);
      malc_multiply_panels(tile + i * columns, columns, (malc_matrix){ lefts, 1, rows }, rows, panels, depth, width,
                           strips, accumulate);
    }
  }
}

/* gradient[expert][left.row][right.row] = the sum of left x right, each slot's outer product, over the expert's slots
 * in their order; with `accumulate`, that is added. `at_once`, a multiple of MALC_PANEL, is the most columns of a task.
 * Opens a parallel region; thread n works in scratch + n * scratch_stride, which holds MALC_SCRATCH floats, and
 * MALC_DEPTH rows of MALC_ROWS floats and of `at_once`. */
MALC_STATIC void malc_grouped_gradient(float *gradient, malc_slot_rows left, malc_slot_rows right, malc_slots slots,
                                       bool accumulate, int64_t at_once, float *scratch, int64_t scratch_stride) {
  const int64_t rows = left.row, columns = right.row;
  const int64_t chunks = slots.experts * ((columns + at_once - 1) / at_once);
  int64_t most = 8 * MALC_ROWS; /* rows of a task: few enough that every thread gets several tasks */
  while (most > MALC_ROWS && chunks * ((rows + most - 1) / most) < 4 * omp_get_max_threads()) most -= MALC_ROWS;
#pragma omp parallel for collapse(3) schedule(dynamic, 1)
  for (int64_t e = 0; e < slots.experts; e++)
    for (int64_t row = 0; row < rows; row += most)
      for (int64_t column = 0; column < columns; column += at_once)
        malc_gradient_task(gradient + (e * rows + row) * columns + column, columns, left, right,
                           slots.order + slots.bounds[e], slots.bounds[e + 1] - slots.bounds[e], row,
                           malc_least(most, rows - row), column, malc_least(at_once, columns - column), accumulate,
                           scratch + malc_thread() * scratch_stride);
}

/* result[row][head][columns] = left[row][head][inner] times the head's matrix. `weights` is the first head's matrix,
 * [inner][columns]; the others follow it. `at_once` and scratch as for malc_grouped. */
MALC_STATIC void malc_each(float *result, const float *left, malc_matrix weights, int64_t rows, int64_t heads,
                           int64_t inner, int64_t columns, int64_t at_once, float *scratch, int64_t scratch_stride) {
#pragma omp parallel for collapse(3) schedule(dynamic, 1)
  for (int64_t head = 0; head < heads; head++)
    for (int64_t first = 0; first < rows; first += MALC_GROUPED_ROWS)
      for (int64_t column = 0; column < columns; column += at_once) {
        const int64_t count = malc_least(MALC_GROUPED_ROWS, rows - first);
        const int64_t width = malc_least(at_once, columns - column);
        const malc_matrix right = { weights.data + head * inner * columns + column * weights.column_stride,
                                    weights.row_stride, weights.column_stride };
        malc_matrix from = { left + (first * heads + head) * inner, heads * inner, 1 };
        float *to = result + (first * heads + head) * columns + column;
        if (rows <= MALC_FEW_ROWS) {
          malc_multiply_few(to, heads * columns, from, count, right, inner, 0, width);
          continue;
        }
        float *packed = scratch + malc_thread() * scratch_stride, *strips = packed + malc_packed_size(inner, width);
        malc_pack_alone(packed, right, inner, width);
        for (int64_t i = 0; i < count; i += MALC_ROWS, from.data += MALC_ROWS * from.row_stride)
          malc_multiply(to + i * heads * columns, heads * columns, from, malc_least(MALC_ROWS, count - i), packed,
                        inner, 0, width, strips);
      }
}
#endif
