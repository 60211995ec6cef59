// memory.cpp - device memory and the check of each access to it.
//
// g++ -fsanitize=thread calls a function before every access that a program makes; -fsanitize=alignment,bounds where an
// address is misaligned or an index out of its array. The functions are here, in place of those of GCC's own libraries:
// an access of a kernel must be to its shared memory (shadow.h), to allocated device memory, to its own local
// variables, to its parameters or to the variables of its program.
#include "memory.h"
#include <link.h>
#include <sys/mman.h>
#include <cstdlib>
#include <map>
#include "machine.h"

namespace simt {
namespace {
/* One place's addresses, given out in ascending order; for each 16 bytes, how many of them may be touched. */
struct Arena {
  static constexpr size_t capacity = size_t{64} << 30, gap = 4096;
  char *start;
  unsigned char *usable;
  size_t used = gap;
  std::map<char *, size_t> allocations;

  Arena() {
    auto reserve = [](size_t bytes) {
      void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) {
        perror("simt: no addresses for device memory");
        abort();
      }
      return memory;
    };
    start = static_cast<char *>(reserve(capacity));
    usable = static_cast<unsigned char *>(reserve(capacity / 16));
  }
  bool holds(const void *p) const { return static_cast<size_t>(static_cast<const char *>(p) - start) < capacity; }
  size_t granule(const void *p) const { return static_cast<size_t>(static_cast<const char *>(p) - start) / 16; }
  /* Whether all of these bytes, which lie in the arena, may be touched. */
  bool allows(const void *address, size_t bytes) const {
    const char *const p = static_cast<const char *>(address);
    if (!holds(p + bytes - 1)) return false;
    const size_t last = granule(p + bytes - 1);
    for (size_t i = granule(p); i < last; i++)
      if (usable[i] != 16) return false;
    return static_cast<size_t>(p + bytes - start) - last * 16 <= usable[last];
  }
  void mark(const char *p, size_t bytes, bool allowed) { // p at a multiple of 16
    unsigned char *const first = usable + granule(p);
    memset(first, allowed ? 16 : 0, bytes / 16);
    if (allowed && bytes % 16 != 0) first[bytes / 16] = static_cast<unsigned char>(bytes % 16);
  }
};
Arena arenas[2];
Arena &arena(Place place) { return arenas[place == Place::device ? 0 : 1]; }

/* The variables and code of the module that holds the kernels. */
struct Module {
  const char *low = nullptr, *high = nullptr;
  Module() {
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *data) {
          auto &found = *static_cast<Module *>(data);
          const char *low = nullptr, *high = nullptr;
          for (int i = 0; i < info->dlpi_phnum; i++) {
            const auto &segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD) continue;
            const auto *start = reinterpret_cast<const char *>(info->dlpi_addr + segment.p_vaddr);
            if (!low || start < low) low = start;
            if (start + segment.p_memsz > high) high = start + segment.p_memsz;
          }
          const auto *here = reinterpret_cast<const char *>(&arena);
          if (!(low <= here && here < high)) return 0;
          found.low = low;
          found.high = high;
          return 1;
        },
        this);
  }
  bool holds(const void *p) const { return low <= static_cast<const char *>(p) && static_cast<const char *>(p) < high; }
} const module;
} // namespace

void *allocate(Place place, size_t bytes) {
  Arena &memory = arena(place);
  const size_t rounded = (bytes + 255) / 256 * 256;
  if (bytes == 0 || rounded > Arena::capacity - Arena::gap - memory.used) return nullptr;
  char *const start = memory.start + memory.used;
  memory.used += rounded + Arena::gap;
  memory.allocations[start] = bytes;
  memory.mark(start, bytes, true);
  memset(start, 0xff, bytes);
  return start;
}

bool release_memory(Place place, void *pointer) {
  Arena &memory = arena(place);
  const auto found = memory.allocations.find(static_cast<char *>(pointer));
  if (found == memory.allocations.end()) return false;
  memory.mark(found->first, (found->second + 15) / 16 * 16, false);
  const size_t inside = (found->second + 255) / 256 * 256; // whole pages of it go back to the system
  char *const first = found->first + (4096 - reinterpret_cast<uintptr_t>(found->first) % 4096) % 4096;
  if (found->first + inside > first + 4096)
    madvise(first, static_cast<size_t>(found->first + inside - first) / 4096 * 4096, MADV_DONTNEED);
  memory.allocations.erase(found);
  return true;
}

void release_all_memory() {
  for (const Place place : {Place::device, Place::host})
    while (!arena(place).allocations.empty()) release_memory(place, arena(place).allocations.begin()->first);
}

size_t allocated_bytes(Place place) {
  size_t bytes = 0;
  for (const auto &[start, size] : arena(place).allocations) bytes += size;
  return bytes;
}

bool is_allocated(Place place, const void *start, size_t bytes) {
  const auto *first = static_cast<const char *>(start);
  auto next = arena(place).allocations.upper_bound(const_cast<char *>(first));
  if (next == arena(place).allocations.begin()) return false;
  --next;
  return first + bytes <= next->first + next->second;
}

bool is_device_address(const void *pointer) { return arenas[0].holds(pointer); }

void guard(void *start, size_t bytes) {
  Arena &memory = arenas[0];
  if (!memory.holds(start)) return;
  auto *first = static_cast<char *>(start);
  char *const aligned = first + (16 - (first - memory.start) % 16) % 16;
  if (aligned > first) { // the granule's first bytes stay as they were
    unsigned char &usable = memory.usable[memory.granule(first)];
    usable = std::min<unsigned char>(usable, static_cast<unsigned char>((first - memory.start) % 16));
  }
  if (first + bytes > aligned) memory.mark(aligned, static_cast<size_t>(first + bytes - aligned) / 16 * 16, false);
}

/* `1024 bytes behind the end of an allocation of 4096`, for reports. */
static std::string whereabouts(const void *address) {
  for (const Arena &memory : arenas) {
    if (!memory.holds(address)) continue;
    auto next = memory.allocations.upper_bound(const_cast<char *>(static_cast<const char *>(address)));
    const auto offset = [&](const char *from) { return std::to_string(static_cast<const char *>(address) - from); };
    if (next != memory.allocations.begin()) {
      const auto &[start, bytes] = *std::prev(next);
      return "byte " + offset(start) + " of an allocation of " + std::to_string(bytes);
    }
    if (next != memory.allocations.end()) return "byte " + offset(next->first) + " of an allocation";
    return "memory that is not allocated";
  }
  return "memory that a GPU does not reach, such as the host's";
}

/* A thread of a grid that may overlap the one before has nothing to find, and nothing to change, until it waits. */
static void check_turn(const char *verb) {
  if (machine.current && machine.current->is_early)
    fault("%s global memory before grid_dependency_wait, in a launch that may overlap the one before it", verb);
}

void check_global(const void *address, size_t bytes, unsigned alignment, const char *verb) {
  if (bytes == 0) return;
  check_turn(verb);
  if (reinterpret_cast<uintptr_t>(address) % alignment != 0)
    fault("%s %zu bytes at a global address that is not a multiple of %u", verb, bytes, alignment);
  for (const Arena &memory : arenas)
    if (memory.holds(address) && memory.allows(address, bytes)) return;
  if (module.holds(address)) return;
  fault("out of bounds: %s %zu bytes of global memory at %s", verb, bytes, whereabouts(address).c_str());
}

/* The block of the running cluster whose shared memory a pointer is in. */
static Block *shared_owner(const void *address, Block &own, uint32_t &offset) {
  if (own.shared.holds(address, offset)) return &own;
  for (Block &block : machine.blocks)
    if (&block != &own && block.shared.holds(address, offset)) return &block;
  return nullptr;
}

void check_atomic(void *address, unsigned bytes) {
  Thread &self = *machine.current;
  uint32_t offset;
  Block *const owner = shared_owner(address, *self.block, offset);
  if (!owner) return check_global(address, bytes, bytes, "an atomic on");
  owner->shared.at(offset, bytes, bytes);
  owner->shared.write(offset, bytes, self.moment, Manner::atomic, self.place);
}

/* One access of a program that was compiled to tell of them. */
static inline void accessed(const void *address, size_t bytes, bool write, const void *place) {
  Thread *const self = machine.current;
  if (!self) {
    if (!is_device_address(address)) return;
    fprintf(stderr, "simt: the host %s device memory: %zu bytes at %p\n", write ? "writes" : "reads", bytes, address);
    abort();
  }
  if (self->fiber.stack.holds(address)) return;
  uint32_t offset;
  if (Block *const owner = shared_owner(address, *self->block, offset)) {
    self->place = place;
    if (write)
      owner->shared.write(offset, bytes, self->moment, Manner::ordinary, place);
    else
      owner->shared.read(offset, bytes, self->moment, Manner::ordinary, place);
    return;
  }
  const Call &call = *machine.launch->call;
  const auto *parameters = reinterpret_cast<const char *>(&call);
  if (!write && parameters <= address && static_cast<const char *>(address) + bytes <= parameters + call.bytes) return;
  for (const Arena &memory : arenas) {
    if (!memory.holds(address) || !memory.allows(address, bytes)) continue;
    if (!self->is_early) return;
    self->place = place;
    check_turn(write ? "writes" : "reads");
  }
  if (module.holds(address)) return;
  self->place = place;
  check_global(address, bytes, 1, write ? "writes" : "reads");
}
} // namespace simt

// ---- What g++ calls ----

#define SIMT_ACCESS(name, bytes, write) \
  extern "C" void __tsan_##name(void *address) { simt::accessed(address, bytes, write, __builtin_return_address(0)); }
SIMT_ACCESS(read1, 1, false)
SIMT_ACCESS(read2, 2, false)
SIMT_ACCESS(read4, 4, false)
SIMT_ACCESS(read8, 8, false)
SIMT_ACCESS(read16, 16, false)
SIMT_ACCESS(write1, 1, true)
SIMT_ACCESS(write2, 2, true)
SIMT_ACCESS(write4, 4, true)
SIMT_ACCESS(write8, 8, true)
SIMT_ACCESS(write16, 16, true)
SIMT_ACCESS(unaligned_read2, 2, false)
SIMT_ACCESS(unaligned_read4, 4, false)
SIMT_ACCESS(unaligned_read8, 8, false)
SIMT_ACCESS(unaligned_read16, 16, false)
SIMT_ACCESS(unaligned_write2, 2, true)
SIMT_ACCESS(unaligned_write4, 4, true)
SIMT_ACCESS(unaligned_write8, 8, true)
SIMT_ACCESS(unaligned_write16, 16, true)
extern "C" void __tsan_read_range(void *address, size_t bytes) {
  simt::accessed(address, bytes, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *address, size_t bytes) {
  simt::accessed(address, bytes, true, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_vptr_update(void **, void *) {}
extern "C" void __tsan_vptr_read(void **) {}

namespace {
/* The first fields of GCC's descriptions of a check: where in the source. */
struct SourceLine {
  const char *file;
  uint32_t line, column;
};
void report_check(const void *description, const char *message, const void *value, const void *place) {
  const auto &source = *static_cast<const SourceLine *>(description);
  const char *const slash = strrchr(source.file, '/');
  if (!simt::machine.current) {
    fprintf(stderr, "simt: %s:%u: %s\n", source.file, source.line, message);
    abort();
  }
  simt::machine.current->place = place;
  simt::fault("%s (%p, %s:%u)", message, value, slash ? slash + 1 : source.file, source.line);
}
} // namespace
extern "C" void __ubsan_handle_type_mismatch_v1(void *description, void *pointer) {
  report_check(description, "a misaligned access", pointer, __builtin_return_address(0));
}
extern "C" void __ubsan_handle_out_of_bounds(void *description, void *index) {
  report_check(description, "out of bounds: an index that its array does not have", index, __builtin_return_address(0));
}
