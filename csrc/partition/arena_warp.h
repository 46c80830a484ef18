// csrc/partition/arena_warp.h -- memory of a warp's walk: as arena.h, but there is no more than it has from the start.
#pragma once
#include <cstdint>

#include "lanes_warp.h"

namespace pylinregion {
namespace {

class Arena {
 public:
  using Mark = int64_t;
  // A walk that needs more ends; then `outcome` is kNoMemory.
  PLR_ENGINE Arena(char* memory, int64_t bytes, WalkOutcome* outcome)
      : memory_(memory), bytes_(bytes), outcome_(outcome) {}
  PLR_ENGINE Mark mark() const { return used_; }
  PLR_ENGINE void release(Mark mark) { used_ = mark; }

  // Uninitialised, 64-byte aligned, valid until a release below it. Plain types only.
  template <class T> PLR_ENGINE T* take(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    if (used_ + bytes > bytes_) end_walk(outcome_, WalkOutcome::no_memory);
    sync();  // nobody reads what was there before
    T* const out = reinterpret_cast<T*>(memory_ + used_);
    used_ += bytes;
    return out;
  }

 private:
  char* memory_;
  int64_t bytes_, used_ = 0;
  WalkOutcome* outcome_;
};

}  // namespace
}  // namespace pylinregion
