// matrices.cu.cpp - tests of the emulator: ldmatrix, mma.sync, cp.async (sm_80 and up) and stmatrix.
#include "check.h"

using check::Device;
using check::expect;

/* Loads 4 matrices of 8x8 from a [32][8] tile, plain or transposed, and writes each lane's registers. */
__global__ void load_matrices(const uint32_t *tile, uint32_t *out, bool transposed) {
  auto *const shared = reinterpret_cast<uint32_t *>(dynamic_shared());
  for (int i = threadIdx.x; i < 128; i += 32) shared[i] = tile[i];
  __syncwarp();
  const uint32_t base = shared_address(shared);
  uint32_t one[1], two[2], four[4];
  if (transposed) {
    ldmatrix_transposed(one, base + threadIdx.x % 8 * 16);
    ldmatrix_transposed(two, base + threadIdx.x % 16 * 16);
    ldmatrix_transposed(four, base + threadIdx.x * 16);
  } else {
    ldmatrix(one, base + threadIdx.x % 8 * 16);
    ldmatrix(two, base + threadIdx.x % 16 * 16);
    ldmatrix(four, base + threadIdx.x * 16);
  }
  const uint32_t values[] = {four[0], four[1], four[2], four[3], one[0], two[0], two[1]};
  for (int i = 0; i < 7; i++) out[i * 32 + threadIdx.x] = values[i];
}
TEST(load_matrix) {
  std::vector<uint32_t> tile(128);
  for (uint32_t i = 0; i < 128; i++) tile[i] = 2 * i | (2 * i + 1) << 16; // element (row, column) is 8 row + column
  Device<uint32_t> in(tile), out(224);
  for (const bool transposed : {false, true}) {
    LAUNCH(load_matrices, 1, 32, 512, nullptr, in, out, transposed);
    const auto v = out.read();
    for (uint32_t lane = 0; lane < 32; lane++)
      for (uint32_t m = 0; m < 4; m++) {
        const uint32_t major = lane / 4, minor = lane % 4 * 2;
        const uint32_t low = m * 64 + (transposed ? minor * 8 + major : major * 8 + minor);
        const uint32_t high = m * 64 + (transposed ? (minor + 1) * 8 + major : major * 8 + minor + 1);
        expect(v[m * 32 + lane], low | high << 16, "register");
        if (m == 0) expect(v[4 * 32 + lane], low | high << 16, "register of x1");
        if (m < 2) expect(v[(5 + m) * 32 + lane], low | high << 16, "register of x2");
      }
  }
}

/* What stmatrix stores, ldmatrix loads; and transposed, the transposed. */
__global__ void store_matrices(uint32_t *out) {
  const uint32_t base = shared_address(dynamic_shared()), lane = threadIdx.x;
  const uint32_t one[1] = {lane}, two[2] = {100 + lane, 200 + lane}, four[4] = {lane, 32 + lane, 64 + lane, 96 + lane};
  uint32_t back[4], pair[2], single[1];
  stmatrix(base + lane * 16, four);
  __syncwarp();
  ldmatrix(back, base + lane * 16);
  __syncwarp();
  stmatrix_transposed(base + lane % 16 * 16, two);
  __syncwarp();
  ldmatrix_transposed(pair, base + lane % 16 * 16);
  __syncwarp();
  stmatrix(base + lane % 8 * 16, one);
  __syncwarp();
  ldmatrix(single, base + lane % 8 * 16);
  for (int i = 0; i < 4; i++) out[i * 32 + lane] = back[i];
  out[128 + lane] = pair[0];
  out[160 + lane] = pair[1];
  out[192 + lane] = single[0];
}
TEST(store_matrix) {
  Device<uint32_t> out(224);
  LAUNCH(store_matrices, 1, 32, 512, nullptr, out);
  const auto v = out.read();
  for (uint32_t lane = 0; lane < 32; lane++) {
    for (uint32_t m = 0; m < 4; m++) expect(v[m * 32 + lane], m * 32 + lane, "x4");
    for (uint32_t m = 0; m < 2; m++) expect(v[128 + m * 32 + lane], 100 + m * 100 + lane, "x2 transposed");
    expect(v[192 + lane], lane, "x1");
  }
}

__global__ void multiply_fragments(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *d) {
  const int row = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  const auto at = [](const __nv_bfloat16 *p) { return *reinterpret_cast<const uint32_t *>(p); };
  const uint32_t fragment[4] = {at(a + row * 16 + pair), at(a + (row + 8) * 16 + pair), at(a + row * 16 + pair + 8),
                                at(a + (row + 8) * 16 + pair + 8)};
  float sums[4] = {1, 2, 3, 4};
  mma_bf16(sums, fragment, at(b + row * 16 + pair), at(b + row * 16 + pair + 8)); // b [column][k]
  for (int i = 0; i < 4; i++) d[(row + i / 2 * 8) * 8 + pair + i % 2] = sums[i];
}
TEST(mma_bfloat16) {
  const auto a = check::bf16_numbers(256), b = check::bf16_numbers(128);
  Device<__nv_bfloat16> in_a(a), in_b(b);
  Device<float> out(128);
  LAUNCH(multiply_fragments, 1, 32, 0, nullptr, in_a, in_b, out);
  const auto d = out.read();
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 8; column++) {
      float sum = 1 + column % 2 + row / 8 * 2;
      for (int k = 0; k < 16; k++) sum += a[row * 16 + k] * b[column * 16 + k];
      expect(d[row * 8 + column], sum, "element");
    }
}

__global__ void multiply_tf32(const float *a, const float *b, float *d) {
  const int row = threadIdx.x / 4, k = threadIdx.x % 4;
  const uint32_t fragment[4] = {to_tf32(a[row * 8 + k]), to_tf32(a[(row + 8) * 8 + k]), to_tf32(a[row * 8 + k + 4]),
                                to_tf32(a[(row + 8) * 8 + k + 4])};
  float sums[4] = {};
  mma_tf32(sums, fragment, to_tf32(b[row * 8 + k]), __float_as_uint(b[row * 8 + k + 4])); // b [column][k]
  for (int i = 0; i < 4; i++) d[(row + i / 2 * 8) * 8 + k * 2 + i % 2] = sums[i];
}
TEST(mma_tf32) {
  std::vector<float> a(128), b(64);
  for (size_t i = 0; i < a.size(); i++) a[i] = check::number(i);
  for (size_t i = 0; i < b.size(); i++) b[i] = check::number(i) * (1 + 1.0f / 4096); // which tf32 does not hold
  Device<float> in_a(a), in_b(b), out(128);
  LAUNCH(multiply_tf32, 1, 32, 0, nullptr, in_a, in_b, out);
  const auto d = out.read();
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 8; column++) {
      double sum = 0;
      for (int k = 0; k < 8; k++) sum += a[row * 8 + k] * static_cast<double>(check::number(column * 8 + k));
      check::expect_near(d[row * 8 + column], sum, 1e-5, "element");
    }
  expect(__uint_as_float(simt::to_tf32(1 + 1.0f / 2048)), 1 + 1.0f / 1024, "tie away from zero");
}

/* c [64][64] = a [64][k] b [64][k]^T by 4 warps of 32 x 32: three stages of 32 columns each, filled by cp.async. */
__global__ void __launch_bounds__(128) matmul(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int k) {
  constexpr int depth = 32, stages = 3, tile_bytes = 64 * depth * 2;
  const uint32_t tiles_a = shared_address(dynamic_shared()), tiles_b = tiles_a + stages * tile_bytes;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = warp / 2 * 32, columns = warp % 2 * 32;
  const auto place = [](int row, int chunk) { return row * depth * 2 + (chunk ^ (row >> 1 & 3)) * 16; };
  const auto load = [&](int step) {
    const uint32_t stage = step % stages * tile_bytes;
    for (int i = threadIdx.x; i < 64 * 4; i += 128) {
      const int row = i / 4, chunk = i % 4, column = step * depth + chunk * 8;
      cp_async<16>(tiles_a + stage + place(row, chunk), a + row * k + column, column < k);
      cp_async<16>(tiles_b + stage + place(row, chunk), b + row * k + column, column < k);
    }
  };
  float sums[2][4][4] = {};
  const int steps = (k + depth - 1) / depth;
  for (int step = 0; step < stages - 1; step++) {
    if (step < steps) load(step);
    cp_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    cp_async_wait<stages - 2>();
    __syncthreads();
    if (step + stages - 1 < steps) load(step + stages - 1);
    cp_async_commit();
    const uint32_t stage = step % stages * tile_bytes;
    for (int part = 0; part < depth / 16; part++) {
      uint32_t fragments_a[2][4], fragments_b[2][4];
      for (int i = 0; i < 2; i++) {
        ldmatrix(fragments_a[i], tiles_a + stage + place(rows + i * 16 + lane % 16, part * 2 + lane / 16));
        ldmatrix(fragments_b[i],
                 tiles_b + stage + place(columns + i * 16 + lane % 8 + lane / 16 * 8, part * 2 + lane / 8 % 2));
      }
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
          mma_bf16(sums[i][j], fragments_a[i], fragments_b[j / 2][j % 2 * 2], fragments_b[j / 2][j % 2 * 2 + 1]);
    }
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 4; j++)
      for (int e = 0; e < 4; e++)
        c[(rows + i * 16 + lane / 4 + e / 2 * 8) * 64 + columns + j * 8 + lane % 4 * 2 + e % 2] = sums[i][j][e];
}
TEST(matmul_pipeline) {
  const int k = 200; // the last step is not full
  const auto a = check::bf16_numbers(64 * k), b = check::bf16_numbers(64 * k);
  Device<__nv_bfloat16> in_a(a), in_b(b);
  Device<float> out(64 * 64);
  LAUNCH(matmul, 1, 128, 6 * 4096, nullptr, in_a, in_b, out, k);
  const auto c = out.read();
  for (int row = 0; row < 64; row++)
    for (int column = 0; column < 64; column++) {
      float sum = 0;
      for (int i = 0; i < k; i++) sum += a[row * k + i] * b[column * k + i];
      expect(c[row * 64 + column], sum, "element");
    }
}

__global__ void small_copies(const float *in, float *out) {
  auto *const shared = reinterpret_cast<float *>(dynamic_shared());
  const uint32_t address = shared_address(shared);
  cp_async<4>(address + threadIdx.x * 4, in + threadIdx.x);
  cp_async<8>(address + 128 + threadIdx.x * 8, in + threadIdx.x * 2, threadIdx.x < 8);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  out[threadIdx.x] = shared[31 - threadIdx.x];
  out[32 + threadIdx.x] = shared[32 + 31 - threadIdx.x];
  out[64 + threadIdx.x] = shared[64 + 31 - threadIdx.x];
}
TEST(copies_of_4_and_8_bytes) {
  std::vector<float> in(64);
  for (int i = 0; i < 64; i++) in[i] = 1.0f + i;
  Device<float> source(in), out(96);
  LAUNCH(small_copies, 1, 32, 384, nullptr, source, out);
  const auto v = out.read();
  for (int i = 0; i < 32; i++) {
    expect(v[i], 32 - i, "copy of 4 bytes");
    expect(v[32 + i], i >= 16 ? 32 - i : 0, "copy of 8 bytes");
    expect(v[64 + i], 0, "zeros where not valid");
  }
}
