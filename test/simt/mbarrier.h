// mbarrier.h - what asynchronous copies do with mbarriers.
#pragma once
#include "machine.h"

namespace simt {
/* The mbarrier at an address of a block; faults where there is none, or its initialisation is not known to `by`. */
SharedBarrier &shared_barrier(Block &block, uint32_t address, const Moment &by);
/* Faults where an engine or another block uses it and its initialisation was not fenced. */
void require_fence(const SharedBarrier &barrier, uint32_t address);
/* Begins the next phase where everything expected of this one has come. */
void complete_phase(SharedBarrier &barrier);
} // namespace simt
