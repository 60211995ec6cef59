// copy.cpp - cp.async: copies of a few bytes by each thread, which happen when it waits for them.
#include "machine.h"
#include "memory.h"

namespace simt {
unsigned char *dynamic_shared() { return machine.current->block->shared.dynamic(); }

uint32_t shared_address(const void *pointer) {
  Thread &self = SIMT_ENTER("shared_address");
  uint32_t address;
  if (!self.block->shared.holds(pointer, address))
    fault("shared_address of %p, which is not in shared memory", pointer);
  return address;
}

void cp_async(uint32_t shared, const void *global, unsigned bytes, int read) {
  Thread &self = SIMT_ENTER("cp_async");
  self.block->shared.at(shared, bytes, bytes);
  if (read < 0 || read > static_cast<int>(bytes)) fault("cp_async of %u bytes reads %d of them", bytes, read);
  check_global(global, static_cast<size_t>(read), bytes, "cp_async reads");
  self.block->shared.begin_copy(shared, bytes, self.moment, self.place);
  self.copies.push_back({self.copy_group, shared, global, bytes, static_cast<unsigned>(read)});
}

void cp_async_commit() { SIMT_ENTER("cp_async_commit").copy_group++; }

void cp_async_wait(unsigned pending) {
  Thread &self = SIMT_ENTER("cp_async_wait");
  size_t done = 0;
  for (; done < self.copies.size() && self.copies[done].group + pending < self.copy_group; done++) {
    const Copy &copy = self.copies[done];
    unsigned char *const to = self.block->shared.at(copy.shared, copy.bytes, copy.bytes);
    memcpy(to, copy.global, copy.read);
    memset(to + copy.read, 0, copy.bytes - copy.read);
    self.block->shared.end_copy(copy.shared, copy.bytes, self.moment, self.place);
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<long>(done));
  pause();
}
} // namespace simt
