/* amx-emulator.h - AMX's tiles in plain C, for machines without them: the intrinsics that templates/cpu/bf16_tiles.h
 * uses.
 *
 * Operations follow the pseudocode of Intel's Software Developer's Manual, volume 2: TDPBF16PS adds up the first and
 * the second numbers of pairs apart, starting from zero, then both to the sum; it rounds each time to the nearest even
 * and takes and leaves no denormals. A tile that is used without a configuration ends the process, as it does in
 * hardware. */
#ifndef AMX_EMULATOR_H
#define AMX_EMULATOR_H
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#endif
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_zero emulated_zero
#define _tile_dpbf16ps emulated_dpbf16ps

typedef struct {
  int rows, row_bytes; /* 0: not configured */
  uint8_t bytes[16][64];
} emulated_tile;

static _Thread_local emulated_tile emulated_tiles[8];
static int64_t emulated_products; /* TDPBF16PS by all threads */

/* Whether the kernel grants tiles to a process. */
#ifdef AMX_REFUSED
static bool malc_amx_permitted(void) { return false; }
#else
static bool malc_amx_permitted(void) { return true; }
#endif

static emulated_tile *emulated_configured(int number) {
  if (emulated_tiles[number].rows == 0) abort();
  return &emulated_tiles[number];
}

/* `from` holds the palette in byte 0, 16-bit bytes of a row from byte 16 on, and rows from byte 48 on. */
static void emulated_loadconfig(const void *from) {
  const uint8_t *bytes = from;
  if (bytes[0] != 1) abort();
  for (int i = 1; i < 16; i++)
    if (bytes[i] != 0) abort();
  memset(emulated_tiles, 0, sizeof emulated_tiles);
  for (int number = 0; number < 8; number++) {
    emulated_tiles[number].row_bytes = bytes[16 + 2 * number] + 256 * bytes[17 + 2 * number];
    emulated_tiles[number].rows = bytes[48 + number];
    if (emulated_tiles[number].rows > 16 || emulated_tiles[number].row_bytes > 64) abort();
  }
}

static void emulated_release(void) { memset(emulated_tiles, 0, sizeof emulated_tiles); }

static void emulated_zero(int number) {
  emulated_tile *tile = emulated_configured(number);
  memset(tile->bytes, 0, sizeof tile->bytes);
}

static void emulated_loadd(int number, const void *from, int64_t stride) {
  emulated_zero(number);
  emulated_tile *tile = emulated_configured(number);
  for (int i = 0; i < tile->rows; i++)
    memcpy(tile->bytes[i], (const uint8_t *)from + i * stride, (size_t)tile->row_bytes);
}

static void emulated_stored(int number, void *to, int64_t stride) {
  const emulated_tile *tile = emulated_configured(number);
  for (int i = 0; i < tile->rows; i++) memcpy((uint8_t *)to + i * stride, tile->bytes[i], (size_t)tile->row_bytes);
}

static inline float emulated_flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? 0.0f * x : x; }

/* a * b + sum, the factors in the upper halves of words. */
static inline float emulated_add(float sum, uint32_t a, uint32_t b) {
  float left, right;
  memcpy(&left, &a, sizeof left);
  memcpy(&right, &b, sizeof right);
  return emulated_flushed(__builtin_fmaf(emulated_flushed(left), emulated_flushed(right), sum));
}

static void emulated_dpbf16ps(int sums, int lefts, int rights) {
  emulated_tile *to = emulated_configured(sums);
  const emulated_tile *left = emulated_configured(lefts), *right = emulated_configured(rights);
  if (left->rows != to->rows || right->row_bytes != to->row_bytes || left->row_bytes != 4 * right->rows) abort();
  for (int i = 0; i < to->rows; i++) {
    float even[16] = { 0 }, odd[16] = { 0 }, sum[16];
    uint32_t a[16], b[16];
    memcpy(a, left->bytes[i], sizeof a);
    for (int k = 0; k < right->rows; k++) {
      memcpy(b, right->bytes[k], sizeof b);
      for (int j = 0; j < to->row_bytes / 4; j++) {
        even[j] = emulated_add(even[j], a[k] << 16, b[j] << 16);
        odd[j] = emulated_add(odd[j], a[k] & 0xffff0000u, b[j] & 0xffff0000u);
      }
    }
    memcpy(sum, to->bytes[i], sizeof sum);
    for (int j = 0; j < to->row_bytes / 4; j++)
      sum[j] = emulated_flushed(emulated_flushed(sum[j]) + emulated_flushed(even[j] + odd[j]));
    memcpy(to->bytes[i], sum, sizeof sum);
  }
  __atomic_fetch_add(&emulated_products, 1, __ATOMIC_RELAXED);
}
#endif
