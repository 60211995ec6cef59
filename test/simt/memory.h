// memory.h - device and page-locked memory, and the check of every access that a kernel makes.
#pragma once
#include <cstddef>

namespace simt {
enum class Place { device, host }; // the card's memory; the host's page-locked memory, which the card reaches too

/* Filled with ones, which are NaNs; around it lie bytes that nobody may touch. Null where there is no more. */
void *allocate(Place place, size_t bytes);
/* Whether it was one. Its addresses are not given out again. */
bool release_memory(Place place, void *pointer);
void release_all_memory();
size_t allocated_bytes(Place place);
/* Whether these bytes are all inside one allocation. */
bool is_allocated(Place place, const void *start, size_t bytes);
/* Whether an address belongs to the device's memory, allocated or not. */
bool is_device_address(const void *pointer);

/* An access to global memory by an instruction of the current thread, or of an engine: faults where a GPU would. */
void check_global(const void *address, size_t bytes, unsigned alignment, const char *verb);
/* An atomic of the current thread, to global or shared memory. */
void check_atomic(void *address, unsigned bytes);
} // namespace simt
