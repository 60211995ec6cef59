// scheduler.cpp - runs a launch: block after block (or cluster after cluster), the threads of one by turns.
//
// A thread runs until it has to wait for another. Round robin goes on with the one that has waited longest, and lets
// the asynchronous engines work only when no thread can: what is used too early is not there yet. A random schedule
// goes on with any, holds whole warps back for a while, and has engines finish in any order.
#include <link.h>
#include <sys/mman.h>
#include <cstdlib>
#include <numeric>
#include "machine.h"

namespace simt {
Machine machine = [] {
  Machine initial;
  const char *seed = getenv("MALC_SIMT_SEED");
  initial.seed = seed ? strtoull(seed, nullptr, 10) : 0;
  return initial;
}();

void schedule(uint64_t seed) { machine.seed = seed; }

/* xorshift64 (Marsaglia 2003). */
static uint64_t random_number() {
  uint64_t &x = machine.random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x >> 8;
}
bool chance(unsigned one_in) { return machine.seed != 0 && random_number() % one_in == 0; }

Actor new_actor(const std::string &name) {
  machine.actor_names.push_back(name);
  return static_cast<Actor>(machine.blocks.size() * machine.threads_per_block() + machine.actor_names.size() - 1);
}

Thread &enter(const char *what, const void *place) {
  Thread &self = *machine.current;
  self.doing = what;
  self.place = place;
  return self;
}

void park() { switch_fiber(machine.current->fiber, machine.scheduler); }

void wake(Thread &thread) { machine.ready.push_back(&thread); }

void pause() {
  if (!chance(8)) return;
  wake(*machine.current);
  park();
}

// The clocks stand still where accesses are not seen.
Moment release(Thread &thread) {
  if (!machine.checked()) return thread.moment;
  const Moment moment = thread.moment;
  thread.moment.now++;
  return moment;
}
void acquire(Thread &thread, const Seen &seen) {
  if (machine.checked()) thread.moment.seen = join(thread.moment.seen, seen);
}
void acquire(Thread &thread, Actor actor, Time time) {
  if (!machine.checked()) return;
  if (time_seen(thread.moment.seen, actor) >= time) return;
  auto times = thread.moment.seen ? std::make_shared<Times>(*thread.moment.seen) : std::make_shared<Times>();
  raise(*times, actor, time);
  thread.moment.seen = times;
}

/* The thread-local variables of this module: a kernel's __shared__ ones. */
static std::pair<unsigned char *, size_t> shared_variables() {
  static thread_local volatile char touched; // the module has thread-local memory, and this thread's is there
  touched = 0;
  struct Search {
    uintptr_t wanted;
    unsigned char *start = nullptr;
    size_t bytes = 0;
  } search{reinterpret_cast<uintptr_t>(&touched)};
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *data) {
        auto &search = *static_cast<Search *>(data);
        for (int i = 0; i < info->dlpi_phnum; i++) {
          const auto &segment = info->dlpi_phdr[i];
          const auto start = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
          if (segment.p_type != PT_TLS || start == 0 || search.wanted - start >= segment.p_memsz) continue;
          search.start = static_cast<unsigned char *>(info->dlpi_tls_data);
          search.bytes = segment.p_memsz;
          return 1;
        }
        return 0;
      },
      &search);
  return {search.start, search.bytes};
}

static void thread_main() {
  machine.launch->call->run();
  Thread &self = *machine.current;
  check_left_stores(self);
  if (self.is_early)
    fault("leaves the kernel without grid_dependency_wait: what follows could start before what came before has ended");
  self.running = false;
  self.doing = "left the kernel";
  Block &block = *self.block;
  block.exited++;
  if (!block.barriers[0].waiting.empty()) {
    const Thread &other = *block.barriers[0].waiting[0];
    fault("leaves the kernel while %s waits in __syncthreads at %s: the barrier is divergent",
          actor_name(other.moment.actor).c_str(), line_of(other.place).c_str());
  }
  for (const Meeting &meeting : block.meetings[self.warp])
    if (meeting.mask >> self.lane & 1)
      fault("leaves the kernel while lanes of its warp wait for it in %s", meeting.what);
  switch_fiber(self.fiber, machine.scheduler);
}

static Thread *pick() {
  auto &ready = machine.ready;
  if (machine.seed == 0) {
    if (machine.next == ready.size()) {
      ready.clear();
      machine.next = 0;
      return nullptr;
    }
    if (machine.next > 4096) {
      ready.erase(ready.begin(), ready.begin() + static_cast<long>(machine.next));
      machine.next = 0;
    }
    return ready[machine.next++];
  }
  if (ready.empty()) return nullptr;
  machine.turn++;
  size_t chosen = 0;
  for (int attempt = 0; attempt < 4; attempt++) { // held warps run too where little else is ready
    chosen = random_number() % ready.size();
    const Thread &thread = *ready[chosen];
    unsigned &until = thread.block->held[thread.warp];
    if (chance(256)) until = machine.turn + static_cast<unsigned>(random_number() % 2048);
    if (until <= machine.turn) break;
  }
  std::swap(ready[chosen], ready.back());
  Thread *thread = ready.back();
  ready.pop_back();
  return thread;
}

static void run_engine() {
  const size_t chosen = machine.seed == 0 ? 0 : random_number() % machine.engines.size();
  const Engine engine = std::move(machine.engines[chosen]);
  machine.engines.erase(machine.engines.begin() + static_cast<long>(chosen));
  machine.working = &engine;
  engine.perform();
  machine.working = nullptr;
}

/* No thread can go on: says where each of them waits. */
static void report_deadlock() {
  std::string text = "deadlock: no thread can go on";
  for (const Block &block : machine.blocks) {
    for (size_t first = 0; first < block.threads.size();) {
      const Thread &thread = block.threads[first];
      size_t last = first;
      while (last + 1 < block.threads.size() && block.threads[last + 1].doing == thread.doing &&
             (block.threads[last + 1].place == thread.place || !thread.running))
        last++;
      text += "\n  block " + std::to_string(block.index.x) + ", threads " + std::to_string(first) + " to " +
              std::to_string(last) + ": " + thread.doing +
              (thread.running && thread.place ? " at " + line_of(thread.place) : "");
      first = last + 1;
    }
  }
  machine.current = nullptr;
  fault("%s", text.c_str());
}

// Defined in scheduler.cpp under their CUDA names, which CUDA code sees as constants.
extern uint3 thread_index __asm__("threadIdx");
extern uint3 block_index __asm__("blockIdx");
extern dim3 block_dimensions __asm__("blockDim");
extern dim3 grid_dimensions __asm__("gridDim");
uint3 thread_index, block_index;
dim3 block_dimensions, grid_dimensions;

/* All threads of the cluster, to their ends. */
static void run_cluster(unsigned char *statics, size_t static_bytes) {
  Block *loaded = nullptr; // whose variables are in the thread-local memory, where blocks share it
  size_t running = machine.blocks.size() * machine.threads_per_block();
  while (running > 0) {
    if (!machine.engines.empty() && chance(16)) run_engine();
    Thread *thread = pick();
    if (!thread) {
      if (machine.engines.empty()) report_deadlock();
      run_engine();
      continue;
    }
    if (machine.blocks.size() > 1 && loaded != thread->block) {
      if (loaded) memcpy(loaded->statics.data(), statics, static_bytes);
      loaded = thread->block;
      memcpy(statics, loaded->statics.data(), static_bytes);
    }
    machine.current = thread;
    thread_index = thread->index;
    block_index = thread->block->index;
    switch_fiber(machine.scheduler, thread->fiber);
    machine.current = nullptr;
    if (!machine.fault.empty()) return;
    if (!thread->running) running--;
  }
  while (!machine.engines.empty()) run_engine();
}

static uint3 unfold(size_t number, dim3 size) {
  return {static_cast<unsigned>(number % size.x), static_cast<unsigned>(number / size.x % size.y),
          static_cast<unsigned>(number / size.x / size.y)};
}

static void set_up(const Launch &launch, size_t first_block, unsigned char *dynamic, size_t stride,
                   unsigned char *statics, size_t static_bytes) {
  const unsigned threads = machine.threads_per_block();
  machine.blocks.clear();
  machine.blocks.resize(launch.cluster);
  machine.ready.clear();
  machine.next = 0;
  machine.engines.clear();
  machine.actor_names.clear();
  machine.cluster_barrier = Barrier();
  for (unsigned rank = 0; rank < launch.cluster; rank++) {
    Block &block = machine.blocks[rank];
    block.index = unfold(first_block + rank, launch.grid);
    block.rank = rank;
    block.shared.begin(dynamic + rank * stride, launch.shared_bytes, statics, static_bytes);
    if (launch.cluster > 1) block.statics.assign(static_bytes, static_cast<char>(0xff));
    block.meetings.resize((threads + 31) / 32);
    block.warpgroups.resize((threads + 127) / 128);
    block.held.assign((threads + 31) / 32, 0);
    block.threads.resize(threads);
    for (unsigned number = 0; number < threads; number++) {
      Thread &thread = block.threads[number];
      thread.block = &block;
      thread.index = unfold(number, launch.block);
      thread.number = number;
      thread.lane = number % 32;
      thread.warp = number / 32;
      thread.is_early = launch.overlaps;
      thread.moment.actor = rank * threads + number;
      prepare_fiber(thread.fiber, stack_number(rank * threads + number), thread_main);
      wake(thread);
    }
  }
}

void run(const Launch &launch) {
  machine.launch = &launch;
  machine.fault.clear();
  machine.random = 0x9e3779b97f4a7c15u * (machine.seed + 1);
  block_dimensions = launch.block;
  grid_dimensions = launch.grid;
  const auto [statics, static_bytes] = shared_variables();
  // Each block's dynamic memory lies far from the next one's, at a multiple of 1024.
  static const size_t stride = 512 << 10;
  static auto *const window = static_cast<unsigned char *>(
      mmap(nullptr, 17 * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

  const size_t clusters = static_cast<size_t>(launch.grid.x) * launch.grid.y * launch.grid.z / launch.cluster;
  std::vector<size_t> order(clusters);
  std::iota(order.begin(), order.end(), size_t{0});
  if (machine.seed != 0)
    for (size_t i = clusters; i > 1; i--) std::swap(order[i - 1], order[random_number() % i]);
  try {
    for (const size_t cluster : order) {
      set_up(launch, cluster * launch.cluster, window + stride / 2, stride, statics, static_bytes);
      run_cluster(statics, static_bytes);
      if (!machine.fault.empty()) break;
    }
  } catch (const Abandoned &) {
  }
  machine.current = nullptr;
  machine.working = nullptr;
  machine.launch = nullptr;
}
} // namespace simt
