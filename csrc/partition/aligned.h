// csrc/partition/aligned.h -- arrays that start on a cache line, so that loads of whole lines do not straddle two, are
// on huge pages if they are large, and whose new elements are not cleared.
#pragma once
#include <cstddef>
#include <new>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pylinregion {

template <class T> struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U> LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) {
    void* memory = ::operator new(n * sizeof(T), alignment(n));
#if defined(__linux__)
    if (n * sizeof(T) >= kHuge) madvise(memory, n * sizeof(T), MADV_HUGEPAGE);  // fewer page faults, if it is granted
#endif
    return static_cast<T*>(memory);
  }
  void deallocate(T* p, size_t n) { ::operator delete(p, alignment(n)); }
  static constexpr size_t kHuge = size_t{1} << 21;
  static std::align_val_t alignment(size_t n) { return std::align_val_t{n * sizeof(T) >= kHuge ? kHuge : 64}; }
  template <class U> void construct(U* p) { ::new (static_cast<void*>(p)) U; }
  template <class U> bool operator==(const LineAllocator<U>&) const { return true; }
  template <class U> bool operator!=(const LineAllocator<U>&) const { return false; }
};

template <class T> using Array = std::vector<T, LineAllocator<T>>;
using Doubles = Array<double>;

}  // namespace pylinregion
