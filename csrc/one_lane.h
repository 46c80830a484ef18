// csrc/one_lane.h -- the vectors of a processor without any: one number. What the members mean: lanes_avx512.h.
#pragma once
#include <cstdint>

namespace pylinregion {
namespace {

template <class T> struct OneLane {
  using V = T;
  static constexpr int count = 1;
  static V load(const T* from) { return *from; }
  static void store(T* to, V z) { *to = z; }
  static V set(T value) { return value; }
  static uint64_t above(V z, V c) { return z > c; }
  static bool finite(V probe) { return probe == 0; }
  static V multiply_add(V a, V b, V c) { return a * b + c; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V abs(V z) { return z < 0 ? -z : z; }
  static V expand(uint64_t bits, const T* from) { return bits & 1 ? *from : 0; }
  static void compress(T* to, V z, uint64_t) { *to = z; }
};

}  // namespace
}  // namespace pylinregion
