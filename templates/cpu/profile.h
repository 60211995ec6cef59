/* profile.h - the clock of a program that takes the time of its launches. */
#ifndef MALC_PROFILE_H
#define MALC_PROFILE_H
#include <stdint.h>
#include <time.h>

typedef struct {
  double seconds;
  int64_t calls;
} malc_timing;

typedef struct {
  double began;         /* the last start or lap, in seconds */
  malc_timing *timings; /* of each launch */
} malc_watch;

static inline double malc_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void malc_start(malc_watch *watch) { watch->began = malc_now(); }

/* The time since the last start or lap is this launch's. */
static inline void malc_lap(malc_watch *watch, int32_t launch) {
  const double now = malc_now();
  watch->timings[launch].seconds += now - watch->began;
  watch->timings[launch].calls++;
  watch->began = now;
}
#endif
