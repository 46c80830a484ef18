// csrc/sign_changes.cu -- a warp takes 32 neurons of one point and walks the vertices: reads are coalesced,
// a ballot is 32 bits of the pattern, and no thread waits for another.
#include <algorithm>
#include <type_traits>

#include "cuda_check.cuh"
#include "sign_changes.h"

namespace pylinregion {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65536;  // the grid-stride loop takes the rest
constexpr int kAhead = 8;              // loads in flight per thread before the first is used
constexpr unsigned kWarp = 0xffffffffu;

template <class T> struct Source {
  const T* __restrict__ dense;
  const T* __restrict__ centre;
  const T* __restrict__ directions;
  const double* __restrict__ radius;
  int64_t vertices, neurons;

  __device__ T load(int64_t b, int64_t v, int64_t n) const {
    if (dense) return dense[(b * vertices + v) * neurons + n];
    if constexpr (std::is_floating_point_v<T>) {  // the split is offered for float and double only
      const int64_t half = vertices / 2;
      const T scale = static_cast<T>(v < half ? radius[b] : -radius[b]);
      return centre[b * neurons + n] + directions[(v < half ? v : v - half) * neurons + n] * scale;
    } else {
      return T{};
    }
  }
};

template <class T> __global__ void sign_changes_kernel(Source<T> z, int64_t points, Kink kink, SignChanges out) {
  using W = typename Wide<T>::type;
  const W first = static_cast<W>(kink.breakpoint[0]), second = static_cast<W>(kink.breakpoint[1]);
  const int lane = threadIdx.x % 32;
  const int64_t half_words = 2 * words_for_bits(z.neurons);  // 32-bit words of one plane, the padding included
  const int64_t warps = points * half_words;
  const int64_t stride = int64_t{gridDim.x} * (kThreads / 32);
  uint32_t* patterns = reinterpret_cast<uint32_t*>(out.patterns);

  for (int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; warp < warps; warp += stride) {
    const int64_t b = warp / half_words, word = warp % half_words, n = word * 32 + lane;
    const bool active = n < z.neurons;
    unsigned any1 = 0, any2 = 0, all1 = kWarp, all2 = kWarp;
    W probe = 0;
    for (int64_t v0 = 0; v0 < z.vertices; v0 += kAhead) {
      T ahead[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) ahead[i] = active && v0 + i < z.vertices ? z.load(b, v0 + i, n) : T{};
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t v = v0 + i;
        if (v >= z.vertices) break;  // the same for the whole warp
        const W value = widen(ahead[i]);
        probe += finite_probe(value);
        const unsigned bits1 = __ballot_sync(kWarp, active && value > first);
        any1 |= bits1;
        all1 &= bits1;
        unsigned bits2 = 0;
        if (kink.n_breakpoints == 2) {
          bits2 = __ballot_sync(kWarp, active && value > second);
          any2 |= bits2;
          all2 &= bits2;
        }
        const int64_t row = b * z.vertices + v;
        if (patterns && lane == 0) {
          uint32_t* to = patterns + 2 * row * out.row_words + word;
          to[0] = bits1;
          if (kink.n_breakpoints == 2) to[half_words] = bits2;
        }
        if (out.activation && active)
          static_cast<T*>(out.activation)[row * z.neurons + n] = activate_stored(kink, ahead[i]);
      }
    }
    if (probe != 0 || probe != probe) out.nonfinite[b] = 1;
    if (lane == 0) {
      unsigned differs = any1 & ~all1;
      if (kink.n_breakpoints == 2) differs |= any2 & ~all2;
      if (differs)
        atomicAdd(reinterpret_cast<unsigned long long*>(out.changes + b * out.changes_stride),
                  static_cast<unsigned long long>(__popc(differs)));
    }
  }
}

template <class T> void launch(const Preactivations& z, const Kink& kink, const SignChanges& out, cudaStream_t stream) {
  const int64_t warps = z.points * 2 * words_for_bits(z.neurons);
  if (warps == 0 || z.vertices == 0) return;  // a grid of 0 blocks is a launch error
  const auto blocks = static_cast<unsigned>(std::min((warps * 32 + kThreads - 1) / kThreads, kMaxBlocks));
  const Source<T> source{static_cast<const T*>(z.dense),
                         static_cast<const T*>(z.centre),
                         static_cast<const T*>(z.directions),
                         z.radius,
                         z.vertices,
                         z.neurons};
  sign_changes_kernel<T><<<blocks, kThreads, 0, stream>>>(source, z.points, kink, out);
  PLR_CUDA_CHECK_KERNEL(sign_changes_kernel, cudaGetLastError());
}
}  // namespace

void sign_changes_cuda(DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (dtype) {
    case DType::float32: return launch<float>(z, kink, out, on);
    case DType::float64: return launch<double>(z, kink, out, on);
    case DType::bfloat16: return launch<BFloat16>(z, kink, out, on);
    case DType::float16: return launch<Float16>(z, kink, out, on);
  }
}

}  // namespace pylinregion
