// csrc/one_lane.h -- the vectors of a processor without any, and of a thread of a GPU: one number. What the members
// mean: lanes_avx512.h.
#pragma once
#include <cstdint>

#include "kink.h"

namespace pylinregion {
namespace {

template <class T> struct OneLane {
  using V = T;
  static constexpr int count = 1;
  PLR_HD static V load(const T* from) { return *from; }
  PLR_HD static void store(T* to, V z) { *to = z; }
  PLR_HD static V set(T value) { return value; }
  PLR_HD static uint64_t above(V z, V c) { return z > c; }
  PLR_HD static bool finite(V probe) { return probe == 0; }
  PLR_HD static V multiply_add(V a, V b, V c) { return a * b + c; }
  PLR_HD static V max(V a, V b) { return a > b ? a : b; }
  PLR_HD static V abs(V z) { return z < 0 ? -z : z; }
  PLR_HD static V expand(uint64_t bits, const T* from) { return bits & 1 ? *from : 0; }
  PLR_HD static void compress(T* to, V z, uint64_t) { *to = z; }
};

}  // namespace
}  // namespace pylinregion
