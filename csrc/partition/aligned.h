// csrc/partition/aligned.h -- vectors of doubles that start on a cache line: loads of whole lines do not straddle two.
#pragma once
#include <cstddef>
#include <new>
#include <vector>

namespace pylinregion {

template <class T> struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U> LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t{64}); }
  template <class U> bool operator==(const LineAllocator<U>&) const { return true; }
  template <class U> bool operator!=(const LineAllocator<U>&) const { return false; }
};

using Doubles = std::vector<double, LineAllocator<double>>;

}  // namespace pylinregion
