// profile.h - the clock of a program that takes the time of its launches: an event after each, read once the call is
// over. A time is that from the end of the launch before, so it holds what the device waited for the host besides.
#pragma once
#include "status.h"

struct malc_timing {
  double seconds;
  int64_t calls;
};

enum { MALC_MARKS = 1 << 12 }; // more than launches that a stream queues before its host must wait

struct malc_watch {
  malc_timing *timings; /* of each launch */
  cudaStream_t queue;
  malc_status *status;
  cudaEvent_t marks[MALC_MARKS];  /* a ring of events */
  int32_t launches[MALC_MARKS];   /* what ended at each; -1 where something only began */
  int64_t set, read;              /* marks so far, and how many of them nothing will ask for again */
};

inline void malc_create_marks(malc_watch *watch) {
  for (cudaEvent_t &mark : watch->marks) malc_note(watch->status, cudaEventCreate(&mark), "an event");
}

inline void malc_destroy_marks(malc_watch *watch) {
  for (cudaEvent_t mark : watch->marks)
    if (mark) cudaEventDestroy(mark);
}

/* Adds the time between the two oldest marks to the launch between them, which may have to be waited for. */
inline void malc_read_mark(malc_watch *watch) {
  const int64_t from = watch->read++ % MALC_MARKS, to = watch->read % MALC_MARKS;
  const int32_t launch = watch->launches[to];
  if (launch < 0 || watch->status->error != cudaSuccess) return;
  float milliseconds = 0;
  malc_note(watch->status, cudaEventSynchronize(watch->marks[to]), "the profile");
  malc_note(watch->status, cudaEventElapsedTime(&milliseconds, watch->marks[from], watch->marks[to]), "the profile");
  watch->timings[launch].seconds += 1e-3 * milliseconds;
  watch->timings[launch].calls++;
}

inline void malc_mark(malc_watch *watch, int32_t launch) {
  if (watch->set - watch->read == MALC_MARKS) malc_read_mark(watch);
  const int64_t place = watch->set++ % MALC_MARKS;
  watch->launches[place] = launch;
  malc_note(watch->status, cudaEventRecord(watch->marks[place], watch->queue), "the profile");
}

inline void malc_start(malc_watch *watch) { malc_mark(watch, -1); }

/* The time since the last start or lap is this launch's. */
inline void malc_lap(malc_watch *watch, int32_t launch) { malc_mark(watch, launch); }

/* Takes the times of all marks, at the end of a call. */
inline void malc_read_marks(malc_watch *watch) {
  while (watch->set - watch->read > 1) malc_read_mark(watch);
  watch->set = watch->read = 0;
}
