// csrc/partition/device_memory.cuh -- memory of the device that ends with its owner, and what the host keeps there.
#pragma once
#include <cstring>
#include <vector>

#include "../cuda_check.cuh"

namespace pylinregion {
namespace {

// Numbers of a plain type.
template <class T> class DeviceArray {
 public:
  explicit DeviceArray(int64_t n = 0) : n_(n) {
    if (n) PLR_CUDA_CHECK(cudaMalloc(&memory_, static_cast<size_t>(n) * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& numbers) : DeviceArray(static_cast<int64_t>(numbers.size())) {
    set(numbers);
  }
  DeviceArray(DeviceArray&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)), n_(other.n_) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(memory_, other.memory_), std::swap(n_, other.n_);
    return *this;
  }
  ~DeviceArray() { cudaFree(memory_); }

  T* get() const { return static_cast<T*>(memory_); }
  int64_t size() const { return n_; }
  void set(const std::vector<T>& numbers) const { set(numbers.data(), static_cast<int64_t>(numbers.size())); }
  void set(const T* numbers, int64_t n) const {
    if (n) PLR_CUDA_CHECK(cudaMemcpy(memory_, numbers, static_cast<size_t>(n) * sizeof(T), cudaMemcpyHostToDevice));
  }
  // The first n.
  std::vector<T> numbers(int64_t n) const {
    std::vector<T> out(static_cast<size_t>(n));
    if (n) PLR_CUDA_CHECK(cudaMemcpy(out.data(), memory_, out.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
  std::vector<T> numbers() const { return numbers(n_); }

 private:
  void* memory_ = nullptr;
  int64_t n_;
};

// Arrays one behind the other, as they are copied to the device in one piece.
class Packed {
 public:
  // Room for n numbers, which are 0; returns where they will be.
  template <class T> size_t add(int64_t n) {
    const size_t at = bytes_.size();
    bytes_.resize(at + (static_cast<size_t>(n) * sizeof(T) + 255) / 256 * 256);
    return at;
  }
  template <class T> size_t add(const T* numbers, int64_t n) {
    const size_t at = add<T>(n);
    put(at, numbers, n);
    return at;
  }
  template <class T> void put(size_t at, const T* numbers, int64_t n) {
    if (n) std::memcpy(bytes_.data() + at, numbers, static_cast<size_t>(n) * sizeof(T));
  }
  template <class T> T* at(size_t place) { return reinterpret_cast<T*>(bytes_.data() + place); }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  template <class T> size_t add(const std::vector<T>& numbers) {
    return add(numbers.data(), static_cast<int64_t>(numbers.size()));
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

// What the host sets while a kernel runs.
class StopFlag {
 public:
  StopFlag() {
    PLR_CUDA_CHECK(cudaHostAlloc(&host_, sizeof(int32_t), cudaHostAllocMapped));
    set(0);
    PLR_CUDA_CHECK(cudaHostGetDevicePointer(&device_, host_, 0));
  }
  StopFlag(const StopFlag&) = delete;
  ~StopFlag() { cudaFreeHost(host_); }
  void set(int32_t value) { *static_cast<volatile int32_t*>(host_) = value; }
  const volatile int32_t* on_device() const { return static_cast<const volatile int32_t*>(device_); }

 private:
  void *host_ = nullptr, *device_ = nullptr;
};

inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  PLR_CUDA_CHECK(cudaGetDevice(&device));
  PLR_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

}  // namespace
}  // namespace pylinregion
