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
  void release(Mark mark) {
    if (mark.block != block_) go_to(mark.block);
    used_ = mark.used;
  }

  // Uninitialised, 64-byte aligned, valid until a release below it. Plain types only.
  template <class T> T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (used_ + bytes > size_) next_block(bytes);
    T* out = reinterpret_cast<T*>(base_ + used_);
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
  }
  struct Block {
    std::unique_ptr<char[]> memory;
    size_t size;
  };
  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0, size_ = 0;
  char* base_ = nullptr;  // of the block
};

}  // namespace pylinregion
