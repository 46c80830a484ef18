// csrc/partition/outside_warp.h -- what a walk needs of the machine that it runs on, where that is a warp of a GPU:
// what float64 cannot decide, the CPU has said before, or is asked; then the cell waits, and the walk goes on with
// others.
#pragma once
#include "engine.h"
#include "warp_tasks.h"

namespace pylinregion {
namespace {

constexpr int64_t kMostAsked = 64;  // for one cell at a time; more are asked when these are answered

class Outside {
 public:
  // A walk with more regions than max_regions ends, and the CPU's stops there; -1: any.
  PLR_ENGINE Outside(Arena& memory, Tally tally, const WarpTask& task, int64_t max_regions,
                     const volatile int32_t* stop, WalkOutcome* outcome)
      : asked_(memory.take<Request>(kMostAsked)),
        memory_(memory),
        tally_(tally),
        task_(task),
        max_regions_(max_regions),
        stop_(stop),
        outcome_(outcome) {}

  // --- for the engine ---
  PLR_ENGINE Arena memory() const { return memory_; }
  PLR_ENGINE Tally tally() const { return tally_; }
  // 0 if it is open.
  PLR_COLD int sign_at(int64_t i, int64_t j, int64_t k, const uint8_t*) {
    for (int64_t from = 0; from < task_.n_answers; from += kLanes) {
      const int64_t mine = from + my_lane();
      const bool known = mine < task_.n_answers && task_.answers[mine].i == i && task_.answers[mine].j == j &&
                         task_.answers[mine].k == k;
      const uint32_t found = __ballot_sync(kAllLanes, known);
      if (found) return task_.answers[from + lowest_bit(found)].sign;
    }
    if (n_asked_ < kMostAsked) put(asked_[n_asked_++], Request{-1, i, j, k});
    return 0;
  }
  PLR_ENGINE Place crossing(int64_t, int64_t, const uint8_t*) const {  // of cells that are kept
    end_walk(outcome_, WalkOutcome::failed);
    return {0, 0};
  }
  PLR_ENGINE bool is_open() const { return n_asked_ > 0; }
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

  // --- for who puts cells off ---
  // What was asked since this was called last.
  PLR_ENGINE const Request* asked(int64_t& n) {
    n = n_asked_, n_asked_ = 0;
    return asked_;
  }

 private:
  Request* const asked_;  // [kMostAsked]
  const Arena memory_;
  const Tally tally_;
  const WarpTask task_;
  const int64_t max_regions_;
  int64_t regions_ = 0;
  int64_t n_asked_ = 0;
  const volatile int32_t* const stop_;
  WalkOutcome* const outcome_;
};

}  // namespace
}  // namespace pylinregion
