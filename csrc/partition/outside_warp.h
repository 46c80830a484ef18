// csrc/partition/outside_warp.h -- what a walk needs of the machine that it runs on, where that is a warp of a GPU:
// what float64 cannot decide, the CPU has said before, or is asked; then the cell waits, and the walk goes on with
// others.
#pragma once
#include "cell_log.cuh"
#include "engine.h"
#include "warp_tasks.h"

namespace pylinregion {
namespace {

constexpr uint32_t kCutsAtOnce = 1024;  // before it is heard whether to stop: that is a look at memory of the host
constexpr int64_t kMostAsked = 64;      // for one cell at a time; more are asked when these are answered

class Outside {
 public:
  // A walk with more regions than options.max_regions ends, and the CPU's stops there. log: null, if cells are not
  // kept.
  PLR_ENGINE Outside(Arena& memory, Tally tally, const WarpTask& task, const Shared& shared, CellLog* log,
                     const volatile int32_t* stop, WalkOutcome* outcome)
      : asked_(memory.take<Question>(kMostAsked)),
        borders_(shared.options.pieces ? shared.system.n_corners : 0),
        zeros_(memory.take<int64_t>(2 * borders_)),
        memory_(memory),
        tally_(tally),
        task_(task),
        rows_(shared.system.rows),
        max_regions_(shared.options.max_regions),
        log_(log),
        stop_(stop),
        outcome_(outcome) {}

  // --- for the engine ---
  PLR_ENGINE Arena memory() const { return memory_; }
  PLR_ENGINE Tally tally() const { return tally_; }
  // 0 if it is open.
  PLR_ENGINE int sign_at(int64_t i, int64_t j, int64_t k, const uint8_t*) { return said({i, j, k}).sign; }
  PLR_ENGINE Place crossing(int64_t i, int64_t j, const uint8_t*) {
    const Said at = said({i, j, kWhere});
    return {at.x, at.y};
  }
  // Before a step in which a decision may stay open, and when one did.
  PLR_ENGINE void keep_zeros() {
    copy(tally_.zero_along, borders_, zeros_), copy(tally_.zero_at, borders_, zeros_ + borders_);
  }
  PLR_ENGINE void put_zeros_back() {
    copy(zeros_, borders_, tally_.zero_along), copy(zeros_ + borders_, borders_, tally_.zero_at);
  }
  PLR_ENGINE bool is_open() const { return n_asked_ > 0; }
  PLR_ENGINE bool stopped() {
    if (++cuts_ % kCutsAtOnce) return false;
    if (__any_sync(kAllLanes, *stop_)) end_walk(outcome_, WalkOutcome::stopped);
    return false;
  }
  PLR_ENGINE void count(int64_t cells) {
    regions_ += cells;
    if (max_regions_ >= 0 && regions_ > max_regions_) end_walk(outcome_, WalkOutcome::open);
  }
  PLR_ENGINE void write(const Polygon& polygon, const uint8_t* on) {
    if (log_) log_->write(polygon, on, rows_);
  }
  PLR_ENGINE void fail(const char*) const { end_walk(outcome_, WalkOutcome::failed); }

  // --- for who puts cells off ---
  // What was asked since this was called last.
  PLR_ENGINE const Question* asked(int64_t& n) {
    n = n_asked_, n_asked_ = 0;
    return asked_;
  }

  PLR_ENGINE CellLog* log() const { return log_; }

 private:
  PLR_COLD Said said(const Question& it) {
    for (int64_t from = 0; from < task_.n_answers; from += kLanes) {
      const int64_t mine = from + my_lane();
      bool known = mine < task_.n_answers;
      if (known) {
        const Question& other = task_.answers[mine].question;
        known = other.i == it.i && other.j == it.j && other.k == it.k;
      }
      const uint32_t found = __ballot_sync(kAllLanes, known);
      if (found) return task_.answers[from + lowest_bit(found)].said;
    }
    if (n_asked_ < kMostAsked) put(asked_[n_asked_++], it);
    return {0, 0, 0};
  }

  Question* const asked_;  // [kMostAsked]
  const int64_t borders_;
  int64_t* const zeros_;  // [2, borders]
  const Arena memory_;
  const Tally tally_;
  const WarpTask task_;
  const int64_t rows_, max_regions_;
  CellLog* const log_;
  int64_t regions_ = 0;
  uint32_t cuts_ = 0;
  int64_t n_asked_ = 0;
  const volatile int32_t* const stop_;
  WalkOutcome* const outcome_;
};

}  // namespace
}  // namespace pylinregion
