// cuda-product.cu.cpp - tests of templates/cuda/product*.h in the emulator: every layout, odd sizes, all kinds of operands.
//
// Operands are small numbers that bfloat16 holds exactly (or nearly, where rounding is tested), so that sums are exact
// in any order.
#include "simt/check.h"
#include "product_bf16.h"
#include "product_f32.h"

using check::Device;
using check::expect;

/* A host matrix of [outer][inner] elements, and how it lies in memory. */
template <class T, malc_side Run>
struct Matrix {
  int outer, inner, stride;
  std::vector<T> values;

  Matrix(int outer, int inner, size_t seed, float beyond = 0)
      : outer(outer), inner(inner), stride(Run == malc_side::inner ? inner : outer),
        values(static_cast<size_t>(outer) * inner) {
    for (size_t i = 0; i < values.size(); i++) values[i] = check::number(i * 7 + seed) + beyond * check::number(i * 3);
  }
  float at(int o, int i) const { return values[Run == malc_side::inner ? o * stride + i : i * stride + o]; }
};

/* What a kernel computes of, by value. */
template <class Left, class Right>
struct Problem {
  Left left;
  Right right;
  int rows, columns, inner, tile_columns;
};

/* y[part][row][column] = product + 1000 column, which reads its neighbour's sum as well where there is one. */
template <class Tile, class Left, class Right>
__global__ void __launch_bounds__(Tile::threads) multiply(Problem<Left, Right> problem, float *y) {
  const malc_tiles tiles(problem.rows, problem.columns, Tile::rows, problem.tile_columns);
  const malc_place at = tiles.place(blockIdx.x);
  Tile tile(at);
  tile.multiply(problem.left, problem.right, 0, problem.inner);
  tile.template finish<Right::parts, 1>([&](const auto &sums, int64_t row, int64_t column) {
    const int64_t partner = (column ^ 1) < at.column_end ? column ^ 1 : column;
    for (int part = 0; part < Right::parts; part++) {
      const float own = sums(part, row, column), other = sums(part, row, partner);
      y[(part * problem.rows + row) * problem.columns + column] = own + 1000 * other;
    }
  });
}

template <class T>
double rounded(T value, bool narrow) {
  return narrow ? static_cast<double>(static_cast<float>(__nv_bfloat16(static_cast<float>(value)))) : value;
}

/* One product, or several side by side, against a plain sum. */
template <class Tile, class L, malc_side LeftRun, class R, malc_side RightRun, int Aligned, int Parts = 1>
void check_product(int rows, int columns, int inner, int tile_columns, float beyond = 0, bool narrow = true) {
  const Matrix<L, LeftRun> left(rows, inner, 1, beyond);
  std::vector<Matrix<R, RightRun>> rights;
  for (int part = 0; part < Parts; part++) rights.emplace_back(columns, inner, 5 + part, beyond);
  const Device<L> left_memory(left.values);
  std::vector<R *> right_memory;
  for (const auto &right : rights) {
    R *memory;
    cudaMalloc(reinterpret_cast<void **>(&memory), right.values.size() * sizeof(R));
    cudaMemcpy(memory, right.values.data(), right.values.size() * sizeof(R), cudaMemcpyHostToDevice);
    right_memory.push_back(memory);
  }
  typedef malc_operand<L, LeftRun, Aligned> Left;
  typedef malc_operand<R, RightRun, Aligned, Parts> Right;
  Problem<Left, Right> problem{{{left_memory}, left.stride}, {{}, rights[0].stride}, rows, columns, inner, tile_columns};
  for (int part = 0; part < Parts; part++) problem.right.data[part] = right_memory[part];
  const Device<float> y(static_cast<size_t>(Parts) * rows * columns);
  const malc_tiles tiles(rows, columns, Tile::rows, tile_columns);
  LAUNCH((multiply<Tile, Left, Right>), tiles.count(), Tile::threads, Tile::shared_bytes, nullptr, problem, y);
  const auto result = y.read();
  for (R *memory : right_memory) cudaFree(memory);
  const auto sum = [&](int part, int row, int column) {
    double total = 0;
    for (int i = 0; i < inner; i++)
      total += rounded(left.at(row, i), narrow) * rounded(rights[part].at(column, i), narrow);
    return total;
  };
  for (int part = 0; part < Parts; part++)
    for (int row = 0; row < rows; row += row % 16 == 15 ? 7 : 1)
      for (int column = 0; column < columns; column++) {
        if (row % 5 && column % 3) continue; // enough of them
        const int end = std::min(columns, (column / tile_columns + 1) * tile_columns);
        const double expected =
            sum(part, row, column) + 1000 * sum(part, row, (column ^ 1) < end ? column ^ 1 : column);
        check::expect_near(result[(static_cast<size_t>(part) * rows + row) * columns + column], expected,
                           beyond == 0 ? 0 : 1e-3 * (1 + std::fabs(expected) / 100),
                           "element " + std::to_string(row) + ", " + std::to_string(column));
      }
}

constexpr malc_side inner = malc_side::inner, outer = malc_side::outer;
typedef __nv_bfloat16 bf16;

typedef malc_tile_bf16<128, 128, 64, 64, 4> Large;
typedef malc_tile_bf16<128, 128, 64, 32, 4> LargeOfMany;
typedef malc_tile_bf16<64, 256, 64, 64, 3> Wide;
typedef malc_tile_bf16<64, 64, 32, 32, 4> Small;
typedef malc_tile_bf16<64, 64, 32, 16, 4> SmallOfMany;

template <class Tile, class L, class R, int Aligned>
void check_mixed_layouts(int rows, int columns, int depth, int tile_columns, float beyond = 0) {
  check_product<Tile, L, inner, R, outer, Aligned>(rows, columns, depth, tile_columns, beyond);
  check_product<Tile, L, outer, R, inner, Aligned>(rows, columns, depth, tile_columns, beyond);
}
template <class Tile, class L, class R, int Aligned>
void check_layouts(int rows, int columns, int depth, int tile_columns, float beyond = 0) {
  check_mixed_layouts<Tile, L, R, Aligned>(rows, columns, depth, tile_columns, beyond);
  check_product<Tile, L, inner, R, inner, Aligned>(rows, columns, depth, tile_columns, beyond);
  check_product<Tile, L, outer, R, outer, Aligned>(rows, columns, depth, tile_columns, beyond);
}
TEST(bf16_large) { check_layouts<Large, bf16, bf16, 8>(136, 136, 104, 128); }
TEST(bf16_wide) { check_mixed_layouts<Wide, bf16, bf16, 8>(72, 264, 40, 256); }
TEST(bf16_small) { check_layouts<Small, bf16, bf16, 8>(72, 80, 168, 64); }
TEST(bf16_runs_of_four) { check_mixed_layouts<Small, bf16, bf16, 4>(68, 76, 36, 64); }
TEST(bf16_runs_of_two) { check_mixed_layouts<Small, bf16, bf16, 2>(66, 74, 38, 64); }
TEST(bf16_odd) { check_mixed_layouts<Small, bf16, bf16, 1>(67, 71, 45, 64); }
TEST(floats_are_rounded) { check_mixed_layouts<LargeOfMany, float, float, 8>(136, 72, 72, 128, 1.0f / 1024); }
TEST(floats_runs_of_four) { check_mixed_layouts<Small, float, float, 4>(68, 76, 36, 64, 1.0f / 1024); }
TEST(floats_runs_of_two) { check_mixed_layouts<Small, float, float, 2>(66, 70, 34, 64, 1.0f / 1024); }
TEST(floats_odd) { check_mixed_layouts<Small, float, float, 1>(67, 71, 45, 64, 1.0f / 1024); }
TEST(mixed) {
  check_mixed_layouts<SmallOfMany, bf16, float, 8>(72, 80, 40, 64, 1.0f / 1024);
  check_mixed_layouts<SmallOfMany, float, bf16, 8>(72, 80, 40, 64, 1.0f / 1024);
}
TEST(cut_columns) { check_product<Large, bf16, inner, bf16, inner, 8>(40, 200, 40, 96); }
TEST(side_by_side) {
  check_product<Small, bf16, inner, bf16, inner, 8, 2>(72, 80, 40, 32);
  check_product<Small, bf16, inner, float, outer, 8, 2>(72, 80, 40, 32);
  check_product<Small, bf16, inner, bf16, inner, 8, 4>(40, 24, 40, 16);
}

typedef malc_tile_f32<128, 128> LargeFloat;
typedef malc_tile_f32<64, 256> WideFloat;
typedef malc_tile_f32<64, 64> SmallFloat;

template <class Tile, int Aligned>
void check_mixed_floats(int rows, int columns, int depth, int tile_columns) {
  check_product<Tile, float, inner, float, outer, Aligned>(rows, columns, depth, tile_columns, 0, false);
  check_product<Tile, float, outer, float, inner, Aligned>(rows, columns, depth, tile_columns, 0, false);
}
TEST(f32_large) {
  check_mixed_floats<LargeFloat, 8>(136, 136, 40, 128);
  check_product<LargeFloat, float, inner, float, inner, 8>(136, 72, 40, 128, 0, false);
  check_product<LargeFloat, float, outer, float, outer, 8>(72, 136, 40, 128, 0, false);
}
TEST(f32_wide) { check_mixed_floats<WideFloat, 8>(72, 264, 40, 256); }
TEST(f32_small) { check_mixed_floats<SmallFloat, 4>(72, 80, 100, 64); }
TEST(f32_odd) {
  check_mixed_floats<SmallFloat, 2>(66, 70, 34, 64);
  check_mixed_floats<SmallFloat, 1>(67, 71, 45, 64);
}
TEST(f32_cut_columns) { check_product<SmallFloat, float, inner, float, outer, 4>(40, 100, 40, 48, 0, false); }
TEST(f32_side_by_side) { check_product<SmallFloat, float, inner, float, inner, 4, 2>(72, 80, 40, 32, 0, false); }

// ---- Few rows, parts of sums, the order of tiles ----

template <class T, int Aligned>
__global__ void few_rows(malc_operand<T, inner, Aligned> left, malc_operand<float, inner, Aligned, 2> right, int rows,
                         int columns, int depth, float *y) {
  const malc_tiles tiles(rows, columns, malc_few_rows, 8);
  malc_multiply_few<128, 8, 1>(left, right, tiles.place(blockIdx.x), depth,
                             [&](const auto &sums, int64_t row, int64_t column) {
                               y[row * columns + column] = sums(0, row, column) + 100 * sums(1, row, column);
                             });
}
template <class T, int Aligned>
void check_few(int rows, int columns, int depth) {
  const Matrix<T, inner> left(rows, depth, 1);
  const Matrix<float, inner> first(columns, depth, 2), second(columns, depth, 3);
  const Device<T> left_memory(left.values);
  const Device<float> first_memory(first.values), second_memory(second.values), y(rows * columns);
  const malc_operand<T, inner, Aligned> left_operand{{left_memory}, depth};
  const malc_operand<float, inner, Aligned, 2> right_operand{{first_memory, second_memory}, depth};
  LAUNCH((few_rows<T, Aligned>), malc_ceil_divide(columns, 8), 128, 4096, nullptr, left_operand, right_operand, rows,
         columns, depth, y);
  const auto result = y.read();
  for (int row = 0; row < rows; row++)
    for (int column = 0; column < columns; column++) {
      double expected = 0;
      for (int i = 0; i < depth; i++) expected += left.at(row, i) * (first.at(column, i) + 100 * second.at(column, i));
      expect(result[row * columns + column], expected, "few rows");
    }
}
TEST(few_rows) {
  check_few<float, 8>(1, 40, 136);
  check_few<bf16, 8>(8, 24, 264);
  check_few<float, 1>(3, 21, 67);
  check_few<bf16, 2>(5, 12, 130);
}

/* First launch: a part of the sums for each tile and part; second: their sum, added to what is there. */
template <class Left, class Right>
__global__ void __launch_bounds__(128) parts_of_sums(Left left, Right right, int rows, int columns, int depth,
                                                     float *workspace) {
  const malc_tiles tiles(rows, columns, 64, 64);
  const malc_part part(depth, 3, blockIdx.x / tiles.count());
  Small tile(tiles.place(blockIdx.x % tiles.count()));
  tile.multiply(left, right, part.from, part.to);
  tile.template finish<1, 1>([&](const auto &sums, int64_t row, int64_t column) {
    workspace[(part.number * rows + row) * columns + column] = sums(0, row, column);
  });
}
__global__ void sum_of_parts(int rows, int columns, int depth, const float *workspace, float *y, bool adds) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= rows * columns) return;
  const malc_part_sums sums(workspace, rows, columns, malc_part_count(depth, 3), 3);
  const int row = index / columns, column = index % columns;
  y[index] = (adds ? y[index] : 0.0f) + sums(0, row, column);
}
TEST(sums_in_parts) {
  typedef malc_operand<bf16, outer, 8> Left;
  typedef malc_operand<bf16, outer, 8> Right;
  for (const int depth : {40, 328, 800}) {
    const int rows = 72, columns = 80, parts = malc_part_count(depth, 3);
    expect(parts, depth == 40 ? 1 : depth == 328 ? 2 : 3, "parts");
    const Matrix<bf16, outer> left(rows, depth, 1), right(columns, depth, 2);
    const Device<bf16> left_memory(left.values), right_memory(right.values);
    const Device<float> workspace(3 * rows * columns), y(rows * columns);
    for (const bool adds : {false, true}) {
      LAUNCH((parts_of_sums<Left, Right>), 4 * parts, 128, Small::shared_bytes, nullptr, Left{{left_memory}, rows},
             Right{{right_memory}, columns}, rows, columns, depth, workspace);
      LAUNCH(sum_of_parts, malc_ceil_divide(rows * columns, 256), 256, 0, nullptr, rows, columns, depth, workspace, y,
             adds);
    }
    const auto result = y.read();
    for (int row = 0; row < rows; row += 3)
      for (int column = 0; column < columns; column++) {
        double expected = 0;
        for (int i = 0; i < depth; i++) expected += 2 * left.at(row, i) * right.at(column, i);
        expect(result[row * columns + column], expected, "added twice");
      }
  }
}

/* Eight 16-byte pieces that are read or written in one go lie in all 32 banks: of ldmatrix the same piece of eight runs,
 * of copies what eight neighbouring threads copy. */
template <class Slice>
void check_banks(int runs) {
  const auto expect_all = [](const std::vector<uint32_t> &offsets, const char *what) {
    unsigned banks = 0;
    for (const uint32_t offset : offsets) banks |= 1u << offset / 16 % 8;
    expect(banks, 255, what);
  };
  for (int index = 0; index < runs * Slice::pieces; index += 8) {
    std::vector<uint32_t> copied, loaded;
    for (int i = 0; i < 8; i++) {
      copied.push_back(Slice::offset((index + i) / Slice::pieces, (index + i) % Slice::pieces));
      loaded.push_back(Slice::offset(index / 8 / Slice::pieces * 8 + i, index / 8 % Slice::pieces));
    }
    expect_all(copied, "banks of a copy");
    expect_all(loaded, "banks of ldmatrix");
  }
}
TEST(banks) {
  check_banks<malc_slice<inner, 128>>(128);
  check_banks<malc_slice<inner, 64>>(64);
  check_banks<malc_slice<outer, 64>>(32);
  check_banks<malc_slice<outer, 128>>(32);
  check_banks<malc_slice<outer, 256>>(32);
}

__global__ void places_of_tiles(malc_tiles tiles, malc_place *places) {
  if (static_cast<int>(threadIdx.x) < tiles.count()) places[threadIdx.x] = tiles.place(threadIdx.x);
}
TEST(order_of_tiles) {
  const malc_tiles tiles(19 * 64 - 5, 3 * 64 - 7, 64, 64);
  const Device<malc_place> places(tiles.count());
  LAUNCH(places_of_tiles, 1, 64, 0, nullptr, tiles, places);
  std::vector<int> seen(19 * 3);
  for (const malc_place at : places.read()) {
    seen[at.row / 64 * 3 + at.column / 64]++;
    expect(at.row_end, std::min(at.row + 64, 19 * 64 - 5), "last row");
    expect(at.column_end, std::min(at.column + 64, 3 * 64 - 7), "last column");
  }
  for (const int times : seen) expect(times, 1, "visits of a tile");
}
