// shadow.h - the shared memory of one block, and of each of its bytes: who wrote it, and who has read it since.
#pragma once
#include <cstdint>
#include <vector>
#include "clock.h"

namespace simt {
/* How an access is made: by ordinary instructions, by atomic ones, or by an asynchronous engine (TMA, wgmma). */
enum class Manner { ordinary, atomic, asynchronous };

class Shadow {
 public:
  /* Addresses as instructions see them: dynamic shared memory from here on, __shared__ variables from there. */
  static const uint32_t dynamic_start = 1024, static_start = 0x40000;

  /* A new block: nothing has been written. Memory is filled with ones, which are NaNs. */
  void begin(unsigned char *dynamic, size_t dynamic_bytes, unsigned char *statics, size_t static_bytes);

  unsigned char *dynamic() const { return dynamic_memory; }
  /* Whether a pointer lies in this memory, and its address. Where it lies behind the end but near, it counts as in. */
  bool holds(const void *pointer, uint32_t &address) const;
  /* The memory at an address that an instruction was given. Faults where it is misaligned or not all inside. */
  unsigned char *at(uint32_t address, size_t bytes, unsigned alignment) const;

  // Accesses: each faults where it is out of bounds, unordered with another, or reads what nobody has written.
  void read(uint32_t address, size_t bytes, const Moment &by, Manner manner, const void *place);
  void write(uint32_t address, size_t bytes, const Moment &by, Manner manner, const void *place);
  /* Between these two the bytes are under way by cp.async, and nobody may touch them. */
  void begin_copy(uint32_t address, size_t bytes, const Moment &by, const void *place);
  void end_copy(uint32_t address, size_t bytes, const Moment &by, const void *place);
  /* From now on these 8 bytes are an mbarrier. */
  void become_barrier(uint32_t address);

 private:
  enum : uint32_t { written = 1, by_engine = 2, by_atomic = 4, copying = 8, barrier = 16, many_readers = 32 };
  /* Of one byte. Places are distances from this module's code. With many_readers, read_time numbers a set. */
  struct Cell {
    Time write_time, read_time;
    int32_t write_place, read_place;
    uint16_t writer, reader; // a reader's read_time of 0: none since the last write
    uint32_t flags;
  };
  struct Reader {
    Actor actor;
    Time time;
    int32_t place;
  };

  unsigned char *dynamic_memory = nullptr, *static_memory = nullptr;
  size_t dynamic_bytes = 0, static_bytes = 0;
  std::vector<Cell> cells; // of the dynamic bytes, then of the static ones
  std::vector<std::vector<Reader>> reader_sets;

  Cell *cells_at(uint32_t address, size_t bytes);
  template <class Change>
  void for_each(uint32_t address, size_t bytes, Change change);
  void check_write(const Cell &cell, uint32_t address, const Moment &by, Manner manner, const char *verb) const;
  void check_readers(const Cell &cell, uint32_t address, const Moment &by) const;
  void add_reader(Cell &cell, const Moment &by, int32_t place);
};

/* `dynamic shared memory + 12` or `__shared__ variables + 12`. */
const char *shared_place(uint32_t address);
} // namespace simt
