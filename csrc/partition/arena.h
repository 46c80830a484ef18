// csrc/partition/arena.h -- memory of a depth-first walk: taken in order, given back to a mark.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace pylinregion {

class Arena {
 public:
  struct Mark {
    size_t block, used;
  };
  Mark mark() const { return {block_, used_}; }
  void release(Mark mark) { block_ = mark.block, used_ = mark.used; }

  // Uninitialised, 64-byte aligned, valid until a release below it. Plain types only.
  template <class T> T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size) ++block_, used_ = 0;
    if (block_ == blocks_.size()) {
      const size_t size = bytes > kBlock ? bytes : kBlock;
      blocks_.push_back({std::unique_ptr<char[]>(new char[size + 64]), size});
      used_ = 0;
    }
    char* base = blocks_[block_].memory.get();
    base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
    T* out = reinterpret_cast<T*>(base + used_);
    used_ += bytes;
    return out;
  }

 private:
  static constexpr size_t kBlock = 1 << 20;
  struct Block {
    std::unique_ptr<char[]> memory;
    size_t size;
  };
  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0;
};

}  // namespace pylinregion
