// csrc/partition/arena.h -- memory of a depth-first walk: taken in order, given back to a mark.
#pragma once
#if defined(PLR_WARP)
#include "arena_warp.h"
#else
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace pylinregion {

// The address sanitizer reports who reads or writes what has not been taken, or has been given back.
class Arena {
 public:
  struct Mark {
    size_t block, used;
  };
  Mark mark() const { return {block_, used_}; }
  void release(Mark mark) {
    if (mark.block != block_) {
      forbid(0, size_);
      go_to(mark.block);
    } else {
      forbid(mark.used, used_);
    }
    used_ = mark.used;
  }

  // Uninitialised, 64-byte aligned, valid until a release below it. Plain types only.
  template <class T> T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (used_ + bytes > size_) next_block(bytes);
    T* out = reinterpret_cast<T*>(base_ + used_);
    allow(out, static_cast<size_t>(count) * sizeof(T));
    used_ += bytes;
    return out;
  }

 private:
  static constexpr size_t kBlock = 1 << 20;
  void go_to(size_t block) {
    char* memory = blocks_[block].memory.get();
    block_ = block, used_ = 0, size_ = blocks_[block].size;
    base_ = memory + (64 - reinterpret_cast<uintptr_t>(memory) % 64) % 64;
  }
  // The first block behind this one with room for so much.
  void next_block(size_t bytes) {
    size_t block = base_ ? block_ + 1 : 0;
    while (block < blocks_.size() && blocks_[block].size < bytes) ++block;
    if (block == blocks_.size()) {
      const size_t size = bytes > kBlock ? bytes : kBlock;
      blocks_.push_back({std::unique_ptr<char[]>(new char[size + 64]), size});
    }
    go_to(block);
    forbid(0, size_);
  }
#if defined(__SANITIZE_ADDRESS__)
  void forbid(size_t from, size_t to) const { ASAN_POISON_MEMORY_REGION(base_ + from, to - from); }
  static void allow(void* memory, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(memory, bytes); }
#else
  void forbid(size_t, size_t) const {}
  static void allow(void*, size_t) {}
#endif
  struct Block {
    std::unique_ptr<char[]> memory;
    size_t size;
  };
  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0, size_ = 0;
  char* base_ = nullptr;  // of the block
};

}  // namespace pylinregion
#endif
