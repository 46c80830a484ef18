// csrc/label_changes.cu -- a warp takes 32 neurons of one point, as in sign_changes.cu.
#include <algorithm>

#include "cuda_check.cuh"
#include "kink.h"
#include "label_changes.h"

namespace pylinregion {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65536;

template <class T> __global__ void label_changes_kernel(const T* __restrict__ labels, int64_t points, int64_t vertices,
                                                        int64_t neurons, uint32_t* __restrict__ patterns,
                                                        int64_t row_words, int64_t* __restrict__ changes,
                                                        int64_t changes_stride) {
  const int lane = threadIdx.x % 32;
  const int64_t padded = (neurons + 1) / 2 * 2;  // 32-bit numbers of a row, the padding included
  const int64_t per_point = (padded + 31) / 32, warps = points * per_point;
  const int64_t stride = int64_t{gridDim.x} * (kThreads / 32);
  for (int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; warp < warps; warp += stride) {
    const int64_t b = warp / per_point, n = warp % per_point * 32 + lane;
    const T* of_point = labels + b * vertices * neurons;
    bool differs = false;
    for (int64_t v = 0; v < vertices; ++v) {
      const T label = n < neurons ? of_point[v * neurons + n] : T{0};
      if (n < neurons) differs |= label != of_point[n];
      if (patterns && n < padded) patterns[2 * (b * vertices + v) * row_words + n] = static_cast<uint32_t>(label);
    }
    const unsigned count = __popc(__ballot_sync(0xffffffffu, differs));
    if (lane == 0 && count)
      atomicAdd(reinterpret_cast<unsigned long long*>(changes + b * changes_stride),
                static_cast<unsigned long long>(count));
  }
}

template <class T> void launch(const void* labels, int64_t points, int64_t vertices, int64_t neurons,
                               uint64_t* patterns, int64_t row_words, int64_t* changes, int64_t changes_stride,
                               cudaStream_t stream) {
  const int64_t warps = points * ((neurons + 1) / 2 * 2 + 31) / 32 + points;
  if (points == 0 || neurons == 0 || vertices == 0) return;
  const auto blocks = static_cast<unsigned>(std::min((warps * 32 + kThreads - 1) / kThreads, kMaxBlocks));
  label_changes_kernel<T><<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(labels), points, vertices, neurons,
                                                           reinterpret_cast<uint32_t*>(patterns), row_words, changes,
                                                           changes_stride);
  PLR_CUDA_CHECK_KERNEL(label_changes_kernel, cudaGetLastError());
}
}  // namespace

void label_changes_cuda(LabelType type, const void* labels, int64_t points, int64_t vertices, int64_t neurons,
                        uint64_t* patterns, int64_t row_words, int64_t* changes, int64_t changes_stride, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (type == LabelType::uint8)
    launch<uint8_t>(labels, points, vertices, neurons, patterns, row_words, changes, changes_stride, on);
  else
    launch<int64_t>(labels, points, vertices, neurons, patterns, row_words, changes, changes_stride, on);
}

}  // namespace pylinregion
