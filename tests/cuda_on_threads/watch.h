// What lanes of a warp do with memory of the device between two of their meetings (syncs). What a lane reads must not
// depend on how far others are: not what another writes then, unless both write nothing else there; and all that write
// a place must leave the same. Else the program ends. For files that are compiled with -fsanitize=thread, whose calls
// come here and not to that sanitizer's library.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <unordered_map>
#include <vector>

#define UNWATCHED __attribute__((no_sanitize("thread")))

struct WatchedByte {
  uint64_t epoch = 0;
  unsigned writers = 0;                     // lanes, since then
  unsigned readers = 0;                     // of what was there before
  bool twice = false;                       // whether one of them wrote more than once
  unsigned char before = 0, last[32] = {};  // by each lane, once it waits
};

class Watch {
 public:
  bool looks = false;  // its own reads and writes are not looked at

  UNWATCHED void add(const void* memory, size_t bytes) { ranges_[reinterpret_cast<uintptr_t>(memory)] = bytes; }
  UNWATCHED void remove(const void* memory) { ranges_.erase(reinterpret_cast<uintptr_t>(memory)); }
  // Which lane of a warp goes on, and how often the warp has met; the one before waits. `lane` is -1 where no kernel
  // runs.
  UNWATCHED void now(int64_t warp, unsigned meeting, int lane) {
    for (const uintptr_t at : written_) finish_write(at);
    written_.clear();
    epoch_ = static_cast<uint64_t>(warp) << 40 | (uint64_t{meeting} + 1);
    runs_ = lane >= 0, lane_ = lane;
    if (!runs_) bytes_.clear();
  }
  UNWATCHED void reads(const void* what, size_t size) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(what);
    if (!runs_ || !is_watched(at)) return;
    const unsigned me = 1u << lane_;
    for (size_t i = 0; i < size; ++i) {
      WatchedByte& byte = byte_at(at + i);
      if (byte.writers & me) {
        if (byte.twice && byte.writers & ~me) fail("read while others write more than once", at + i, byte);
        continue;
      }
      for (unsigned rest = byte.writers; rest; rest &= rest - 1)
        if (byte.last[__builtin_ctz(rest)] != byte.before) fail("read after another lane has written", at + i, byte);
      byte.readers |= me;
    }
  }
  UNWATCHED void writes(void* what, size_t size) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(what);
    if (!runs_ || !is_watched(at)) return;
    const unsigned me = 1u << lane_;
    for (size_t i = 0; i < size; ++i) {
      WatchedByte& byte = byte_at(at + i);
      if (!byte.writers) byte.before = *reinterpret_cast<const unsigned char*>(at + i);
      byte.twice |= (byte.writers & me) != 0;
      byte.writers |= me;
      written_.push_back(at + i);
    }
  }

 private:
  // What a lane has left when it waits: compilers may store later than they say so.
  UNWATCHED void finish_write(uintptr_t at) {
    WatchedByte& byte = byte_at(at);
    byte.last[lane_] = *reinterpret_cast<const unsigned char*>(at);
    if (byte.last[lane_] != byte.before && byte.readers & ~(1u << lane_))
      fail("written after another lane has read", at, byte);
  }
  UNWATCHED WatchedByte& byte_at(uintptr_t at) {
    WatchedByte& byte = bytes_[at];
    if (byte.epoch == epoch_) return byte;
    for (unsigned rest = byte.writers; rest; rest &= rest - 1)
      if (byte.last[__builtin_ctz(rest)] != byte.last[__builtin_ctz(byte.writers)])
        fail("left with two values", at, byte);
    byte = WatchedByte();
    byte.epoch = epoch_;
    return byte;
  }
  UNWATCHED bool is_watched(uintptr_t at) const {
    auto range = ranges_.upper_bound(at);
    if (range == ranges_.begin()) return false;
    --range;
    return at < range->first + range->second;
  }
  [[noreturn]] UNWATCHED void fail(const char* how, uintptr_t at, const WatchedByte& byte) const {
    std::printf("memory at %zx is %s between two syncs: lane %d, written by %x, read by %x\n", size_t{at}, how, lane_,
                byte.writers, byte.readers);
    std::abort();
  }

  std::map<uintptr_t, size_t> ranges_;
  std::unordered_map<uintptr_t, WatchedByte> bytes_;
  std::vector<uintptr_t> written_;  // by the lane that runs
  uint64_t epoch_ = 0;
  bool runs_ = false;  // a kernel; also before this is constructed
  int lane_ = 0;
};
inline Watch watch;

struct Look {
  const bool first = !watch.looks;
  UNWATCHED Look() { watch.looks = true; }
  UNWATCHED ~Look() {
    if (first) watch.looks = false;
  }
};
UNWATCHED inline void watched_now(int64_t warp, unsigned meeting, int lane) {
  const Look look;
  watch.now(warp, meeting, lane);
}
UNWATCHED inline void watched_read(const void* at, size_t size) {
  const Look look;
  if (look.first) watch.reads(at, size);
}
UNWATCHED inline void watched_write(void* at, size_t size) {
  const Look look;
  if (look.first) watch.writes(at, size);
}

extern "C" {
#define WATCHED(size)                                                                \
  UNWATCHED void __tsan_read##size(void* at) { watched_read(at, size); }             \
  UNWATCHED void __tsan_write##size(void* at) { watched_write(at, size); }           \
  UNWATCHED void __tsan_unaligned_read##size(void* at) { watched_read(at, size); }   \
  UNWATCHED void __tsan_unaligned_write##size(void* at) { watched_write(at, size); } \
  UNWATCHED void __tsan_volatile_read##size(void* at) { watched_read(at, size); }    \
  UNWATCHED void __tsan_volatile_write##size(void* at) { watched_write(at, size); }
WATCHED(1)
WATCHED(2) WATCHED(4) WATCHED(8) WATCHED(16)
#undef WATCHED
    UNWATCHED void __tsan_read_range(void* at, size_t size) {
  watched_read(at, size);
}
UNWATCHED void __tsan_write_range(void* at, size_t size) { watched_write(at, size); }
UNWATCHED void __tsan_vptr_update(void**, void*) {}
UNWATCHED void __tsan_vptr_read(void**) {}
UNWATCHED void __tsan_func_entry(void*) {}
UNWATCHED void __tsan_func_exit() {}
UNWATCHED void __tsan_init() {}
UNWATCHED unsigned char __tsan_atomic8_load(const volatile unsigned char* at, int) { return *at; }
UNWATCHED uint64_t __tsan_atomic64_fetch_add(volatile uint64_t* at, uint64_t n, int) { return __sync_fetch_and_add(at, n); }
UNWATCHED uint32_t __tsan_atomic32_fetch_add(volatile uint32_t* at, uint32_t n, int) { return __sync_fetch_and_add(at, n); }
}
