// clock.h - who knows of whose accesses: vector clocks (Fidge 1988, Mattern 1989), by which accesses are ordered.
//
// Every thread is an actor, and so is every asynchronous engine. An actor's time passes with each release; what a
// barrier hands over is the set of times, one for each actor, up to which everything is known.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace simt {
typedef uint32_t Actor;
typedef uint32_t Time;
typedef std::vector<Time> Times;
/* Times by actor; null and beyond the end: nothing is known of it. */
typedef std::shared_ptr<const Times> Seen;

inline Time time_seen(const Seen &seen, Actor actor) { return seen && actor < seen->size() ? (*seen)[actor] : 0; }

/* What an actor knows at one moment. */
struct Moment {
  Seen seen;
  Actor actor = 0;
  Time now = 1;
  bool knows(Actor other, Time time) const { return other == actor ? time <= now : time <= time_seen(seen, other); }
};

inline void raise(Times &times, Actor actor, Time time) {
  if (times.size() <= actor) times.resize(actor + 1);
  times[actor] = std::max(times[actor], time);
}

/* Everything that either knows. */
inline Seen join(const Seen &a, const Seen &b) {
  if (a == b || !b) return a;
  if (!a) return b;
  // Lanes of a warp often join the same two, one after the other.
  static Seen last_a, last_b, last;
  if (a == last_a && b == last_b) return last;
  auto times = std::make_shared<Times>(*a);
  if (times->size() < b->size()) times->resize(b->size());
  for (size_t i = 0; i < b->size(); i++) (*times)[i] = std::max((*times)[i], (*b)[i]);
  last_a = a;
  last_b = b;
  last = times;
  return last;
}

/* Collects what those who come to a barrier know. */
class Gathering {
  std::vector<Seen> seen;
  std::vector<std::pair<Actor, Time>> times;

 public:
  void add(const Moment &moment) {
    add(moment.seen);
    add(moment.actor, moment.now);
  }
  void add(const Seen &known) {
    if (known && std::find(seen.begin(), seen.end(), known) == seen.end()) seen.push_back(known);
  }
  void add(Actor actor, Time time) { times.emplace_back(actor, time); }
  /* What all together know; empties the collection. */
  Seen take() {
    auto all = seen.empty() ? std::make_shared<Times>() : std::make_shared<Times>(*seen[0]);
    for (size_t k = 1; k < seen.size(); k++) {
      if (all->size() < seen[k]->size()) all->resize(seen[k]->size());
      for (size_t i = 0; i < seen[k]->size(); i++) (*all)[i] = std::max((*all)[i], (*seen[k])[i]);
    }
    for (const auto &[actor, time] : times) raise(*all, actor, time);
    seen.clear();
    times.clear();
    return all;
  }
};
} // namespace simt
