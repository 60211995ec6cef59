// fiber.cpp - fibers: stacks, and the switch from one to another.
#include "fiber.h"
#include <sys/mman.h>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace simt {
static const size_t stack_bytes = 256 << 10, page_bytes = 4096;

Stack stack_number(size_t number) {
  static std::vector<Stack> stacks;
  while (stacks.size() <= number) {
    void *memory =
        mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page_bytes, PROT_NONE) != 0) {
      perror("simt: no memory for a thread's stack");
      abort();
    }
    stacks.push_back({static_cast<char *>(memory) + page_bytes, stack_bytes - page_bytes});
  }
  return stacks[number];
}

#if !defined(__x86_64__) || defined(SIMT_PORTABLE_FIBERS)

void prepare_fiber(Fiber &fiber, Stack stack, void (*entry)()) {
  fiber.stack = stack;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack.low;
  fiber.context.uc_stack.ss_size = stack.bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}

void switch_fiber(Fiber &from, Fiber &to) { swapcontext(&from.context, &to.context); }

#else

extern "C" void simt_switch(void **save, void *resume);
// System V calls: rbx, rbp and r12 to r15 are the callee's to keep; the rest the caller has saved.
asm(R"(
.text
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, . - simt_switch
)");

void prepare_fiber(Fiber &fiber, Stack stack, void (*entry)()) {
  fiber.stack = stack;
  void **top = reinterpret_cast<void **>(stack.low + stack.bytes - 64); // a multiple of 16
  *--top = nullptr;                                                     // where entry would return to
  *--top = reinterpret_cast<void *>(entry);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.stack_pointer = top;
}

void switch_fiber(Fiber &from, Fiber &to) { simt_switch(&from.stack_pointer, to.stack_pointer); }

#endif
} // namespace simt
