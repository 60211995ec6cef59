// bulk.cpp - bulk copies between global and shared memory: TMA's boxes and plain ranges.
//
// A copy is checked when a thread issues it, and performed later, by an engine; the accesses to shared memory count as
// the engine's, which knows what the thread knew at the issue.
#include "mbarrier.h"
#include "memory.h"
#include "tensor_map.h"

namespace simt {
/* An engine that knows what a thread knows now. */
static Moment engine_moment(Thread &self, Actor engine, Time time) {
  const Moment moment = release(self);
  auto times = moment.seen ? std::make_shared<Times>(*moment.seen) : std::make_shared<Times>();
  raise(*times, moment.actor, moment.now);
  return {times, engine, time};
}

/* Calls `visit(shared address, global address)` for elements of a box inside its tensor, else `outside(address)`. */
template <class Visit, class Outside>
static void for_box(const TensorMap &map, uint32_t shared, int x, int y, int z, int w, Visit visit, Outside outside) {
  uint32_t address = shared;
  for (uint32_t n = 0; n < map.box[3] * map.box[2]; n++)
    for (uint32_t row = 0; row < map.box[1]; row++)
      for (uint32_t column = 0; column < map.box[0]; column++, address += map.element_bytes) {
        const int64_t at[4] = {int64_t{x} + column, int64_t{y} + row, int64_t{z} + n % map.box[2],
                               int64_t{w} + n / map.box[2]};
        const uint32_t place = map.swizzled ? swizzle(address) : address;
        bool inside = true;
        for (int i = 0; i < 4; i++) inside = inside && at[i] >= 0 && at[i] < static_cast<int64_t>(map.sizes[i]);
        if (inside)
          visit(place, map.base + static_cast<uint64_t>(at[0]) * map.element_bytes +
                           static_cast<uint64_t>(at[1]) * map.strides[0] +
                           static_cast<uint64_t>(at[2]) * map.strides[1] +
                           static_cast<uint64_t>(at[3]) * map.strides[2]);
        else
          outside(place);
      }
}

static void check_box(Thread &self, const TensorMap &map, uint32_t shared, int x, int y, int z, int w,
                      const char *verb) {
  self.block->shared.at(shared, map.box_bytes(), map.swizzled ? 1024 : 128);
  const auto check = [&](uint32_t, char *global) { check_global(global, map.element_bytes, 1, verb); };
  for_box(map, shared, x, y, z, w, check, [](uint32_t) {});
}

/* Has an engine write `bytes` of this block's and, at the same address, other blocks' shared memory, and complete on
 * their mbarriers: `fill(memory of a block)` does it. */
template <class Fill>
static void load(Thread &self, uint32_t shared, uint32_t bytes, uint32_t barrier, uint16_t ranks, Fill fill) {
  for (Block &block : machine.blocks) {
    if (!(ranks >> block.rank & 1)) continue;
    if (block.exited == block.threads.size()) fault("copies into block %u of its cluster, which has ended", block.rank);
    SharedBarrier &target = shared_barrier(block, barrier, self.moment);
    require_fence(target, barrier);
    if (target.copies == 0)
      target.copies = new_actor(std::string("the copy that completes on ") + shared_place(barrier));
    const Moment moment = engine_moment(self, target.copies, ++target.copied);
    const auto perform = [&block, &target, shared, bytes, moment, fill, place = self.place] {
      block.shared.write(shared, bytes, moment, Manner::asynchronous, place);
      fill(block);
      target.bytes -= bytes;
      if (machine.checked()) target.gathering.add(moment.actor, moment.now);
      complete_phase(target);
    };
    machine.engines.push_back({&self, self.place, perform});
  }
}

void tma_load(uint32_t shared, const CUtensorMap *encoded, uint32_t barrier, unsigned rank, int x, int y, int z, int w,
              uint16_t ranks) {
  Thread &self = SIMT_ENTER("tma_load");
  const TensorMap map = tensor_map(encoded, rank);
  if (ranks >> machine.blocks.size() != 0)
    fault("a multicast to blocks %x of a cluster of %zu", ranks, machine.blocks.size());
  check_box(self, map, shared, x, y, z, w, "TMA reads");
  const uint16_t own = static_cast<uint16_t>(1u << self.block->rank);
  load(self, shared, map.box_bytes(), barrier, ranks ? ranks : own, [=](Block &block) {
    const auto copy = [&](uint32_t place, const char *global) {
      memcpy(block.shared.at(place, map.element_bytes, 1), global, map.element_bytes);
    };
    const auto clear = [&](uint32_t place) {
      memset(block.shared.at(place, map.element_bytes, 1), 0, map.element_bytes);
    };
    for_box(map, shared, x, y, z, w, copy, clear);
  });
}

void bulk_load(uint32_t shared, const void *global, uint32_t bytes, uint32_t barrier) {
  Thread &self = SIMT_ENTER("bulk_load");
  if (bytes == 0 || bytes % 16 != 0) fault("bulk_load of %u bytes: multiples of 16 are allowed", bytes);
  self.block->shared.at(shared, bytes, 16);
  check_global(global, bytes, 16, "bulk_load reads");
  load(self, shared, bytes, barrier, static_cast<uint16_t>(1u << self.block->rank),
       [=](Block &block) { memcpy(block.shared.at(shared, bytes, 16), global, bytes); });
}

/* Has an engine read `bytes` of this block's shared memory into the thread's open group: `write()` does it. */
template <class Write>
static void store(Thread &self, uint32_t shared, uint32_t bytes, Write write) {
  if (self.stores == 0) self.stores = new_actor("the tma_store of " + actor_name(self.moment.actor));
  // The read counts from its issue to the wait.
  self.block->shared.read(shared, bytes, engine_moment(self, self.stores, ++self.store_time), Manner::asynchronous,
                          self.place);
  const size_t group = self.store_groups.size();
  self.stores_left[group]++;
  const auto perform = [&self, write, group] {
    write();
    self.stores_left[group]--;
    if (!self.waits_for_stores) return;
    self.waits_for_stores = false;
    wake(self);
  };
  machine.engines.push_back({&self, self.place, perform});
}

void tma_store(const CUtensorMap *encoded, uint32_t shared, unsigned rank, int x, int y, int z, int w) {
  Thread &self = SIMT_ENTER("tma_store");
  const TensorMap map = tensor_map(encoded, rank);
  check_box(self, map, shared, x, y, z, w, "TMA writes");
  store(self, shared, map.box_bytes(), [&self, map, shared, x, y, z, w] {
    const auto copy = [&](uint32_t place, char *global) {
      memcpy(global, self.block->shared.at(place, map.element_bytes, 1), map.element_bytes);
    };
    for_box(map, shared, x, y, z, w, copy, [](uint32_t) {});
  });
}

/* What a plain range of shared memory is for, checked: its start. */
static const void *stored_range(Thread &self, const void *global, uint32_t shared, uint32_t bytes, const char *name,
                                const char *verb) {
  if (bytes == 0 || bytes % 16 != 0) fault("%s of %u bytes: multiples of 16 are allowed", name, bytes);
  check_global(global, bytes, 16, verb);
  return self.block->shared.at(shared, bytes, 16);
}

void bulk_store(void *global, uint32_t shared, uint32_t bytes) {
  Thread &self = SIMT_ENTER("bulk_store");
  const void *const from = stored_range(self, global, shared, bytes, "bulk_store", "bulk_store writes");
  store(self, shared, bytes, [=] { memcpy(global, from, bytes); });
}

void bulk_add(float *global, uint32_t shared, uint32_t bytes) {
  Thread &self = SIMT_ENTER("bulk_add");
  const float *const from =
      static_cast<const float *>(stored_range(self, global, shared, bytes, "bulk_add", "bulk_add adds to"));
  store(self, shared, bytes, [=] {
    for (uint32_t i = 0; i < bytes / sizeof(float); i++) global[i] += from[i];
  });
}

void bulk_commit() {
  Thread &self = SIMT_ENTER("bulk_commit");
  self.store_groups.push_back(self.store_time);
  self.stores_left.push_back(0);
}

/* Here what has been read has been written too; so both kinds of wait are the same. */
void bulk_wait(unsigned pending, bool) {
  Thread &self = SIMT_ENTER("bulk_wait");
  for (size_t group = 0; group + pending < self.store_groups.size(); group++) {
    while (self.stores_left[group] > 0) {
      self.waits_for_stores = true;
      park();
    }
    acquire(self, self.stores, self.store_groups[group]);
    self.awaited_store = self.store_groups[group];
  }
  pause();
}

void check_left_stores(Thread &thread) {
  if (thread.awaited_store < thread.store_time)
    fault("leaves the kernel while %u of its tma_stores may be under way: bulk_wait is missing",
          thread.store_time - thread.awaited_store);
}
} // namespace simt
