// barrier.cpp - barriers of threads: __syncthreads, named ones, and the cluster's; and turns of blocks.
#include "machine.h"
#include "memory.h"

namespace simt {
/* The last one to come lets all go on; each of them then knows what all knew. */
static void arrive(Thread &self, Barrier &barrier, unsigned expected, bool waits) {
  if (barrier.arrived > 0 && barrier.expected != expected)
    fault("comes to a barrier for %u threads, to which others came for %u", expected, barrier.expected);
  barrier.expected = expected;
  barrier.arrived++;
  barrier.known.add(release(self));
  if (waits) barrier.waiting.push_back(&self);
  if (barrier.arrived < expected) {
    if (waits) park();
    return;
  }
  const Seen known = barrier.known.take();
  barrier.arrived = 0;
  for (Thread *thread : barrier.waiting) {
    acquire(*thread, known);
    if (thread != &self) wake(*thread);
  }
  barrier.waiting.clear();
  pause();
}

void sync_threads() {
  Thread &self = SIMT_ENTER("__syncthreads");
  Block &block = *self.block;
  if (block.exited > 0)
    fault("comes to __syncthreads, which %u threads of its block left the kernel without", block.exited);
  arrive(self, block.barriers[0], static_cast<unsigned>(block.threads.size()), true);
}

static Barrier &named(Thread &self, int id, int threads) {
  if (id < 1 || id > 15) fault("barrier %d: named barriers are 1 to 15", id);
  if (threads <= 0 || threads % 32 != 0 || threads > static_cast<int>(self.block->threads.size()))
    fault("a barrier for %d threads of a block of %zu: multiples of 32 are allowed", threads,
          self.block->threads.size());
  return self.block->barriers[id];
}

void barrier_sync(int id, int threads) {
  Thread &self = SIMT_ENTER("barrier_sync");
  arrive(self, named(self, id, threads), static_cast<unsigned>(threads), true);
}

void barrier_arrive(int id, int threads) {
  Thread &self = SIMT_ENTER("barrier_arrive");
  arrive(self, named(self, id, threads), static_cast<unsigned>(threads), false);
}

void grid_dependency_wait() { machine.current->is_early = false; }

uint32_t cluster_rank() { return machine.current->block->rank; }

void cluster_sync() {
  Thread &self = SIMT_ENTER("cluster_sync");
  for (const Block &block : machine.blocks)
    if (block.exited > 0) fault("comes to cluster_sync, which %u threads left the kernel without", block.exited);
  arrive(self, machine.cluster_barrier, static_cast<unsigned>(machine.blocks.size()) * machine.threads_per_block(),
         true);
}

/* Blocks run one after another: what one waits for another has done before, or it never comes. */
void turn_wait(const int32_t *turn, int32_t mine) {
  SIMT_ENTER("turn_wait");
  check_global(turn, sizeof(*turn), sizeof(*turn), "turn_wait reads");
  if (*turn != mine) fault("waits for turn %d where turn %d is: no block before this one passes it", mine, *turn);
}

void turn_pass(int32_t *turn) {
  SIMT_ENTER("turn_pass");
  check_global(turn, sizeof(*turn), sizeof(*turn), "turn_pass writes");
  ++*turn;
}
} // namespace simt
