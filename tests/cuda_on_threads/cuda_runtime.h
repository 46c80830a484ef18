// A stand-in for CUDA's header: the threads of a block are coroutines of one host thread, which run in an order drawn
// anew each time they meet, so that a missing barrier shows; a barrier that not all reach ends the program. It is slow
// and says nothing of speed; it runs the logic of our kernels where there is no GPU.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include "watch.h"
inline void watch_memory(const void* memory, size_t bytes) {
  const Look look;
  bytes ? watch.add(memory, bytes) : watch.remove(memory);
}
#else
inline void watch_memory(const void*, size_t) {}
inline void watched_now(int64_t, unsigned, int) {}
#endif

#define __global__ static
#define __device__
#define __host__
#define __shared__ static
#define __noinline__ [[gnu::noinline]]
#define __launch_bounds__(...)

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error == 2 ? "out of memory" : "an error"; }

// The device.
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
constexpr unsigned cudaHostAllocMapped = 2;
constexpr cudaError_t cudaErrorNotReady = 600, cudaErrorMemoryAllocation = 2;
inline int shared_memory_limit = 227 << 10;
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : shared_memory_limit;
  return cudaSuccess;
}
template <class Kernel> cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  return bytes <= shared_memory_limit ? cudaSuccess : 1;
}
template <class Kernel> cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  return *blocks = 1, cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}

inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline size_t device_memory() {
  const char* given = std::getenv("DEVICE_MEMORY_ON_THREADS");
  return given ? static_cast<size_t>(std::atoll(given)) : size_t{64} << 20;
}
inline cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* all) {
  return *free_bytes = *all = device_memory(), cudaSuccess;
}
// What it holds is no number.
inline cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = bytes <= device_memory() ? std::malloc(bytes + 1) : nullptr;
  if (*memory) std::memset(*memory, 0xff, bytes), watch_memory(*memory, bytes + 1);
  return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* memory) { return watch_memory(memory, 0), std::free(memory), cudaSuccess; }
inline cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  return std::memset(memory, value, bytes), cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return *memory = std::malloc(bytes), cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
inline cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) { return *device = host, cudaSuccess; }
inline cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

// The threads of a block.
struct Index {
  unsigned x = 0;
};
inline Index threadIdx, blockIdx, gridDim;

struct Meeting {
  int size, arrived = 0;
  unsigned turn = 0;
};
struct Lane {
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::unique_ptr<char[]>(new char[kStack]);
  const Meeting* meeting = nullptr;  // that it waits for, if that has not gone on since
  unsigned turn = 0;
  bool done = false;
  static constexpr size_t kStack = 64 << 10;
  bool waits() const { return meeting && meeting->turn == turn; }
};
struct Warp {
  Meeting meeting{32};
  unsigned syncs = 0;
  unsigned votes = 0, seen_votes = 0;
  uint64_t values[32], seen_values[32];
  double numbers[32], seen_numbers[32];
};
struct Block {
  Meeting meeting;
  bool all = true, seen_all = true;
  std::vector<Warp> warps;
};
inline std::vector<Lane> lanes;
inline Block* this_block;
inline ucontext_t scheduler;
inline void (*body_of_lane)(void*);
inline void* body_argument;

inline Warp& this_warp() { return this_block->warps[threadIdx.x / 32]; }
inline void watch_this_lane() {
  watched_now(int64_t{blockIdx.x} * 32 + threadIdx.x / 32 + 1, this_warp().syncs, static_cast<int>(threadIdx.x % 32));
}
// Waits for all; the last to come calls `last`.
template <class Last> void meet(Meeting& meeting, const Last& last) {
  const unsigned me = threadIdx.x;
  if (++meeting.arrived == meeting.size) {
    meeting.arrived = 0, ++meeting.turn;
    last();
    watch_this_lane();
    return;
  }
  lanes[me].meeting = &meeting, lanes[me].turn = meeting.turn;
  swapcontext(&lanes[me].context, &scheduler);
}

// Ends the thread that calls it.
[[noreturn]] inline void exit_thread() {
  lanes[threadIdx.x].done = true;
  swapcontext(&lanes[threadIdx.x].context, &scheduler);
  std::abort();
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  Warp& warp = this_warp();
  warp.votes |= unsigned{vote} << (threadIdx.x % 32);
  meet(warp.meeting, [&] { warp.seen_votes = warp.votes, warp.votes = 0; });
  return warp.seen_votes;
}
inline uint64_t __shfl_down_sync(unsigned, uint64_t value, int step) {
  Warp& warp = this_warp();
  const int lane = static_cast<int>(threadIdx.x % 32);
  warp.values[lane] = value;
  meet(warp.meeting, [&] { std::copy(warp.values, warp.values + 32, warp.seen_values); });
  return lane + step < 32 ? warp.seen_values[lane + step] : value;
}
// Of numbers of at most eight bytes.
template <class T> T __shfl_sync(unsigned, T value, int source) {
  Warp& warp = this_warp();
  std::memcpy(&warp.values[threadIdx.x % 32], &value, sizeof value);
  meet(warp.meeting, [&] { std::copy(warp.values, warp.values + 32, warp.seen_values); });
  std::memcpy(&value, &warp.seen_values[source], sizeof value);
  return value;
}
inline double __shfl_xor_sync(unsigned, double value, int mask) {
  Warp& warp = this_warp();
  const int lane = static_cast<int>(threadIdx.x % 32);
  warp.numbers[lane] = value;
  meet(warp.meeting, [&] { std::copy(warp.numbers, warp.numbers + 32, warp.seen_numbers); });
  return warp.seen_numbers[lane ^ mask];
}
inline void __syncwarp() {  // the only meeting of a warp that orders what its lanes do with memory
  meet(this_warp().meeting, [] { ++this_warp().syncs; });
}
inline void __syncthreads() {
  meet(this_block->meeting, [] {});
}
inline bool __syncthreads_and(bool vote) {
  Block& block = *this_block;
  block.all &= vote;
  meet(block.meeting, [&] { block.seen_all = block.all, block.all = true; });
  return block.seen_all;
}
inline bool __any_sync(unsigned all, bool vote) { return __ballot_sync(all, vote) != 0; }
inline bool __all_sync(unsigned all, bool vote) { return __ballot_sync(all, vote) == all; }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  return std::exchange(*to, *to + value);
}
inline unsigned long long atomicMax(unsigned long long* to, unsigned long long value) {
  return std::exchange(*to, std::max(*to, value));
}
inline unsigned atomicOr(unsigned* to, unsigned value) { return std::exchange(*to, *to | value); }

// Shared memory of a size that the launch says. What it holds at the start of a block is no number, and what is behind
// it must not change.
inline std::vector<unsigned char> shared_memory_bytes;
inline void* dynamic_shared() { return shared_memory_bytes.data(); }

// What run.py makes of kernel<<<blocks, threads, bytes, stream>>>(arguments).
template <class Body> void launch_on_threads(unsigned blocks, int threads, size_t bytes, const Body& body) {
  static std::mt19937 random(1);
  constexpr size_t kBehind = 256;
  if (lanes.size() < static_cast<size_t>(threads)) lanes.resize(static_cast<size_t>(threads));
  body_of_lane = [](void* argument) { (*static_cast<const Body*>(argument))(); };
  body_argument = const_cast<Body*>(&body);
  gridDim.x = blocks;
  std::vector<unsigned> live;
  for (unsigned number = 0; number < blocks; ++number) {
    blockIdx.x = number;
    Block block{{threads}, true, true, std::vector<Warp>(static_cast<size_t>(threads / 32))};
    this_block = &block;
    shared_memory_bytes.assign(bytes + kBehind, 0xff);
    live.clear();
    for (int t = 0; t < threads; ++t) {
      Lane& lane = lanes[static_cast<size_t>(t)];
      lane.meeting = nullptr, lane.done = false;
      getcontext(&lane.context);
      lane.context.uc_stack.ss_sp = lane.stack.get();
      lane.context.uc_stack.ss_size = Lane::kStack;
      lane.context.uc_link = &scheduler;
      makecontext(
          &lane.context,
          +[] {
            const unsigned me = threadIdx.x;
            body_of_lane(body_argument);
            lanes[me].done = true;
          },
          0);
      live.push_back(static_cast<unsigned>(t));
    }
    while (!live.empty()) {
      std::shuffle(live.begin(), live.end(), random);
      bool went_on = false;
      for (const unsigned t : live) {
        if (lanes[t].waits()) continue;
        threadIdx.x = t, went_on = true;
        watch_this_lane();
        swapcontext(&scheduler, &lanes[t].context);
      }
      if (!went_on) std::printf("threads of a block wait for each other\n"), std::abort();
      live.erase(std::remove_if(live.begin(), live.end(), [](unsigned t) { return lanes[t].done; }), live.end());
    }
    watched_now(0, 0, -1);
    const auto behind = shared_memory_bytes.begin() + static_cast<std::ptrdiff_t>(bytes);
    if (std::count(behind, shared_memory_bytes.end(), 0xff) != kBehind)
      std::printf("written behind shared memory\n"), std::abort();
  }
}
