// A stand-in for CUDA's header: a block is a group of host threads, a warp 32 of them in step where they vote or
// exchange. It is slow and says nothing of speed or memory; it runs the logic of our kernels where there is no GPU.
#pragma once
#include <atomic>
#include <barrier>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __shared__ static

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

struct Index {
  unsigned x = 0;
};
struct Warp {
  std::barrier<> meet{32};
  std::atomic<unsigned> votes{0};
  uint64_t values[32];
};
inline thread_local Index threadIdx;
inline thread_local Warp* this_warp;
inline Index blockIdx, gridDim;
inline std::barrier<>* this_block;

inline unsigned __ballot_sync(unsigned, bool vote) {
  const unsigned lane = threadIdx.x % 32;
  if (vote) this_warp->votes |= 1u << lane;
  this_warp->meet.arrive_and_wait();
  const unsigned votes = this_warp->votes;
  this_warp->meet.arrive_and_wait();
  if (lane == 0) this_warp->votes = 0;
  this_warp->meet.arrive_and_wait();
  return votes;
}
inline uint64_t __shfl_down_sync(unsigned, uint64_t value, int step) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  this_warp->values[lane] = value;
  this_warp->meet.arrive_and_wait();
  const uint64_t other = lane + step < 32 ? this_warp->values[lane + step] : value;
  this_warp->meet.arrive_and_wait();
  return other;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline void __syncthreads() { this_block->arrive_and_wait(); }
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  return __atomic_fetch_add(to, value, __ATOMIC_SEQ_CST);
}

// What run.py makes of kernel<<<blocks, threads, 0, stream>>>(arguments).
template <class Body> void launch_on_threads(unsigned blocks, int threads, const Body& body) {
  gridDim.x = blocks;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    std::barrier<> meet(threads);
    this_block = &meet;
    std::vector<std::unique_ptr<Warp>> warps;
    for (int w = 0; w < threads / 32; ++w) warps.push_back(std::make_unique<Warp>());
    std::vector<std::thread> lanes;
    for (int t = 0; t < threads; ++t)
      lanes.emplace_back([&, t] {
        threadIdx.x = static_cast<unsigned>(t);
        this_warp = warps[static_cast<size_t>(t / 32)].get();
        body();
      });
    for (std::thread& lane : lanes) lane.join();
  }
}
