// warpgroup.cpp - wgmma: multiplications of 128 threads, issued now and performed when they are waited for.
#include <algorithm>
#include <bit>
#include <cmath>
#include "machine.h"
#include "tensor_map.h"

namespace simt {
/* Waits for the other threads of the warpgroup; the last calls `perform(warpgroup, its first thread, records)`. */
template <class Perform>
static void meet(Thread &self, const char *what, void *record, Perform perform) {
  Block &block = *self.block;
  const unsigned number = self.number / 128;
  if (block.threads.size() < (number + 1) * 128) fault("%s by a warpgroup of fewer than 128 threads", what);
  Warpgroup &group = block.warpgroups[number];
  if (group.arrived > 0 && group.what != what)
    fault("%s, while other threads of its warpgroup wait in %s: the warpgroup has diverged", what, group.what);
  group.what = what;
  group.records[self.number % 128] = record;
  Thread *const first = &block.threads[static_cast<size_t>(number) * 128];
  if (++group.arrived < 128) {
    for (unsigned i = 0; i < 128; i++)
      if (!first[i].running) fault("%s, which threads of its warpgroup left the kernel without", what);
    return park();
  }
  group.arrived = 0;
  perform(group, first, group.records);
  for (unsigned i = 0; i < 128; i++)
    if (&first[i] != &self) wake(first[i]);
  pause();
}

void wgmma_fence() {
  meet(SIMT_ENTER("wgmma_fence"), "wgmma_fence", nullptr,
       [](Warpgroup &group, Thread *, void **) { group.fenced = true; });
}

void wgmma_commit() {
  meet(SIMT_ENTER("wgmma_commit"), "wgmma_commit", nullptr, [](Warpgroup &group, Thread *, void **) {
    group.committed++;
    group.groups.push_back(group.time);
  });
}

/* The address of 8 elements that lie together: of k 8 chunk..., of row mn (K-major); or of mn 8 chunk..., of row k. */
static uint32_t chunk_address(uint64_t descriptor, bool transposed, unsigned row, unsigned chunk) {
  const uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4;
  const uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
  if (transposed) return swizzle(start + chunk / 8 * leading + row / 8 * stride + row % 8 * 128 + chunk % 8 * 16);
  return swizzle(start + row / 8 * stride + row % 8 * 128 + chunk * 16);
}

/* Calls `visit(mn, k, address, step_mn, step_k)` for each run of 8 elements of an operand with `count` rows. */
template <class Visit>
static void for_operand(uint64_t descriptor, bool transposed, unsigned count, Visit visit) {
  if (transposed) {
    for (unsigned k = 0; k < 16; k++)
      for (unsigned mn = 0; mn < count; mn += 8) visit(mn, k, chunk_address(descriptor, true, k, mn / 8), 1u, 0u);
  } else {
    for (unsigned mn = 0; mn < count; mn++)
      for (unsigned k = 0; k < 16; k += 8) visit(mn, k, chunk_address(descriptor, false, mn, k / 8), 0u, 1u);
  }
}

static float element(const unsigned char *memory, unsigned i) {
  uint16_t bits;
  memcpy(&bits, memory + 2 * i, 2);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

static void check_descriptor(uint64_t descriptor, bool transposed) {
  if (descriptor >> 62 != 1) fault("a wgmma descriptor that does not say 128-byte swizzle");
  if (transposed && (descriptor & 0x3fff) << 4 & 0x7f)
    fault("a transposed wgmma operand that starts in the middle of a chunk of 64 elements");
}

/* The moment at which all of some threads know something: the least that any knows. */
static Moment least(Thread *const *threads, unsigned count, Actor reader, Time time) {
  Times known;
  for (unsigned i = 0; i < count; i++) {
    Times own = threads[i]->moment.seen ? *threads[i]->moment.seen : Times();
    raise(own, threads[i]->moment.actor, threads[i]->moment.now);
    if (i == 0) known = own;
    if (known.size() > own.size()) known.resize(own.size());
    for (size_t k = 0; k < known.size(); k++) known[k] = std::min(known[k], own[k]);
  }
  return {std::make_shared<Times>(known), reader, time};
}

/* Operands are read from the issue to the wait. A warp reads its 16 rows of a, and all of b. */
static void read_operands(Warpgroup &group, Thread *first, const Multiplication &issued, const void *place) {
  Shadow &shared = first->block->shared;
  if (group.reads == 0) group.reads = new_actor("the wgmma of the warpgroup of " + actor_name(first->moment.actor));
  group.time++;
  Thread *warps[4];
  for (unsigned warp = 0; warp < 4; warp++) {
    warps[warp] = first + warp * 32;
    if (!issued.a.empty()) continue;
    const Moment moment = least(&warps[warp], 1, group.reads, group.time);
    for_operand(issued.a_shared, issued.a_transposed, 64,
                [&](unsigned m, unsigned, uint32_t address, unsigned, unsigned) {
                  if (m / 16 == warp) shared.read(address, 16, moment, Manner::asynchronous, place);
                });
  }
  const Moment moment = least(warps, 4, group.reads, group.time);
  for_operand(issued.b_shared, issued.b_transposed, issued.n,
              [&](unsigned, unsigned, uint32_t address, unsigned, unsigned) {
                shared.read(address, 16, moment, Manner::asynchronous, place);
              });
}

/* Row and column of register i of thread t's accumulator. */
static unsigned row_of(unsigned t, unsigned i) { return t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8; }
static unsigned column_of(unsigned t, unsigned i) { return i / 4 * 8 + t % 4 * 2 + i % 2; }

/* What a register holds while a wgmma under way reads it: two NaNs. */
constexpr uint32_t held = 0x7fc17fc1;

/* Takes the left operand of a multiplication out of registers, which threads may not touch until it is waited for. */
static void hold(Left &left, Multiplication &issued, const uint32_t *const (&registers)[128]) {
  if (left.under_way++ == 0) {
    left.registers.resize(128);
    left.values.resize(128);
    for (unsigned t = 0; t < 128; t++) {
      uint32_t *const own = left.registers[t] = const_cast<uint32_t *>(registers[t]);
      std::copy_n(own, 4, left.values[t].begin());
      std::fill_n(own, 4, held);
    }
  }
  issued.a.resize(64 * 16);
  for (unsigned t = 0; t < 128; t++)
    for (unsigned i = 0; i < 4; i++)
      for (unsigned half = 0; half < 2; half++) {
        const uint32_t two = left.values[t][i];
        issued.a[(t / 32 * 16 + t % 32 / 4 + i % 2 * 8) * 16 + t % 4 * 2 + half + i / 2 * 8] =
            std::bit_cast<float>(half == 0 ? two << 16 : two & 0xffff0000u);
      }
}

/* Gives them back. */
static void release_left(Warpgroup &group, const Multiplication &issued) {
  Left &left = group.lefts[issued.left];
  if (--left.under_way > 0) return;
  for (unsigned t = 0; t < 128; t++)
    for (unsigned i = 0; i < 4; i++) {
      uint32_t &own = left.registers[t][i];
      if (own != held) fault("writes a register of thread %u that a wgmma under way reads", t);
      own = left.values[t][i];
    }
  group.lefts.erase(issued.left);
}

void wgmma(float *d, unsigned n, const uint32_t *a, uint64_t a_shared, uint64_t b_shared, bool a_transposed,
           bool b_transposed, bool accumulate) {
  Thread &self = SIMT_ENTER("wgmma");
  if (!a) check_descriptor(a_shared, a_transposed);
  check_descriptor(b_shared, b_transposed);
  struct Record {
    float *d;
    const uint32_t *a;
    uint64_t a_shared, b_shared;
    bool accumulate;
  } record{d, a, a_shared, b_shared, accumulate};
  meet(self, "wgmma", &record, [&](Warpgroup &group, Thread *first, void **records) {
    const auto lane = [&](unsigned t) -> const Record & { return *static_cast<Record *>(records[t]); };
    if (!group.fenced) fault("wgmma without a wgmma_fence since the last wait");
    for (unsigned t = 0; t < 128; t++)
      if (lane(t).a_shared != a_shared || lane(t).b_shared != b_shared || lane(t).accumulate != accumulate)
        fault("wgmma: the threads of the warpgroup disagree on its operands");
    Multiplication issued{group.committed, n,        a_transposed, b_transposed, accumulate,
                          a_shared,        b_shared, {},           lane(0).a,    lane(0).d};
    if (a) {
      const uint32_t *registers[128];
      for (unsigned t = 0; t < 128; t++) registers[t] = lane(t).a;
      hold(group.lefts[lane(0).a], issued, registers);
    }
    if (machine.checked()) read_operands(group, first, issued, self.place);
    Accumulator &accumulator = group.accumulators[lane(0).d];
    if (accumulator.under_way++ == 0) {
      accumulator.registers.resize(128);
      accumulator.values.resize(static_cast<size_t>(64) * n);
      for (unsigned t = 0; t < 128; t++) {
        float *const registers = accumulator.registers[t] = lane(t).d;
        for (unsigned i = 0; i < n / 2; i++) {
          accumulator.values[row_of(t, i) * n + column_of(t, i)] = registers[i];
          registers[i] = NAN; // until the wait
        }
      }
    }
    group.pending.push_back(std::move(issued));
  });
}

/* Adds `factor` times `values` to `sums`: most of the emulator's time where products are Hopper's. */
static void add_multiple(float *__restrict__ sums, float factor, const float *__restrict__ values, size_t count) {
  for (size_t i = 0; i < count; i++) sums[i] += factor * values[i];
}

static void perform(const Multiplication &issued, const Shadow &shared, Accumulator &accumulator) {
  const unsigned n = issued.n;
  std::vector<float> a = issued.a, b(static_cast<size_t>(16) * n);
  if (a.empty()) {
    a.resize(64 * 16);
    for_operand(issued.a_shared, issued.a_transposed, 64,
                [&](unsigned m, unsigned k, uint32_t address, unsigned step_m, unsigned step_k) {
                  const unsigned char *const memory = shared.at(address, 16, 16);
                  for (unsigned i = 0; i < 8; i++) a[(m + i * step_m) * 16 + k + i * step_k] = element(memory, i);
                });
  }
  for_operand(issued.b_shared, issued.b_transposed, n,
              [&](unsigned column, unsigned k, uint32_t address, unsigned step_n, unsigned step_k) {
                const unsigned char *const memory = shared.at(address, 16, 16);
                for (unsigned i = 0; i < 8; i++) b[(k + i * step_k) * n + column + i * step_n] = element(memory, i);
              });
  std::vector<float> sums(n);
  for (unsigned m = 0; m < 64; m++) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (unsigned k = 0; k < 16; k++) add_multiple(sums.data(), a[m * 16 + k], &b[static_cast<size_t>(k) * n], n);
    float *const row = &accumulator.values[static_cast<size_t>(m) * n];
    for (unsigned column = 0; column < n; column++)
      row[column] = (issued.accumulate ? row[column] : 0.0f) + sums[column];
  }
}

void wgmma_wait(unsigned pending) {
  Thread &self = SIMT_ENTER("wgmma_wait");
  meet(self, "wgmma_wait", nullptr, [&](Warpgroup &group, Thread *first, void **) {
    group.fenced = false;
    size_t done = 0;
    for (; done < group.pending.size() && group.pending[done].group + pending < group.committed; done++) {
      const Multiplication &issued = group.pending[done];
      Accumulator &accumulator = group.accumulators[issued.accumulator];
      perform(issued, self.block->shared, accumulator);
      if (issued.left) release_left(group, issued);
      if (--accumulator.under_way > 0) continue;
      for (unsigned t = 0; t < 128; t++)
        for (unsigned i = 0; i < issued.n / 2; i++)
          accumulator.registers[t][i] = accumulator.values[row_of(t, i) * issued.n + column_of(t, i)];
      group.accumulators.erase(issued.accumulator);
    }
    group.pending.erase(group.pending.begin(), group.pending.begin() + static_cast<long>(done));
    if (group.committed > pending)
      for (unsigned t = 0; t < 128; t++) acquire(first[t], group.reads, group.groups[group.committed - pending - 1]);
  });
}
} // namespace simt
