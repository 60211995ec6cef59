// fiber.h - fibers: threads of control that switch when they ask to, one for each emulated CUDA thread.
#pragma once
#include <cstddef>
#if !defined(__x86_64__) || defined(SIMT_PORTABLE_FIBERS)
#include <ucontext.h>
#endif

namespace simt {
/* Memory for one fiber; a page below it faults where it overflows. */
struct Stack {
  char *low = nullptr;
  size_t bytes = 0;
  bool holds(const void *p) const { return static_cast<size_t>(static_cast<const char *>(p) - low) < bytes; }
};

struct Fiber {
  Stack stack;
#if !defined(__x86_64__) || defined(SIMT_PORTABLE_FIBERS)
  ucontext_t context;
#else
  void *stack_pointer = nullptr;
#endif
};

/* The stack with this number: always the same one, made when it is first asked for. */
Stack stack_number(size_t number);
/* A fiber on `stack` that will call `entry`, which must not return. */
void prepare_fiber(Fiber &fiber, Stack stack, void (*entry)());
/* Leaves `from` where it is, and goes on with `to`. */
void switch_fiber(Fiber &from, Fiber &to);
} // namespace simt
