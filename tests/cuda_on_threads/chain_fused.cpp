// The CPU's walk as the CUDA kernel does it: one pair at a time, with fused multiply-adds.
#include <cmath>

#include "one_lane.h"
namespace pylinregion {
namespace {
template <class T> struct Lanes : OneLane<T> {
  static T multiply_add(T a, T b, T c) { return std::fma(a, b, c); }
};
}  // namespace
}  // namespace pylinregion
#define PLR_CHAIN chain_fused
#include "displacement/chain.inl"
