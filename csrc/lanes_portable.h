// csrc/lanes_portable.h -- 16-byte vectors of doubles, as compilers have them for any processor. What the members mean:
// lanes_avx512.h.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "lanes_in_memory.h"

namespace pylinregion {
namespace {

template <class T> struct Lanes;
template <> struct Lanes<double> {
  using V = double __attribute__((vector_size(16)));
  static constexpr int count = 2;
  static V load(const double* from) {
    V z;
    std::memcpy(&z, from, sizeof z);
    return z;
  }
  static void store(double* to, V z) { std::memcpy(to, &z, sizeof z); }
  static V set(double value) { return V{value, value}; }
  static V multiply_add(V a, V b, V c) { return a * b + c; }
#if defined(__SSE2__)
  static uint64_t above(V z, V c) {
    return static_cast<unsigned>(_mm_movemask_pd(_mm_cmpgt_pd(__m128d(z), __m128d(c))));
  }
  static V min(V a, V b) { return V(_mm_min_pd(__m128d(a), __m128d(b))); }
  static V max(V a, V b) { return V(_mm_max_pd(__m128d(a), __m128d(b))); }
#else
  static uint64_t above(V z, V c) {
    return static_cast<uint64_t>(z[0] > c[0]) | static_cast<uint64_t>(z[1] > c[1]) << 1;
  }
  static V min(V a, V b) { return a < b ? a : b; }
  static V max(V a, V b) { return a > b ? a : b; }
#endif
  static V abs(V z) { return V(Bits(z) & INT64_MAX); }
  static V select(uint64_t bits, V yes, V no) {
    return Bits{-static_cast<int64_t>(bits & 1), -static_cast<int64_t>(bits >> 1 & 1)} ? yes : no;
  }
  static void compress(double* to, V z, uint64_t bits) { compress_lanes<Lanes>(to, z, bits); }

 private:
  using Bits = int64_t __attribute__((vector_size(16)));
};
}  // namespace
}  // namespace pylinregion
