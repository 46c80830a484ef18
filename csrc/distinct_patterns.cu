// csrc/distinct_patterns.cu -- one warp hashes a row; then a block per point asks of each row whether an
// earlier one equals it, by hash and, where the hashes are equal, by bits.
#include <algorithm>

#include "cuda_check.cuh"
#include "distinct_patterns.h"

namespace pylinregion {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65536;
constexpr unsigned kWarp = 0xffffffffu;

__global__ void hash_rows_kernel(const uint64_t* __restrict__ patterns, int64_t rows, int64_t words, bool weak_hash,
                                 Hash128* __restrict__ hashes) {
  const int lane = threadIdx.x % 32;
  const int64_t stride = int64_t{gridDim.x} * (kThreads / 32);
  for (int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; row < rows; row += stride) {
    Hash128 hash{0, 0};
    for (int64_t w = lane; w < words && !weak_hash; w += 32) hash = add(hash, hash_word(patterns[row * words + w], w));
    for (int step = 16; step > 0; step /= 2)
      hash = add(hash, {__shfl_down_sync(kWarp, hash.low, step), __shfl_down_sync(kWarp, hash.high, step)});
    if (lane == 0) hashes[row] = hash;
  }
}

__global__ void distinct_patterns_kernel(const uint64_t* __restrict__ patterns, const Hash128* __restrict__ hashes,
                                         int64_t points, int64_t vertices, int64_t words,
                                         int64_t* __restrict__ distinct) {
  __shared__ unsigned long long count;
  for (int64_t b = blockIdx.x; b < points; b += gridDim.x) {
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    for (int64_t v = threadIdx.x; v < vertices; v += kThreads) {
      const Hash128 hash = hashes[b * vertices + v];
      const uint64_t* row = patterns + (b * vertices + v) * words;
      bool first = true;
      for (int64_t u = 0; u < v && first; ++u) {
        if (!equal(hashes[b * vertices + u], hash)) continue;
        const uint64_t* other = patterns + (b * vertices + u) * words;
        int64_t w = 0;
        while (w < words && other[w] == row[w]) ++w;
        first = w < words;
      }
      if (first) atomicAdd(&count, 1ull);
    }
    __syncthreads();
    if (threadIdx.x == 0) distinct[b] = static_cast<int64_t>(count);
    __syncthreads();
  }
}
}  // namespace

void distinct_patterns_cuda(const uint64_t* patterns, int64_t points, int64_t vertices, int64_t words,
                            int64_t* distinct, bool weak_hash, Hash128* hashes, void* stream) {
  const int64_t rows = points * vertices;
  if (points == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t hash_blocks = std::max<int64_t>(1, (rows * 32 + kThreads - 1) / kThreads);
  hash_rows_kernel<<<static_cast<unsigned>(std::min(hash_blocks, kMaxBlocks)), kThreads, 0, on>>>(patterns, rows, words,
                                                                                                  weak_hash, hashes);
  PLR_CUDA_CHECK_KERNEL(hash_rows_kernel, cudaGetLastError());
  distinct_patterns_kernel<<<static_cast<unsigned>(std::min(points, kMaxBlocks)), kThreads, 0, on>>>(
      patterns, hashes, points, vertices, words, distinct);
  PLR_CUDA_CHECK_KERNEL(distinct_patterns_kernel, cudaGetLastError());
}

}  // namespace pylinregion
