// csrc/sign_changes.cpp -- CPU: rows packed in the best instruction set, then OR and AND over a point's rows.
#include "sign_changes.h"

#include "parallel.h"
#include "simd.h"

namespace pylinregion {
namespace {

RowKernel row_kernel() {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return row_avx512;
  if (simd() == Simd::avx2) return row_avx2;
#elif defined(__aarch64__)
  if (simd() == Simd::neon) return row_neon;
#endif
  return row_portable;
}

size_t element_size(DType dtype) {
  switch (dtype) {
    case DType::float32: return 4;
    case DType::float64: return 8;
    case DType::bfloat16:
    case DType::float16: break;
  }
  return 2;
}

const char* offset(const void* base, int64_t elements, size_t size) {
  return base ? static_cast<const char*>(base) + static_cast<size_t>(elements) * size : nullptr;
}
}  // namespace

void sign_changes_cpu(DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out, int threads) {
  if (z.neurons == 0 || z.vertices == 0) return;  // an empty tensor has no address
  const RowKernel pack_row = row_kernel();
  const int64_t words = words_for_bits(z.neurons), row_bits = words * kink.n_breakpoints, half = z.vertices / 2;
  const size_t size = element_size(dtype);
  parallel_ranges(z.points, threads, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> scratch(static_cast<size_t>(3 * row_bits));
    uint64_t *any = scratch.data(), *all = any + row_bits, *spare = all + row_bits;
    for (int64_t b = begin; b < end; ++b) {
      std::fill(any, any + row_bits, 0);
      std::fill(all, all + row_bits, ~uint64_t{0});
      bool finite = true;
      for (int64_t v = 0; v < z.vertices; ++v) {
        const int64_t index = b * z.vertices + v;
        uint64_t* bits = out.patterns ? out.patterns + index * out.row_words : spare;
        Row row{};
        row.neurons = z.neurons;
        row.bits = bits;
        row.activation = const_cast<char*>(offset(out.activation, index * z.neurons, size));
        if (z.dense) {
          row.dense = offset(z.dense, index * z.neurons, size);
        } else {
          row.centre = offset(z.centre, b * z.neurons, size);
          row.direction = offset(z.directions, v % half * z.neurons, size);
          row.scale = v < half ? z.radius[b] : -z.radius[b];
        }
        finite &= pack_row(dtype, row, kink);
        for (int64_t w = 0; w < row_bits; ++w) {
          any[w] |= bits[w];
          all[w] &= bits[w];
        }
      }
      int64_t changed = 0;
      for (int64_t w = 0; w < words; ++w) {
        uint64_t differs = any[w] & ~all[w];
        if (kink.n_breakpoints == 2) differs |= any[words + w] & ~all[words + w];
        changed += __builtin_popcountll(differs);
      }
      out.changes[b * out.changes_stride] += changed;
      if (!finite) out.nonfinite[b] = 1;
    }
  });
}

}  // namespace pylinregion
