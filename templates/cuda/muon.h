// muon.h - Muon, which moves a matrix by the nearest one whose singular values are all alike (Jordan et al., Muon: An
// Optimizer for Hidden Layers in Neural Networks, 2024).
//
// The gradient's mean M is replaced by an approximation of U V^T, where U S V^T is its singular value decomposition.
// The iteration of Newton and Schulz gets there by products alone: with X = M / |M|, five times
//
//   X = a X + (b A + c A A) X,  where A = X X^T  (X (b A + c A A), where A = X^T X, of a matrix with more rows)
//
// Its coefficients are not those that converge but those that lift small singular values fastest: they end between 0.7
// and 1.2. The result times 0.2 sqrt(max(rows, columns)) moves weights about as far as AdamW does (Liu et al., Muon is
// Scalable for LLM Training, 2025, section 2.2), so that one rate and one decay serve both.
//
// Products are of float32, in programs of bfloat16 too. The authors' are of bfloat16; float32 costs an update more and
// leaves no rounding in the weights.
#pragma once
#include "optimizer.h"
#include "product_f32.h"

enum {
  MALC_MUON_TOGETHER = 8, // matrices of a stack at once: blockIdx.z, or y where there are no tiles
  MALC_MUON_STEPS = 5,
  MALC_MUON_PART = 1 << 14, // elements that a block sums
};

/* Matrices of one size that lie one after the other. */
struct malc_muon_matrices {
  int64_t rows, columns;
  int count;
  int64_t elements() const { return rows * columns; }
  int64_t side() const { return rows < columns ? rows : columns; }
  unsigned parts() const { return (unsigned)malc_ceil_divide(elements(), MALC_MUON_PART); }
};

/* Floats that orthogonalising a matrix needs: sums of squares, which are of double and padded to whole fours of floats,
 * a second matrix, and two squares of its shorter side. */
inline int64_t malc_muon_sums(const malc_muon_matrices &one) { return ((int64_t)one.parts() + 1) / 2 * 4; }
inline int64_t malc_muon_room(int64_t rows, int64_t columns) {
  const malc_muon_matrices one = {rows, columns, 1};
  return malc_muon_sums(one) + one.elements() + 2 * one.side() * one.side();
}

/* The mean of a stack's gradients, looked ahead along as Nesterov does: m = momentum m + (1 - momentum) g, and
 * momentum m + (1 - momentum) g goes to x, the sum of its squares to `parts`, which has one for each block. */
static __global__ void malc_muon_mean(const float *gradient, float *first, float *x, int64_t elements, double *parts,
                                      const malc_terms *terms, const malc_results *results) {
  if (!results->moves) return;
  const int64_t base = blockIdx.y * elements, from = (int64_t)blockIdx.x * MALC_MUON_PART;
  const int64_t end = from + MALC_MUON_PART < elements ? from + MALC_MUON_PART : elements;
  const float momentum = terms->momentum, scale = results->scale;
  double sum = 0;
  for (int64_t i = base + from + threadIdx.x; i < base + end; i += MALC_NORM_THREADS) {
    const float slope = (1.0f - momentum) * (gradient[i] * scale);
    const float mean = momentum * first[i] + slope, ahead = momentum * mean + slope;
    first[i] = mean;
    x[i] = ahead;
    sum += (double)ahead * ahead;
  }
  sum = malc_over_block(sum);
  if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

/* x = x / |x|, of each matrix of a stack. Every block adds up all parts, in their order. A gradient of zeros leaves
 * zeros. */
static __global__ void malc_muon_normalise(float *x, int64_t elements, const double *parts,
                                           const malc_results *results) {
  if (!results->moves) return;
  __shared__ float shrink;
  double sum = 0;
  for (unsigned n = threadIdx.x; n < gridDim.x; n += MALC_NORM_THREADS) sum += parts[blockIdx.y * gridDim.x + n];
  sum = malc_over_block(sum);
  if (threadIdx.x == 0) shrink = (float)(1.0 / fmax(sqrt(sum), 1e-7));
  __syncthreads();
  const int64_t base = blockIdx.y * elements, from = (int64_t)blockIdx.x * MALC_MUON_PART;
  const int64_t end = from + MALC_MUON_PART < elements ? from + MALC_MUON_PART : elements;
  for (int64_t i = base + from + threadIdx.x; i < base + end; i += MALC_NORM_THREADS) x[i] *= shrink;
}

/* A factor of a product, of each matrix of a stack. */
struct malc_muon_factor {
  const float *data;
  int64_t stride;   // from run to run
  int64_t elements; // from matrix to matrix
};

/* to = scale x left x right + share x other, [rows][columns], of each matrix of a stack; `other` may be NULL. A block
 * has a tile of 64 x 64. Left and Right say whether a factor's inner positions lie side by side, or its outer ones. */
template <malc_side Left, malc_side Right, int Aligned>
static __global__ void __launch_bounds__(256)
    malc_muon_product(float *to, malc_muon_factor left, malc_muon_factor right, int64_t rows, int64_t inner,
                      int64_t columns, float scale, const float *other, float share, const malc_results *results) {
  if (!results->moves) return;
  typedef malc_tile_f32<64, 64> Tile;
  const int64_t matrix = blockIdx.z;
  const malc_operand<float, Left, Aligned> own_left{{left.data + matrix * left.elements}, left.stride};
  const malc_operand<float, Right, Aligned> own_right{{right.data + matrix * right.elements}, right.stride};
  float *const result = to + matrix * rows * columns;
  const float *const beside = other ? other + matrix * rows * columns : nullptr;
  Tile tile(malc_tiles(rows, columns, Tile::rows, Tile::columns).place(blockIdx.x));
  tile.multiply(own_left, own_right, 0, (int)inner);
  tile.template finish<1, 1>([&](const auto &sums, int64_t row, int64_t column) {
    const int64_t at = row * columns + column;
    result[at] = scale * sums(0, row, column) + (beside ? share * beside[at] : 0.0f);
  });
}

/* Queues the products of one stack. */
struct malc_muon_queue {
  int count;
  cudaStream_t stream;
  const malc_results *results;
  malc_status *status;

  template <malc_side Left, malc_side Right>
  void product(float *to, malc_muon_factor left, malc_muon_factor right, int64_t rows, int64_t inner, int64_t columns,
               float scale, const float *other, float share) const {
    typedef malc_tile_f32<64, 64> Tile;
    const bool whole = left.stride % 4 == 0 && right.stride % 4 == 0 && rows % 4 == 0 && inner % 4 == 0 &&
                       columns % 4 == 0 && is_aligned(left.data) && is_aligned(right.data);
    const auto kernel = whole ? malc_muon_product<Left, Right, 4> : malc_muon_product<Left, Right, 1>;
    const malc_tiles tiles(rows, columns, Tile::rows, Tile::columns);
    malc_note(status, malc_launch(kernel, dim3((unsigned)tiles.count(), 1, (unsigned)count), Tile::threads,
                                  Tile::shared_bytes, stream, to, left, right, rows, inner, columns, scale, other,
                                  share, results), "a product of Muon");
  }

  static bool is_aligned(const float *data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }
};

/* Puts the orthogonalised means of a stack's gradients in the gradients' place. `room` has malc_muon_room floats for
 * each matrix, from a multiple of 16 bytes on. */
inline void malc_muon_directions(float *gradient, float *first, malc_muon_matrices stack, const malc_terms *terms,
                                 float *room, malc_status *status, const malc_results *results, cudaStream_t stream) {
  const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  const int64_t rows = stack.rows, columns = stack.columns, elements = stack.elements(), side = stack.side();
  const unsigned count = (unsigned)stack.count;
  const dim3 parts(stack.parts(), count);
  double *const sums = reinterpret_cast<double *>(room);
  float *x = room + count * malc_muon_sums(stack), *next = gradient;
  float *const squares = x + count * elements, *const mixed = squares + count * side * side;
  malc_note(status, malc_launch(malc_muon_mean, parts, MALC_NORM_THREADS, 0, stream, gradient, first, x, elements, sums,
                                terms, results), "Muon's mean");
  malc_note(status, malc_launch(malc_muon_normalise, parts, MALC_NORM_THREADS, 0, stream, x, elements, sums, results),
            "Muon's norm");
  const malc_muon_queue queue = {stack.count, stream, results, status};
  const malc_muon_factor square = {squares, side, side * side}, mix = {mixed, side, side * side};
  constexpr malc_side inner = malc_side::inner, outer = malc_side::outer;
  for (int step = 0; step < MALC_MUON_STEPS; step++) {
    const malc_muon_factor own = {x, columns, elements};
    // Squares are symmetric: which of their positions are the inner ones is as one likes.
    if (rows <= columns) {
      queue.product<inner, inner>(squares, own, own, side, columns, side, 1, nullptr, 0);
      queue.product<inner, inner>(mixed, square, square, side, side, side, c, squares, b);
      queue.product<inner, outer>(next, mix, own, rows, side, columns, 1, x, a);
    } else {
      queue.product<outer, outer>(squares, own, own, side, rows, side, 1, nullptr, 0);
      queue.product<inner, inner>(mixed, square, square, side, side, side, c, squares, b);
      queue.product<inner, inner>(next, own, mix, rows, side, columns, 1, x, a);
    }
    float *const swap = x;
    x = next;
    next = swap;
  } // an odd number of times: the last result is in the gradient's place
}

/* w = (1 - rate decay) w - rate 0.2 sqrt(max(rows, columns)) o, where o is the direction. */
struct malc_muon {
  static constexpr int moments = 0; // the mean has moved already
  static DEVICE void move(float &weight, float direction, float &, float &, float decay, const malc_terms &terms) {
    weight = weight * (1.0f - terms.rate * decay) - terms.rate * direction;
  }
};

/* An update of Muon's matrices, whose directions are in the gradients' place, and of all else by AdamW; a block has a
 * task. */
static __global__ void malc_muon_update(const malc_task *tasks, malc_values values, const malc_terms *given,
                                        const malc_results *results) {
  malc_follow();
  const malc_task task = tasks[blockIdx.x];
  if (!task.moves || !results->moves) return;
  if (task.longer > 0) malc_move<malc_muon>(task, values, *given, 0.2f * sqrtf((float)task.longer));
  else malc_move<malc_adamw>(task, values, *given, results->scale);
}
