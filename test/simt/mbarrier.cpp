// mbarrier.cpp - barriers in shared memory, which threads arrive at and asynchronous copies complete on.
#include "mbarrier.h"

namespace simt {
SharedBarrier &shared_barrier(Block &block, uint32_t address, const Moment &by) {
  block.shared.at(address, 8, 8);
  const auto found = block.shared_barriers.find(address);
  if (found == block.shared_barriers.end())
    fault("%s is no mbarrier: mbarrier_init has not made it one", shared_place(address));
  SharedBarrier &barrier = found->second;
  if (machine.checked() && !by.knows(barrier.initialised_by, barrier.initialised_at))
    fault("race: uses the mbarrier at %s, which %s initialises, with no barrier in between", shared_place(address),
          actor_name(barrier.initialised_by).c_str());
  return barrier;
}

void require_fence(const SharedBarrier &barrier, uint32_t address) {
  if (!barrier.fenced)
    fault("the mbarrier at %s is used from outside of its block's threads, and its mbarrier_init_fence is missing",
          shared_place(address));
}

void complete_phase(SharedBarrier &barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.arrivals;
  barrier.completed = barrier.gathering.take();
  for (Thread *thread : barrier.waiting) wake(*thread);
  barrier.waiting.clear();
}

static void arrive(Thread &self, SharedBarrier &barrier, uint32_t address) {
  if (barrier.pending == 0)
    fault("arrives at the mbarrier at %s, which all %u arrivals of this phase have come to", shared_place(address),
          barrier.arrivals);
  barrier.pending--;
  barrier.gathering.add(release(self));
  complete_phase(barrier);
  pause();
}

void mbarrier_init(uint32_t address, uint32_t arrivals) {
  Thread &self = SIMT_ENTER("mbarrier_init");
  Block &block = *self.block;
  block.shared.at(address, 8, 8);
  if (arrivals == 0 || arrivals >= 1 << 20) fault("mbarrier_init for %u arrivals", arrivals);
  if (block.shared_barriers.count(address) > 0)
    fault("mbarrier_init of %s, which is an mbarrier already", shared_place(address));
  block.shared.write(address, 8, self.moment, Manner::ordinary, self.place);
  block.shared.become_barrier(address);
  SharedBarrier &barrier = block.shared_barriers[address];
  barrier.arrivals = barrier.pending = arrivals;
  barrier.initialised_by = self.moment.actor;
  barrier.initialised_at = self.moment.now;
}

void mbarrier_init_fence() {
  Thread &self = SIMT_ENTER("mbarrier_init_fence");
  for (auto &[address, barrier] : self.block->shared_barriers)
    if (barrier.initialised_by == self.moment.actor) barrier.fenced = true;
}

void mbarrier_arrive(uint32_t address) {
  Thread &self = SIMT_ENTER("mbarrier_arrive");
  arrive(self, shared_barrier(*self.block, address, self.moment), address);
}

void mbarrier_arrive_remote(uint32_t address, uint32_t rank) {
  Thread &self = SIMT_ENTER("mbarrier_arrive_remote");
  if (rank >= machine.blocks.size()) fault("block %u of a cluster of %zu", rank, machine.blocks.size());
  Block &block = machine.blocks[rank];
  if (block.exited == block.threads.size())
    fault("arrives at an mbarrier of block %u of its cluster, which has ended", rank);
  SharedBarrier &barrier = shared_barrier(block, address, self.moment);
  if (&block != self.block) require_fence(barrier, address);
  arrive(self, barrier, address);
}

void mbarrier_arrive_expect(uint32_t address, uint32_t bytes) {
  Thread &self = SIMT_ENTER("mbarrier_arrive_expect");
  SharedBarrier &barrier = shared_barrier(*self.block, address, self.moment);
  if (barrier.pending > 0) barrier.bytes += bytes;
  arrive(self, barrier, address);
}

void mbarrier_wait(uint32_t address, uint32_t parity) {
  Thread &self = SIMT_ENTER("mbarrier_wait");
  SharedBarrier &barrier = shared_barrier(*self.block, address, self.moment);
  while (barrier.phase == (parity & 1)) {
    barrier.waiting.push_back(&self);
    park();
  }
  acquire(self, barrier.completed);
  pause();
}

void fence_async() {
  Thread &self = SIMT_ENTER("fence_async");
  self.fences.push_back(self.moment.now);
  self.moment.now++; // what it writes from here on is not fenced
}
} // namespace simt
