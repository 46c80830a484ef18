// csrc/parallel.h -- a loop over items on several threads. The threads live for one call: no pool idles
// beside torch's own, and a process may fork at any time.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace pylinregion {

// Threads that are waited for wherever they go out of scope: a std::thread would end the process there.
struct JoinedThreads {
  std::vector<std::thread> all;
  ~JoinedThreads() {
    for (std::thread& thread : all) thread.join();
  }
};

// Calls body(begin, end) on disjoint ranges that cover [0, items). An exception of any range is rethrown.
template <class Body> void parallel_ranges(int64_t items, int threads, const Body& body) {
  const int64_t ranges = std::max<int64_t>(1, std::min<int64_t>(threads, items));
  if (ranges == 1) return body(int64_t{0}, items);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(ranges));
  const auto run = [&](int64_t range) {
    try {
      body(items * range / ranges, items * (range + 1) / ranges);
    } catch (...) {
      errors[static_cast<size_t>(range)] = std::current_exception();
    }
  };
  {
    JoinedThreads pool;
    pool.all.reserve(static_cast<size_t>(ranges));
    for (int64_t range = 1; range < ranges; ++range) {
      try {
        pool.all.emplace_back(run, range);
      } catch (const std::system_error&) {
        run(range);  // the system gives no more threads: do the work here
      } catch (const std::bad_alloc&) {
        run(range);
      }
    }
    run(0);
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// Calls body(worker, next) on several threads, numbered from 0, where next() is an item that no other has been given,
// the last ones first, or -1: of items that take unlike times.
template <class Body> void parallel_items(int64_t items, int threads, const Body& body) {
  std::atomic<int64_t> left{items};
  const auto next = [&left] { return std::max<int64_t>(-1, left.fetch_sub(1) - 1); };
  parallel_ranges(std::min<int64_t>(threads, items), threads, [&](int64_t worker, int64_t) { body(worker, next); });
}

}  // namespace pylinregion
