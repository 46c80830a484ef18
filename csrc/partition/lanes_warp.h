// csrc/partition/lanes_warp.h -- what lanes.h has, where the lanes are those of a warp of a GPU: each has one number of
// a vector, and runs the rest alike.
//
// Lanes may be anywhere between two syncs. So that all have the same numbers, what is in memory is written once between
// syncs, or by one lane; all memory that is taken is taken after a sync (arena_warp.h).
#pragma once
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "system.h"

namespace pylinregion {
namespace {

#define PLR_ENGINE __device__ inline
#define PLR_COLD __device__ __noinline__
#define PLR_STEP __device__ __noinline__

constexpr int64_t kLanes = 32;
using Bits = uint32_t;
constexpr uint32_t kAllLanes = 0xffffffff;
using V = double;
constexpr int kTall = 2;

PLR_ENGINE int64_t my_lane() { return threadIdx.x % 32; }
PLR_ENGINE void sync() { __syncwarp(); }
PLR_ENGINE bool leads() { return my_lane() == 0; }
PLR_ENGINE bool in_all_lanes(bool x) { return __all_sync(kAllLanes, x); }

PLR_ENGINE V load(const double* from) { return from[my_lane()]; }
PLR_ENGINE void store(double* to, V v) {
  sync();
  to[my_lane()] = v;
  sync();
}
PLR_ENGINE V set(double x) { return x; }
PLR_ENGINE V abs(V v) { return std::fabs(v); }
PLR_ENGINE V min(V a, V b) { return a < b ? a : b; }
PLR_ENGINE V max(V a, V b) { return a > b ? a : b; }
PLR_ENGINE V multiply_add(V a, V b, V c) { return fma(a, b, c); }
PLR_ENGINE uint32_t above(V a, V b) { return __ballot_sync(kAllLanes, a > b); }
PLR_ENGINE V select(uint32_t bits, V yes, V no) { return bits >> my_lane() & 1 ? yes : no; }
PLR_ENGINE bool less(V a, V b) { return a < b; }
PLR_ENGINE bool both(bool a, bool b) { return a && b; }
PLR_ENGINE V choose(bool where, V yes, V no) { return where ? yes : no; }
PLR_ENGINE double lane(V v, int64_t i) { return __shfl_sync(kAllLanes, v, static_cast<int>(i)); }

PLR_ENGINE int count_bits(uint32_t bits) { return __popc(bits); }
PLR_ENGINE int lowest_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
PLR_ENGINE int highest_bit(uint32_t bits) { return 31 - __clz(static_cast<int>(bits)); }
PLR_ENGINE uint32_t first_lanes(int64_t n) { return n >= kLanes ? kAllLanes : (1u << n) - 1; }
PLR_ENGINE int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The place of this lane's number among those with a bit.
PLR_ENGINE int place_in(uint32_t bits) { return __popc(bits & ((1u << my_lane()) - 1)); }
template <class T> PLR_ENGINE T* compress_one(T* to, T value, uint32_t bits) {
  sync();
  if (bits >> my_lane() & 1) to[place_in(bits)] = value;
  sync();
  return to + count_bits(bits);
}
PLR_ENGINE double* compress(double* to, V v, uint32_t bits) { return compress_one(to, v, bits); }
PLR_ENGINE int32_t* compress(int32_t* to, const int32_t* from, uint32_t bits) {
  return compress_one(to, from[my_lane()], bits);
}
PLR_ENGINE void put_signs(int8_t* to, uint32_t is_above, uint32_t is_below) {
  sync();
  to[my_lane()] = static_cast<int8_t>((is_above >> my_lane() & 1) - (is_below >> my_lane() & 1));
  sync();
}

template <class Work> PLR_ENGINE void each(int64_t n, const Work& work) {
  sync();
  for (int64_t i = my_lane(); i < n; i += kLanes) work(i);
  sync();
}
template <class Work> PLR_ENGINE void each_bit(uint32_t bits, const Work& work) {
  sync();
  if (bits >> my_lane() & 1) work(static_cast<int>(my_lane()));
  sync();
}
template <class T> PLR_ENGINE void fill(T* to, int64_t n, T value) {
  each(n, [&](int64_t i) { to[i] = value; });
}
template <class T> PLR_ENGINE void copy(const T* from, int64_t n, T* to) {
  each(n, [&](int64_t i) { to[i] = from[i]; });
}
template <class T> PLR_ENGINE void put(T& to, T value) {
  sync();
  if (leads()) to = value;
  sync();
}
PLR_ENGINE void add_to(int64_t& to, int64_t n) {
  if (leads()) to += n;
}

// Ends the walk, and the warp with it.
[[noreturn]] PLR_ENGINE void end_walk(WalkOutcome* outcome, WalkOutcome why) {
  sync();
  if (leads()) *outcome = why;
#if defined(__CUDACC__)
  asm volatile("exit;");
  __builtin_unreachable();
#else
  exit_thread();
#endif
}

}  // namespace
}  // namespace pylinregion
