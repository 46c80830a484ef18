// csrc/partition/outside_warp.h -- what a walk needs of the machine that it runs on, where that is a warp of a GPU:
// what float64 cannot decide is left to the CPU (the walk ends, and the CPU walks along this slice).
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

class Outside {
 public:
  PLR_ENGINE Outside(Arena memory, Tally tally, int64_t max_regions, const volatile int32_t* stop, WalkOutcome* outcome)
      : memory_(memory), tally_(tally), max_regions_(max_regions), stop_(stop), outcome_(outcome) {}

  PLR_ENGINE Arena memory() const { return memory_; }
  PLR_ENGINE Tally tally() const { return tally_; }
  PLR_ENGINE int sign_at(int64_t, int64_t, int64_t, const uint8_t*) const {
    end_walk(outcome_, WalkOutcome::open);
    return 0;
  }
  PLR_ENGINE Place crossing(int64_t, int64_t, const uint8_t*) const {
    end_walk(outcome_, WalkOutcome::open);
    return {0, 0};
  }
  PLR_ENGINE bool stopped() const {
    if (__any_sync(kAllLanes, *stop_)) end_walk(outcome_, WalkOutcome::stopped);
    return false;
  }
  PLR_ENGINE void count(int64_t cells) {
    regions_ += cells;
    if (max_regions_ >= 0 && regions_ > max_regions_) end_walk(outcome_, WalkOutcome::open);
  }
  PLR_ENGINE void write(const Polygon&, const uint8_t*) const { end_walk(outcome_, WalkOutcome::failed); }
  PLR_ENGINE void fail(const char*) const { end_walk(outcome_, WalkOutcome::failed); }

 private:
  const Arena memory_;
  const Tally tally_;
  const int64_t max_regions_;
  int64_t regions_ = 0;
  const volatile int32_t* const stop_;
  WalkOutcome* const outcome_;
};

}  // namespace
}  // namespace pylinregion
