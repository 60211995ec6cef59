// hopper.cu.cpp - tests of the emulator: sm_90a's mbarriers, TMA, clusters and wgmma.
#include "check.h"

using check::Device;
using check::expect;

static CUtensorMap map_of(const __nv_bfloat16 *base, uint64_t columns, uint64_t rows, unsigned box_columns,
                          unsigned box_rows) {
  CUtensorMap map;
  check::succeeded(encode_tensor_map(&map, base, 2, {columns, rows, 1}, {columns, 0}, box_columns, box_rows),
                   "encode_tensor_map");
  return map;
}

/* Loads a box, adds one to each element, and stores it in another place, by TMA both ways. */
__global__ void move_box(const __grid_constant__ CUtensorMap from, const __grid_constant__ CUtensorMap to, int x, int y,
                         int z, int w) {
  auto *const tile = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  __shared__ uint64_t arrived;
  const uint32_t barrier = shared_address(&arrived);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, 8 * 128);
    if (z < 0)
      tma_load_2d(shared_address(tile), &from, barrier, x, y);
    else if (w >= 0)
      tma_load_4d(shared_address(tile), &from, barrier, x, y, z, w);
    else
      tma_load_3d(shared_address(tile), &from, barrier, x, y, z);
  }
  mbarrier_wait(barrier, 0);
  for (int i = threadIdx.x; i < 8 * 64; i += 32) {
    const int row = i / 64, place = row * 64 + ((i % 64 / 8 ^ row) * 8 + i % 8); // the swizzle, by hand
    tile[place] = tile[place] + (row == 0 ? 100.0f : 1.0f);
  }
  fence_async();
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (z < 0)
    tma_store_2d(&to, shared_address(tile), x, y);
  else if (w >= 0)
    tma_store_4d(&to, shared_address(tile), x, y, z, w);
  else
    tma_store_3d(&to, shared_address(tile), x, y, z);
  bulk_commit();
  bulk_wait_read<0>();
  bulk_wait<0>();
}
TEST(tma_2d) { // over the edges: zeros come in, nothing goes out
  const int columns = 72, rows = 20;
  const auto in = check::bf16_numbers(columns * rows);
  Device<__nv_bfloat16> source(in), target(std::vector<__nv_bfloat16>(columns * rows, __nv_bfloat16(-9.0f)));
  const CUtensorMap from = map_of(source, columns, rows, 64, 8), to = map_of(target, columns, rows, 64, 8);
  LAUNCH(move_box, 1, 32, 1024, nullptr, from, to, 16, -2, -1, -1);
  const auto out = target.read();
  for (int row = 0; row < rows; row++)
    for (int column = 0; column < columns; column++) {
      const float moved = in[row * columns + column] + 1.0f;
      expect(out[row * columns + column], row < 6 && column >= 16 ? moved : -9.0f, "element");
    }
}
TEST(tma_3d) {
  const int columns = 64, rows = 16, planes = 3;
  const auto in = check::bf16_numbers(columns * rows * planes);
  Device<__nv_bfloat16> source(in), target(in);
  CUtensorMap from, to;
  const uint64_t sizes[4] = {64, 16, 3}, strides[3] = {64, 64 * 16};
  check::succeeded(encode_tensor_map(&from, source, 3, sizes, strides, 64, 8), "encode_tensor_map");
  check::succeeded(encode_tensor_map(&to, target, 3, sizes, strides, 64, 8), "encode_tensor_map");
  LAUNCH(move_box, 1, 32, 1024, nullptr, from, to, 0, 8, 2, -1);
  const auto out = target.read();
  for (int i = 0; i < columns * rows * planes; i++) {
    const int row = i / 64;
    const float added = row < 40 ? 0.0f : row == 40 ? 100.0f : 1.0f;
    expect(out[i], __nv_bfloat16(in[i] + added), "element");
  }
}
TEST(tma_4d) { // rows of 2 heads in turn, of 3 texts: the box is cut off where a text ends
  const int columns = 64, rows = 12, planes = 2, texts = 3;
  const auto in = check::bf16_numbers(columns * rows * planes * texts);
  Device<__nv_bfloat16> source(in), target(in);
  CUtensorMap from, to;
  const uint64_t sizes[4] = {64, 12, 2, 3}, strides[3] = {64 * 2, 64, 64 * 2 * 12};
  check::succeeded(encode_tensor_map(&from, source, 4, sizes, strides, 64, 8), "encode_tensor_map");
  check::succeeded(encode_tensor_map(&to, target, 4, sizes, strides, 64, 8), "encode_tensor_map");
  LAUNCH(move_box, 1, 32, 1024, nullptr, from, to, 0, 8, 1, 1);
  const auto out = target.read();
  for (int i = 0; i < columns * rows * planes * texts; i++) {
    const int plane = i / 64 % 2, row = i / 128 % 12, text = i / 128 / 12;
    const bool moved = plane == 1 && text == 1 && row >= 8;
    expect(out[i], __nv_bfloat16(in[i] + (!moved ? 0.0f : row == 8 ? 100.0f : 1.0f)), "element");
  }
}
/* Blocks add to the same floats, each by a ticket and in turn; the first stores. */
__global__ void add_in_turn(float *sums, int32_t *turns) {
  auto *const part = reinterpret_cast<float *>(dynamic_shared());
  int mine = threadIdx.x == 0 ? atomicAdd(&turns[1], 1) : 0;
  mine = __shfl_sync(0xffffffffu, mine, 0);
  part[threadIdx.x] = static_cast<float>(mine + 1);
  fence_async();
  __syncwarp();
  if (threadIdx.x != 0) return;
  turn_wait(turns, mine);
  fence_async_global();
  if (mine == 0)
    bulk_store(sums, shared_address(part), 128);
  else
    bulk_add(sums, shared_address(part), 128);
  bulk_commit();
  bulk_wait<0>();
  turn_pass(turns);
}
TEST(turns) {
  Device<float> sums(std::vector<float>(32, 9.0f));
  Device<int32_t> turns(std::vector<int32_t>(2, 0));
  LAUNCH(add_in_turn, 5, 32, 1024, nullptr, sums, turns);
  for (const float sum : sums.read()) expect(sum, 15, "the sum of five blocks");
}

TEST(encode_refuses) {
  Device<__nv_bfloat16> data(256);
  CUtensorMap map;
  expect(encode_tensor_map(&map, data, 2, {64, 4, 1}, {60, 0}, 64, 4), cudaErrorInvalidValue, "a stride of 120 bytes");
  expect(encode_tensor_map(&map, data + 1, 2, {64, 4, 1}, {64, 0}, 64, 4), cudaErrorInvalidValue,
         "a base that is not aligned");
  expect(encode_tensor_map(&map, data, 2, {64, 4, 1}, {64, 0}, 128, 4), cudaErrorInvalidValue, "rows of 256 bytes");
  expect(encode_tensor_map(&map, data, 2, {64, 4, 1}, {64, 0}, 64, 512), cudaErrorInvalidValue, "a box of 512 rows");
}

/* A producer warp fills a ring of two stages with bulk copies; a consumer warp empties it. */
__global__ void ring(const float *in, float *out, int rounds) {
  auto *const stages = reinterpret_cast<float *>(dynamic_shared());
  __shared__ uint64_t full[2], empty[2];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; i++) {
      mbarrier_init(shared_address(&full[i]), 1);
      mbarrier_init(shared_address(&empty[i]), 32);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  for (int round = 0; round < rounds; round++) {
    const int stage = round % 2, phase = round / 2 % 2;
    if (threadIdx.x == 0) {
      mbarrier_wait(shared_address(&empty[stage]), phase ^ 1);
      mbarrier_arrive_expect(shared_address(&full[stage]), 128);
      bulk_load(shared_address(stages + stage * 32), in + round * 32, 128, shared_address(&full[stage]));
    } else if (threadIdx.x >= 32) {
      mbarrier_wait(shared_address(&full[stage]), phase);
      out[round * 32 + threadIdx.x - 32] = stages[stage * 32 + 63 - threadIdx.x];
      mbarrier_arrive(shared_address(&empty[stage]));
    }
  }
}
TEST(mbarrier_ring) {
  std::vector<float> in(7 * 32);
  for (size_t i = 0; i < in.size(); i++) in[i] = i;
  Device<float> source(in), out(in.size());
  LAUNCH(ring, 2, 64, 256, nullptr, source, out, 7);
  const auto v = out.read();
  for (int i = 0; i < 7 * 32; i++) expect(v[i], i / 32 * 32 + 31 - i % 32, "element");
}

/* Each block of a cluster loads half of a box for both; static variables and indices are each block's own. */
__global__ void share_box(const __grid_constant__ CUtensorMap from, float *out) {
  auto *const tile = reinterpret_cast<__nv_bfloat16 *>(dynamic_shared());
  __shared__ uint64_t full, done;
  __shared__ unsigned mine;
  const unsigned rank = cluster_rank();
  if (threadIdx.x == 0) {
    mine = blockIdx.x;
    mbarrier_init(shared_address(&full), 1);
    mbarrier_init(shared_address(&done), 2);
    mbarrier_init_fence();
  }
  cluster_sync();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(shared_address(&full), 2 * 8 * 128);
    tma_load_2d_multicast(shared_address(tile + rank * 512), &from, shared_address(&full), 0,
                          blockIdx.x / 2 * 16 + rank * 8, 3);
  }
  mbarrier_wait(shared_address(&full), 0);
  for (int i = threadIdx.x; i < 1024; i += 32) {
    const int row = i / 64;
    out[mine * 1024 + i] = tile[row * 64 + ((i % 64 / 8 ^ row % 8) * 8 + i % 8)];
  }
  __syncwarp();
  if (threadIdx.x < 2) mbarrier_arrive_remote(shared_address(&done), threadIdx.x);
  mbarrier_wait(shared_address(&done), 0);
  cluster_sync();
}
TEST(cluster_multicast) {
  const auto in = check::bf16_numbers(64 * 32);
  Device<__nv_bfloat16> source(in);
  Device<float> out(4 * 1024);
  const CUtensorMap from = map_of(source, 64, 32, 64, 8);
  LAUNCH(share_box, malc_grid(4).clusters_of(2), 32, 2048, nullptr, from, out);
  const auto v = out.read();
  for (int i = 0; i < 4096; i++) expect(v[i], in[i / 2048 * 1024 + i % 1024], "element");
}

/* d [64][N] = a b for k = 64 in four instructions, both operands by TMA; a from registers where `Registers`. */
template <int N, int TransposedA, int TransposedB, bool Registers>
__global__ void __launch_bounds__(128, 1)
    multiply(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float *d) {
  unsigned char *const tile_a = dynamic_shared(), *const tile_b = tile_a + 64 * 128;
  __shared__ uint64_t full;
  if (threadIdx.x == 0) {
    mbarrier_init(shared_address(&full), 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  registers_increase<232>();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(shared_address(&full), (64 + N) * 128);
    tma_load_2d(shared_address(tile_a), &a, shared_address(&full), 0, 0);
    if (TransposedB)
      for (int chunk = 0; chunk < N / 64; chunk++)
        tma_load_2d(shared_address(tile_b + chunk * 8192), &b, shared_address(&full), chunk * 64, 0);
    else
      tma_load_2d(shared_address(tile_b), &b, shared_address(&full), 0, 0);
  }
  mbarrier_wait(shared_address(&full), 0);
  float sums[N / 2];
  uint32_t fragments[4][4];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (Registers)
    for (int k = 0; k < 4; k++) {
      const int row = warp * 16 + lane % 16, chunk = k * 2 + lane / 16;
      ldmatrix(fragments[k], shared_address(tile_a) + row * 128 + (chunk ^ row % 8) * 16);
    }
  wgmma_fence();
  for (int k = 0; k < 4; k++) {
    const uint64_t from_a =
        wgmma_descriptor(shared_address(tile_a) + k * (TransposedA ? 2048 : 32), TransposedA ? 8192 : 16, 1024);
    const uint64_t from_b =
        wgmma_descriptor(shared_address(tile_b) + k * (TransposedB ? 2048 : 32), TransposedB ? 8192 : 16, 1024);
    if constexpr (Registers)
      wgmma_registers<N, TransposedB>(sums, fragments[k], from_b, k != 0);
    else
      wgmma<N, TransposedA, TransposedB>(sums, from_a, from_b, k != 0);
    wgmma_commit();
  }
  wgmma_wait<2>();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; i++)
    d[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
template <int N, int TransposedA, int TransposedB, bool Registers>
static void check_product() {
  const auto a = check::bf16_numbers(64 * 64), b = check::bf16_numbers(N * 64);
  Device<__nv_bfloat16> in_a(a), in_b(b);
  Device<float> out(64 * N);
  const CUtensorMap map_a = map_of(in_a, 64, 64, 64, 64);
  const CUtensorMap map_b = TransposedB ? map_of(in_b, N, 64, 64, 64) : map_of(in_b, 64, N, 64, N);
  LAUNCH((multiply<N, TransposedA, TransposedB, Registers>), 1, 128, (64 + N) * 128, nullptr, map_a, map_b, out);
  const auto d = out.read();
  for (int row = 0; row < 64; row++)
    for (int column = 0; column < N; column++) {
      float sum = 0;
      for (int k = 0; k < 64; k++)
        sum += a[TransposedA ? k * 64 + row : row * 64 + k] * b[TransposedB ? k * N + column : column * 64 + k];
      expect(d[row * N + column], sum, "element " + std::to_string(row) + ", " + std::to_string(column));
    }
}
TEST(wgmma_both_k_major) { check_product<32, 0, 0, false>(); }
TEST(wgmma_transposed_b) { check_product<128, 0, 1, false>(); }
TEST(wgmma_transposed_a) { check_product<8, 1, 0, false>(); }
TEST(wgmma_both_transposed) { check_product<64, 1, 1, false>(); }
TEST(wgmma_from_registers) { check_product<128, 0, 1, true>(); }
TEST(wgmma_from_registers_k_major) { check_product<16, 0, 0, true>(); }

__global__ void add_after(const float *in, float *out) {
  grid_dependency_wait();
  out[threadIdx.x] = in[threadIdx.x] + 1;
  grid_dependency_launch();
}
TEST(overlapping_grids) {
  Device<float> a(std::vector<float>(32, 1.0f)), b(32), c(32);
  LAUNCH(add_after, malc_grid(1).overlapping(), 32, 0, nullptr, a, b);
  LAUNCH(add_after, malc_grid(1).overlapping(), 32, 0, nullptr, b, c);
  expect(c.read()[31], 3, "sum");
}
