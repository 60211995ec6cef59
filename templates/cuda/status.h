// status.h - the first error of a call on the device, and where it was.
#pragma once
#include "instructions.h"

struct malc_status {
  cudaError_t error;
  const char *place; /* the launch, with the line of MAL that it came from; or what else was asked of the device */
};

inline void malc_note(malc_status *status, cudaError_t error, const char *place) {
  if (error != cudaSuccess && status->error == cudaSuccess) *status = {error, place};
}
