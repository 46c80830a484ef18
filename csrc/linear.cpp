// csrc/linear.cpp -- packing, threads and the choice of the instruction set.
#include "linear.h"

#include <stdexcept>

#include "parallel.h"
#include "simd.h"

namespace pylinregion {
namespace {

template <class T> void pack(const T* weight, const T* bias, int64_t in, int64_t out, T* packed) {
  constexpr int64_t group = 64 / sizeof(T);
  const PanelPlan plan(out, group);
  for (int64_t p = 0; p < plan.panels; ++p) {
    const int64_t first = plan.first_group(p) * group, stride = plan.width(p) * group;
    T* to = packed + first * (1 + in);
    for (int64_t c = 0; c < stride; ++c) {
      const int64_t column = first + c;
      to[c] = column < out && bias ? bias[column] : T(0);
      for (int64_t k = 0; k < in; ++k) to[(1 + k) * stride + c] = column < out ? weight[column * in + k] : T(0);
    }
  }
}
}  // namespace

int64_t packed_size(DType dtype, int64_t in, int64_t out) {
  const int64_t group = dtype == DType::float64 ? 8 : 16;
  return PanelPlan(out, group).groups * group * (1 + in);
}

void pack_linear(DType dtype, const void* weight, const void* bias, int64_t in, int64_t out, void* packed) {
  if (dtype == DType::float64)
    pack(static_cast<const double*>(weight), static_cast<const double*>(bias), in, out, static_cast<double*>(packed));
  else
    pack(static_cast<const float*>(weight), static_cast<const float*>(bias), in, out, static_cast<float*>(packed));
}

void linear_cpu(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y, int threads) {
  LinearRows kernel = nullptr;
#if defined(__x86_64__)
  if (simd() == Simd::avx512) kernel = linear_rows_avx512;
  if (simd() == Simd::avx2) kernel = linear_rows_avx2;
#elif defined(__aarch64__)
  if (simd() == Simd::neon) kernel = linear_rows_neon;
#endif
  if (!kernel) throw std::invalid_argument("linear needs avx2, avx512 or neon");
  const size_t size = dtype == DType::float64 ? 8 : 4;
  parallel_ranges(rows, threads, [&](int64_t begin, int64_t end) {
    kernel(dtype, static_cast<const char*>(x) + static_cast<size_t>(begin * layer.in) * size, end - begin, layer,
           static_cast<char*>(y) + static_cast<size_t>(begin * layer.out) * size);
  });
}

}  // namespace pylinregion
