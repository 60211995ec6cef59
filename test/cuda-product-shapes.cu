// cuda-product-shapes.cu - every tile that products are emitted with, in every layout, for nvcc to compile: no warning, no
// spill. It is not meant to be run.
#include "product_bf16.h"
#include "product_f32.h"

template <class Tile, class Left, class Right>
DEVICE void product(const Left &left, const Right &right, int64_t rows, int inner, const float *residual, float *y) {
  const malc_tiles tiles(rows, 768, Tile::rows, Tile::columns / Right::parts);
  Tile tile(tiles.place(blockIdx.x));
  tile.multiply(left, right, 0, inner);
  tile.template finish<Right::parts, 1>([&](const auto &sums, int64_t row, int64_t column) {
    y[row * 768 + column] = residual[row * 768 + column] + sums(0, row, column) * sums(Right::parts - 1, row, column);
  });
}

template <class Tile, class Left, class Right>
__global__ void __launch_bounds__(Tile::threads)
    multiply(Left left, Right right, int64_t rows, int inner, const float *__restrict__ residual, float *__restrict__ y) {
  product<Tile>(left, right, rows, inner, residual, y);
}
template <class Tile, class Left, class Right>
__global__ void __launch_bounds__(Tile::threads, 2)
    small(Left left, Right right, int64_t rows, int inner, const float *__restrict__ residual, float *__restrict__ y) {
  product<Tile>(left, right, rows, inner, residual, y);
}

template <int Threads, class Left, class Right>
__global__ void __launch_bounds__(Threads) few(Left left, Right right, int64_t rows, float *__restrict__ y) {
  const malc_tiles tiles(rows, 768, malc_few_rows, 16);
  malc_multiply_few<Threads, 16, 1>(
      left, right, tiles.place(blockIdx.x), 768,
      [&](const auto &sums, int64_t row, int64_t column) { y[row * 768 + column] = sums(0, row, column); });
}

constexpr malc_side inner = malc_side::inner, outer = malc_side::outer;
typedef __nv_bfloat16 bf16;

#define KERNEL(kernel, Tile, L, LeftRun, R, RightRun, Aligned, Parts)                                             \
  template __global__ void kernel<Tile, malc_operand<L, LeftRun, Aligned>, malc_operand<R, RightRun, Aligned, Parts>>( \
      malc_operand<L, LeftRun, Aligned>, malc_operand<R, RightRun, Aligned, Parts>, int64_t, int,                  \
      const float *__restrict__, float *__restrict__);
#define LAYOUTS(Tile, L, R)                             \
  KERNEL(multiply, Tile, L, inner, R, inner, 8, 1)      \
  KERNEL(multiply, Tile, L, inner, R, outer, 8, 1)      \
  KERNEL(multiply, Tile, L, outer, R, inner, 8, 1)      \
  KERNEL(multiply, Tile, L, outer, R, outer, 8, 1)

typedef malc_tile_bf16<128, 128, 64, 64, 4> Large;
typedef malc_tile_bf16<128, 128, 64, 32, 4> LargeOfMany;
typedef malc_tile_bf16<64, 256, 64, 64, 3> Wide;
typedef malc_tile_bf16<64, 256, 64, 32, 3> WideOfMany;
typedef malc_tile_bf16<64, 64, 32, 32, 4> Small;
typedef malc_tile_bf16<64, 64, 32, 16, 4> SmallOfMany;
LAYOUTS(Large, bf16, bf16)
LAYOUTS(LargeOfMany, bf16, float)
KERNEL(multiply, LargeOfMany, float, outer, float, inner, 8, 1)
KERNEL(multiply, LargeOfMany, bf16, outer, bf16, inner, 1, 1)
KERNEL(multiply, LargeOfMany, float, outer, bf16, outer, 1, 1)
KERNEL(multiply, Wide, bf16, inner, bf16, inner, 8, 1)
KERNEL(multiply, WideOfMany, bf16, inner, float, inner, 8, 1)
KERNEL(small, Small, bf16, outer, bf16, outer, 8, 1)
KERNEL(small, SmallOfMany, bf16, outer, bf16, outer, 8, 1)
KERNEL(multiply, Large, bf16, inner, bf16, inner, 8, 2)
KERNEL(multiply, LargeOfMany, bf16, inner, float, inner, 8, 4)

typedef malc_tile_f32<128, 128> LargeFloat;
typedef malc_tile_f32<64, 256> WideFloat;
typedef malc_tile_f32<64, 64> SmallFloat;
KERNEL(multiply, LargeFloat, float, inner, float, inner, 8, 1)
KERNEL(multiply, LargeFloat, float, outer, float, outer, 8, 1)
KERNEL(multiply, WideFloat, float, inner, float, inner, 8, 1)
KERNEL(small, SmallFloat, float, inner, float, outer, 8, 1)
KERNEL(multiply, LargeFloat, float, outer, float, inner, 1, 1)
KERNEL(multiply, LargeFloat, float, inner, float, inner, 8, 2)

template __global__ void few<128>(malc_operand<bf16, inner, 8>, malc_operand<float, inner, 8>, int64_t,
                                  float *__restrict__);
template __global__ void few<256>(malc_operand<float, inner, 8>, malc_operand<float, inner, 8>, int64_t,
                                  float *__restrict__);
