// csrc/partition/aligned.h -- arrays that start on a cache line, so that loads of whole lines do not straddle two, and
// whose new elements are not cleared.
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
  template <class U> void construct(U* p) { ::new (static_cast<void*>(p)) U; }
  template <class U> bool operator==(const LineAllocator<U>&) const { return true; }
  template <class U> bool operator!=(const LineAllocator<U>&) const { return false; }
};

template <class T> using Array = std::vector<T, LineAllocator<T>>;
using Doubles = Array<double>;

}  // namespace pylinregion
