// csrc/lanes_in_memory.h -- expand and compress for vectors of processors that have no instruction for them. What they
// do: lanes_avx512.h.
#pragma once
#include <cstdint>

namespace pylinregion {
namespace {

template <class L, class T> typename L::V expand_lanes(uint64_t bits, const T* from) {
  T lanes[L::count];
  for (int i = 0; i < L::count; ++i) {
    lanes[i] = bits >> i & 1 ? *from : 0;
    from += bits >> i & 1;
  }
  return L::load(lanes);
}
template <class L, class T> void compress_lanes(T* to, typename L::V z, uint64_t bits) {
  T lanes[L::count];
  L::store(lanes, z);
  for (const T& lane : lanes) {
    *to = lane;
    to += bits & 1;
    bits >>= 1;
  }
}

}  // namespace
}  // namespace pylinregion
