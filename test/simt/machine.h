// machine.h - the emulated machine: what a thread, a block and a cluster are, and how threads stop and go on.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>
#include "clock.h"
#include "fiber.h"
#include "hardware.h"
#include "runtime.h"
#include "shadow.h"

namespace simt {
struct Block;
struct Thread;

/* A collective operation under way among lanes: the last one to come performs it for all. */
struct Meeting {
  const char *what = nullptr;
  unsigned mask = 0, arrived = 0; // of lanes
  void *records[32];
};

/* A barrier of threads: of a block, some of its threads, or a cluster. */
struct Barrier {
  unsigned expected = 0, arrived = 0;
  Gathering known;
  std::vector<Thread *> waiting;
};

/* An mbarrier. Its 8 bytes in shared memory hold nothing: the state is here, by address. */
struct SharedBarrier {
  unsigned arrivals, pending;
  int64_t bytes = 0;  // expected and not yet come; less than none where copies were faster than the expectation
  unsigned phase = 0; // parity of the phase under way
  Actor initialised_by;
  Time initialised_at;
  bool fenced = false;
  Gathering gathering; // what those who arrived in this phase know
  Seen completed;      // what one learns who sees the last phase completed
  std::vector<Thread *> waiting;
  Actor copies = 0; // the engine that completes on this barrier, as an actor; 0 before the first copy
  Time copied = 0;
};

/* One cp.async of 4 to 16 bytes. */
struct Copy {
  unsigned group;
  uint32_t shared;
  const void *global;
  unsigned bytes, read;
};

/* One wgmma, from its issue to the wait that performs it. */
struct Multiplication {
  unsigned group, n;
  bool a_transposed, b_transposed, accumulate;
  uint64_t a_shared, b_shared;
  std::vector<float> a; // [64][16] where it came from registers, else empty
  const uint32_t *left; // the first lane's registers, or null
  float *accumulator;   // the first lane's registers
};
/* Registers that multiplications under way compute: NaNs for the threads, the values are here. */
struct Accumulator {
  std::vector<float *> registers; // of 128 lanes
  std::vector<float> values;      // [64][n]
  unsigned under_way = 0;
};
/* Registers that multiplications under way read: marked for the threads, which may not even read them. */
struct Left {
  std::vector<uint32_t *> registers; // of 128 lanes
  std::vector<std::array<uint32_t, 4>> values;
  unsigned under_way = 0;
};
struct Warpgroup {
  // The call that lanes have come to, and the others have not yet.
  const char *what = nullptr;
  unsigned arrived = 0;
  void *records[128];

  bool fenced = false;
  unsigned committed = 0; // groups
  std::vector<Multiplication> pending;
  std::unordered_map<float *, Accumulator> accumulators; // by the first lane's registers
  std::unordered_map<const uint32_t *, Left> lefts;      // likewise
  Actor reads = 0;                                       // the reader of operands, as an actor; 0 before the first
  Time time = 0;
  std::vector<Time> groups; // time of each committed group's last read
};

struct Thread {
  Fiber fiber;
  Block *block = nullptr;
  uint3 index{};
  unsigned number = 0, lane = 0, warp = 0;
  Moment moment;
  bool running = true;         // has not left the kernel
  bool is_early = false;       // what the grids before this one write may not be there yet
  const char *doing = "";      // the collective or wait it is in, for reports
  const void *place = nullptr; // the return address of the last call of the emulator
  std::vector<Time> fences;    // of this thread's fence.proxy.async, ascending
  std::vector<Copy> copies;
  unsigned copy_group = 0;
  Actor stores = 0; // the engine that performs this thread's bulk stores; 0 before the first
  Time store_time = 0;
  std::vector<Time> store_groups;       // last store of each committed group
  std::vector<unsigned> stores_left{0}; // of each group, and of the open one: stores not yet performed
  bool waits_for_stores = false;
  Time awaited_store = 0; // the last store that a bulk_wait covered
};

struct Block {
  uint3 index{};
  unsigned rank = 0; // in the cluster
  unsigned exited = 0;
  Shadow shared;
  std::vector<char> statics; // its __shared__ variables while another block of the cluster runs
  std::vector<Thread> threads;
  std::vector<std::vector<Meeting>> meetings; // by warp
  std::vector<Warpgroup> warpgroups;
  std::vector<unsigned> held; // by warp: until which turn it is held back (random schedules)
  Barrier barriers[16];
  std::unordered_map<uint32_t, SharedBarrier> shared_barriers;
};

struct Launch {
  std::unique_ptr<Call> call;
  const void *kernel;
  dim3 grid, block;
  unsigned cluster, shared_bytes;
  bool overlaps, checked;
};

/* Something that an asynchronous engine will do: a bulk copy that a thread has issued. */
struct Engine {
  Thread *thread;
  const void *place;
  std::function<void()> perform;
};

struct Machine {
  const Launch *launch = nullptr; // the kernel that is running
  Thread *current = nullptr;      // the thread that is running; null in the scheduler
  Fiber scheduler;
  std::vector<Block> blocks; // of the cluster that is running
  Barrier cluster_barrier;
  std::vector<Thread *> ready;
  size_t next = 0; // index of the first ready thread in the default order
  std::vector<Engine> engines;
  const Engine *working = nullptr;      // the engine that is at work
  std::vector<std::string> actor_names; // of actors that are not threads
  uint64_t seed = 0, random = 0;
  unsigned turn = 0;
  std::string fault; // the report of the fault that ended the launch; empty for none

  bool checked() const { return launch->checked; }
  unsigned threads_per_block() const { return launch->block.x * launch->block.y * launch->block.z; }
  Thread &thread(Actor actor) { return blocks[actor / threads_per_block()].threads[actor % threads_per_block()]; }
  bool is_thread(Actor actor) const { return actor < blocks.size() * threads_per_block(); }
};
extern Machine machine;

/* A thread of the running kernel that calls the emulator: remembers from where and what for. */
#define SIMT_ENTER(what) enter(what, __builtin_return_address(0))
Thread &enter(const char *what, const void *place);

/* Stops the current thread until `wake`. */
void park();
void wake(Thread &thread);
/* Lets others go first, now and then, in a random schedule. */
void pause();
bool chance(unsigned one_in);
/* An actor that is not a thread, such as an engine: `name` is for reports. */
Actor new_actor(const std::string &name);
std::string actor_name(Actor actor);
/* What a thread knows is handed over: it is in another time afterwards. */
Moment release(Thread &thread);
void acquire(Thread &thread, const Seen &seen);
void acquire(Thread &thread, Actor actor, Time time);

/* Thrown by a fault outside of any thread. */
struct Abandoned {};
/* Ends the launch with a report: kernel, block, thread, line and the message. Does not return. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The file and line of an address in a kernel. */
std::string line_of(const void *place);
std::string function_at(const void *address);

/* Faults where a thread may not leave the kernel yet. */
void check_left_stores(Thread &thread);

/* Runs all blocks of a launch; on a fault machine.fault says what it was. */
void run(const Launch &launch);
} // namespace simt
