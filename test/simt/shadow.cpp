// shadow.cpp - shared memory: bounds, and the race detector.
//
// Two accesses to a byte, one of them a write, must be ordered by barriers (clock.h), as in FastTrack (Flanagan and
// Freund 2009). Besides: nothing is read before it is written, or while cp.async copies it; and what ordinary
// instructions wrote is read by an asynchronous engine only behind the writer's fence_async.
#include "machine.h"

namespace simt {
static const size_t near_bytes = 4096; // so far behind the end an access still counts as one to shared memory

static int32_t shorten(const void *place) {
  return static_cast<int32_t>(static_cast<const char *>(place) - reinterpret_cast<const char *>(&shorten));
}
static std::string line_of(int32_t place) { return simt::line_of(reinterpret_cast<const char *>(&shorten) + place); }

const char *shared_place(uint32_t address) {
  static char text[64];
  const bool dynamic = address < Shadow::static_start;
  const long offset = static_cast<long>(address) - (dynamic ? Shadow::dynamic_start : Shadow::static_start);
  snprintf(text, sizeof(text), "%s + %ld", dynamic ? "dynamic shared memory" : "__shared__ variables", offset);
  return text;
}

void Shadow::begin(unsigned char *dynamic, size_t dynamic_size, unsigned char *statics, size_t static_size) {
  dynamic_memory = dynamic;
  dynamic_bytes = dynamic_size;
  static_memory = statics;
  static_bytes = static_size;
  if (dynamic_bytes > 0) memset(dynamic, 0xff, dynamic_bytes);
  if (static_bytes > 0) memset(statics, 0xff, static_bytes);
  cells.clear();
  reader_sets.clear();
  if (machine.checked()) cells.resize(dynamic_bytes + static_bytes);
}

bool Shadow::holds(const void *pointer, uint32_t &address) const {
  const auto *byte = static_cast<const unsigned char *>(pointer);
  if (static_memory && byte >= static_memory && byte < static_memory + static_bytes) {
    address = static_start + static_cast<uint32_t>(byte - static_memory);
    return true;
  }
  if (!dynamic_memory || byte < dynamic_memory - dynamic_start || byte >= dynamic_memory + dynamic_bytes + near_bytes)
    return false;
  address = static_cast<uint32_t>(dynamic_start + (byte - dynamic_memory));
  return true;
}

unsigned char *Shadow::at(uint32_t address, size_t bytes, unsigned alignment) const {
  if (address % alignment != 0)
    fault("%s is not a multiple of %u: a misaligned shared address", shared_place(address), alignment);
  if (address >= static_start && address - static_start + bytes <= static_bytes)
    return static_memory + (address - static_start);
  if (address >= dynamic_start && address - dynamic_start + bytes <= dynamic_bytes)
    return dynamic_memory + (address - dynamic_start);
  fault("out of bounds: %zu bytes at %s, of which there are %zu", bytes, shared_place(address),
        address < static_start ? dynamic_bytes : static_bytes);
}

Shadow::Cell *Shadow::cells_at(uint32_t address, size_t bytes) {
  at(address, bytes, 1);
  return &cells[address < static_start ? address - dynamic_start : dynamic_bytes + (address - static_start)];
}

/* Neighbouring bytes mostly have the same past, and so the same future. */
template <class Change>
void Shadow::for_each(uint32_t address, size_t bytes, Change change) {
  Cell *cell = cells_at(address, bytes);
  Cell before{}, after{};
  for (size_t i = 0; i < bytes; i++) {
    if (i == 0 || memcmp(&cell[i], &before, sizeof(Cell)) != 0) {
      before = cell[i];
      change(cell[i], address + static_cast<uint32_t>(i));
      after = cell[i];
    } else {
      cell[i] = after;
    }
  }
}

void Shadow::check_write(const Cell &cell, uint32_t address, const Moment &by, Manner manner, const char *verb) const {
  if (cell.flags & barrier) fault("an ordinary instruction %s an mbarrier, at %s", verb, shared_place(address));
  if (cell.flags & copying)
    fault(
        "%s %s, which the cp.async of %s at %s is still copying: its cp_async_wait, or the barrier behind that, is "
        "missing",
        verb, shared_place(address), actor_name(cell.writer).c_str(), line_of(cell.write_place).c_str());
  if (!(cell.flags & written)) return;
  const bool both_atomic = manner == Manner::atomic && (cell.flags & by_atomic);
  if (!both_atomic && !by.knows(cell.writer, cell.write_time))
    fault("race: %s %s, which %s writes at %s, with no barrier in between", verb, shared_place(address),
          actor_name(cell.writer).c_str(), line_of(cell.write_place).c_str());
  if (manner != Manner::asynchronous || (cell.flags & by_engine) || !machine.is_thread(cell.writer)) return;
  const std::vector<Time> &fences = machine.thread(cell.writer).fences;
  const auto fence = std::lower_bound(fences.begin(), fences.end(), cell.write_time);
  if (fence == fences.end() || !by.knows(cell.writer, *fence))
    fault("%s %s asynchronously, which %s wrote with ordinary instructions at %s: its fence_async is missing", verb,
          shared_place(address), actor_name(cell.writer).c_str(), line_of(cell.write_place).c_str());
}

void Shadow::check_readers(const Cell &cell, uint32_t address, const Moment &by) const {
  auto check = [&](Actor actor, Time time, int32_t place) {
    if (!by.knows(actor, time))
      fault("race: writes %s, which %s reads at %s, with no barrier in between", shared_place(address),
            actor_name(actor).c_str(), line_of(place).c_str());
  };
  if (cell.read_time == 0) return;
  if (!(cell.flags & many_readers)) return check(cell.reader, cell.read_time, cell.read_place);
  for (const Reader &reader : reader_sets[cell.read_time]) check(reader.actor, reader.time, reader.place);
}

/* Readers of whom the new one knows need not be kept; of a warp's lanes the last one stands for all. */
void Shadow::add_reader(Cell &cell, const Moment &by, int32_t place) {
  auto replaced = [&](Actor actor, Time time) { return actor / 32 == by.actor / 32 || by.knows(actor, time); };
  if (!(cell.flags & many_readers)) {
    if (cell.read_time == 0 || replaced(cell.reader, cell.read_time)) {
      cell.reader = static_cast<uint16_t>(by.actor);
      cell.read_time = by.now;
      cell.read_place = place;
      return;
    }
    if (reader_sets.empty()) reader_sets.emplace_back(); // number 0 means no reader
    reader_sets.push_back({{cell.reader, cell.read_time, cell.read_place}, {by.actor, by.now, place}});
  } else {
    std::vector<Reader> kept;
    for (const Reader &reader : reader_sets[cell.read_time])
      if (!replaced(reader.actor, reader.time)) kept.push_back(reader);
    kept.push_back({by.actor, by.now, place});
    reader_sets.push_back(std::move(kept));
  }
  cell.flags |= many_readers;
  cell.read_time = static_cast<Time>(reader_sets.size() - 1);
}

void Shadow::read(uint32_t address, size_t bytes, const Moment &by, Manner manner, const void *place) {
  if (!machine.checked()) return;
  const int32_t here = shorten(place);
  for_each(address, bytes, [&](Cell &cell, uint32_t where) {
    check_write(cell, where, by, manner, "reads");
    if (!(cell.flags & written)) fault("reads %s, which nobody has written: uninitialised", shared_place(where));
    add_reader(cell, by, here);
  });
}

void Shadow::write(uint32_t address, size_t bytes, const Moment &by, Manner manner, const void *place) {
  if (!machine.checked()) return;
  uint32_t flags = written;
  if (manner == Manner::asynchronous) flags |= by_engine;
  if (manner == Manner::atomic) flags |= by_atomic;
  const Cell after{by.now, 0, shorten(place), 0, static_cast<uint16_t>(by.actor), 0, flags};
  for_each(address, bytes, [&](Cell &cell, uint32_t where) {
    check_write(cell, where, by, manner, "writes");
    check_readers(cell, where, by);
    if (manner == Manner::atomic && !(cell.flags & written))
      fault("an atomic on %s, which nobody has written: uninitialised", shared_place(where));
    cell = after;
  });
}

void Shadow::begin_copy(uint32_t address, size_t bytes, const Moment &by, const void *place) {
  if (!machine.checked()) return;
  write(address, bytes, by, Manner::ordinary, place);
  for_each(address, bytes, [](Cell &cell, uint32_t) { cell.flags |= copying; });
}

void Shadow::end_copy(uint32_t address, size_t bytes, const Moment &by, const void *place) {
  if (!machine.checked()) return;
  const Cell after{by.now, 0, shorten(place), 0, static_cast<uint16_t>(by.actor), 0, written};
  for_each(address, bytes, [&](Cell &cell, uint32_t) { cell = after; });
}

void Shadow::become_barrier(uint32_t address) {
  if (!machine.checked()) return;
  for_each(address, 8, [](Cell &cell, uint32_t) { cell.flags = barrier; });
}
} // namespace simt
