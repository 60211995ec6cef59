// warp.cpp - what the lanes of a warp do together. They gather; the last one to come does it for all.
#include <bit>
#include "machine.h"
#include "memory.h"
#include "warp.h"

namespace simt {
/* Waits for the lanes of `mask`; the last calls `perform` with the lanes' records, by lane. */
template <class Perform>
static void meet(Thread &self, const char *what, unsigned mask, void *record, Perform perform) {
  auto &meetings = self.block->meetings[self.warp];
  if (!(mask >> self.lane & 1)) fault("%s: lane %u is not in its own mask %08x", what, self.lane, mask);
  size_t found = meetings.size();
  for (size_t i = 0; i < meetings.size(); i++) {
    Meeting &meeting = meetings[i];
    if (!(meeting.mask & mask)) continue;
    if (meeting.mask != mask || meeting.what != what)
      fault("%s (mask %08x), while other lanes of its warp wait in %s (mask %08x): the warp has diverged", what, mask,
            meeting.what, meeting.mask);
    found = i;
  }
  if (found == meetings.size()) {
    const size_t first = static_cast<size_t>(self.warp) * 32;
    for (unsigned lane = 0; lane < 32; lane++)
      if ((mask >> lane & 1) &&
          (first + lane >= self.block->threads.size() || !self.block->threads[first + lane].running))
        fault("%s: lane %u of its mask %08x has left the kernel, or never was", what, lane, mask);
    meetings.push_back({what, mask, 0, {}});
  }
  Meeting &meeting = meetings[found];
  meeting.records[self.lane] = record;
  meeting.arrived |= 1u << self.lane;
  if (meeting.arrived != mask) return park();
  const Meeting all = meeting;
  meetings.erase(meetings.begin() + static_cast<long>(found));
  perform(all.records);
  Thread *const warp = &self.block->threads[static_cast<size_t>(self.warp) * 32];
  for (unsigned lane = 0; lane < 32; lane++)
    if ((mask >> lane & 1) && lane != self.lane) wake(warp[lane]);
  pause();
}

void sync_warp(unsigned mask) {
  Thread &self = SIMT_ENTER("__syncwarp");
  meet(self, "__syncwarp", mask, &self, [&](void *const *threads) {
    Gathering gathering;
    for (unsigned lane = 0; lane < 32; lane++)
      if (mask >> lane & 1) gathering.add(release(*static_cast<Thread *>(threads[lane])));
    const Seen known = gathering.take();
    for (unsigned lane = 0; lane < 32; lane++)
      if (mask >> lane & 1) acquire(*static_cast<Thread *>(threads[lane]), known);
  });
}

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int operand, int width) {
  Thread &self = SIMT_ENTER("a shuffle");
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    fault("a shuffle of width %d: a power of two up to 32", width);
  struct Record {
    uint64_t bits;
    unsigned source;
  } record{bits, self.lane};
  const int start = static_cast<int>(self.lane) & ~(width - 1), lane = static_cast<int>(self.lane);
  int source = kind == Shuffle::index  ? start + (operand & (width - 1))
               : kind == Shuffle::up   ? lane - operand
               : kind == Shuffle::down ? lane + operand
                                       : lane ^ operand;
  // Outside of the segment (for xor: beyond its end) a lane gets its own value.
  if (kind == Shuffle::exclusive_or ? source >= start + width : source < start || source >= start + width)
    source = lane;
  record.source = static_cast<unsigned>(source);
  if ((mask >> self.lane & 1) && !(mask >> record.source & 1))
    fault("a shuffle from lane %u, which is not in the mask %08x", record.source, mask);
  meet(self, "a shuffle", mask, &record, [&](void *const *records) {
    uint64_t values[32];
    for (unsigned i = 0; i < 32; i++)
      if (mask >> i & 1) values[i] = static_cast<Record *>(records[i])->bits;
    for (unsigned i = 0; i < 32; i++)
      if (mask >> i & 1) static_cast<Record *>(records[i])->bits = values[static_cast<Record *>(records[i])->source];
  });
  return record.bits;
}

unsigned vote(Vote kind, unsigned mask, bool predicate) {
  Thread &self = SIMT_ENTER("a vote");
  unsigned record = predicate;
  meet(self, "a vote", mask, &record, [&](void *const *records) {
    unsigned ballot = 0;
    for (unsigned i = 0; i < 32; i++)
      if ((mask >> i & 1) && *static_cast<unsigned *>(records[i])) ballot |= 1u << i;
    const unsigned result = kind == Vote::ballot ? ballot : kind == Vote::all ? ballot == mask : ballot != 0;
    for (unsigned i = 0; i < 32; i++)
      if (mask >> i & 1) *static_cast<unsigned *>(records[i]) = result;
  });
  return record;
}

static uint64_t updated(Update update, uint64_t old, uint64_t operand, uint64_t compare) {
  const auto is_signed = [](uint64_t value) { return static_cast<int32_t>(value); };
  switch (update) {
    case Update::add: return old + operand;
    case Update::minimum: return std::min(old, operand);
    case Update::maximum: return std::max(old, operand);
    case Update::signed_minimum: return is_signed(operand) < is_signed(old) ? operand : old;
    case Update::signed_maximum: return is_signed(operand) > is_signed(old) ? operand : old;
    case Update::exchange: return operand;
    case Update::compare: return old == compare ? operand : old;
    case Update::increment: return old >= operand ? 0 : old + 1;
    case Update::both: return old & operand;
    case Update::either: return old | operand;
    case Update::differ: return old ^ operand;
  }
  __builtin_unreachable();
}

unsigned reduce(Update update, unsigned mask, unsigned value) {
  Thread &self = SIMT_ENTER("a reduction");
  meet(self, "a reduction", mask, &value, [&](void *const *records) {
    uint64_t result = 0;
    bool first = true;
    for (unsigned i = 0; i < 32; i++) {
      if (!(mask >> i & 1)) continue;
      const unsigned operand = *static_cast<unsigned *>(records[i]);
      result = first ? operand : updated(update, static_cast<unsigned>(result), operand, 0);
      first = false;
    }
    for (unsigned i = 0; i < 32; i++)
      if (mask >> i & 1) *static_cast<unsigned *>(records[i]) = static_cast<unsigned>(result);
  });
  return value;
}

uint64_t atomic(void *address, unsigned bytes, Update update, uint64_t operand, uint64_t compare) {
  SIMT_ENTER("an atomic");
  check_atomic(address, bytes);
  const uint64_t mask = bytes == 4 ? 0xffffffffu : ~uint64_t{0};
  uint64_t old = 0;
  memcpy(&old, address, bytes);
  const uint64_t result = updated(update, old, operand & mask, compare & mask);
  memcpy(address, &result, bytes);
  pause();
  return old;
}

// ---- Matrices ----

/* The 8x8 matrices of ldmatrix and stmatrix: row r of matrix m is 16 bytes at what lane 8m + r says; lane l holds the
 * two elements of row l/4 from column 2 (l % 4), transposed of column l/4. */
static void matrices(Thread &self, const char *what, uint32_t *registers, unsigned count, uint32_t row, bool transposed,
                     bool store) {
  struct Record {
    Thread *thread;
    uint32_t row, *registers;
  } record{&self, row, registers};
  meet(self, what, ~0u, &record, [&](void *const *records) {
    for (unsigned m = 0; m < count; m++) {
      uint16_t *rows[8];
      for (unsigned r = 0; r < 8; r++) {
        const auto &source = *static_cast<Record *>(records[m * 8 + r]);
        rows[r] = reinterpret_cast<uint16_t *>(self.block->shared.at(source.row, 16, 16));
        // Each row counts as accessed by the lane that named it.
        if (store)
          self.block->shared.write(source.row, 16, source.thread->moment, Manner::ordinary, self.place);
        else
          self.block->shared.read(source.row, 16, source.thread->moment, Manner::ordinary, self.place);
      }
      for (unsigned lane = 0; lane < 32; lane++) {
        uint32_t &packed = static_cast<Record *>(records[lane])->registers[m];
        const unsigned major = lane / 4, minor = 2 * (lane % 4);
        uint16_t &low = transposed ? rows[minor][major] : rows[major][minor];
        uint16_t &high = transposed ? rows[minor + 1][major] : rows[major][minor + 1];
        if (store) {
          low = static_cast<uint16_t>(packed);
          high = static_cast<uint16_t>(packed >> 16);
        } else {
          packed = low | static_cast<uint32_t>(high) << 16;
        }
      }
    }
  });
}

void ldmatrix(uint32_t *registers, unsigned count, uint32_t row, bool transposed) {
  matrices(SIMT_ENTER("ldmatrix"), "ldmatrix", registers, count, row, transposed, false);
}
void stmatrix(const uint32_t *registers, unsigned count, uint32_t row, bool transposed) {
  matrices(SIMT_ENTER("stmatrix"), "stmatrix", const_cast<uint32_t *>(registers), count, row, transposed, true);
}

/* d [16][8] += a [16][K] b [K][8], summed in order of k. `a_at` and `b_at` find elements in the lanes' registers. */
template <int K, class A, class B>
static void multiply(Thread &self, const char *what, float *d, const uint32_t *a, uint32_t b0, uint32_t b1, A a_at,
                     B b_at) {
  struct Record {
    float *d;
    const uint32_t *a;
    uint32_t b[2];
  } record{d, a, {b0, b1}};
  meet(self, what, ~0u, &record, [&](void *const *records) {
    float a_all[16][K], b_all[K][8], sums[16][8] = {};
    for (int k = 0; k < K; k++) {
      for (int row = 0; row < 16; row++)
        a_all[row][k] = a_at(row, k, [&](int lane, int i) { return static_cast<Record *>(records[lane])->a[i]; });
      for (int column = 0; column < 8; column++)
        b_all[k][column] = b_at(k, column, [&](int lane, int i) { return static_cast<Record *>(records[lane])->b[i]; });
    }
    for (int row = 0; row < 16; row++)
      for (int k = 0; k < K; k++)
        for (int column = 0; column < 8; column++) sums[row][column] += a_all[row][k] * b_all[k][column];
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++)
        static_cast<Record *>(records[lane])->d[i] += sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  });
}

/* Element 0 or 1 of two packed ones. */
static float bf16_element(uint32_t packed, int which) {
  return std::bit_cast<float>(which == 0 ? packed << 16 : packed & 0xffff0000u);
}

void mma_bf16(float *d, const uint32_t *a, uint32_t b0, uint32_t b1) {
  multiply<16>(
      SIMT_ENTER("mma_bf16"), "mma_bf16", d, a, b0, b1,
      [](int row, int k, auto a_of) { return bf16_element(a_of(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2), k % 2); },
      [](int k, int column, auto b_of) { return bf16_element(b_of(column * 4 + k % 8 / 2, k / 8), k % 2); });
}

void mma_tf32(float *d, const uint32_t *a, uint32_t b0, uint32_t b1) {
  const auto element = [](uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); };
  multiply<8>(
      SIMT_ENTER("mma_tf32"), "mma_tf32", d, a, b0, b1,
      [=](int row, int k, auto a_of) { return element(a_of(row % 8 * 4 + k % 4, row / 8 + k / 4 * 2)); },
      [=](int k, int column, auto b_of) { return element(b_of(column * 4 + k % 4, k / 4)); });
}
} // namespace simt
