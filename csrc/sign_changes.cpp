// csrc/sign_changes.cpp -- CPU: rows packed in the best instruction set, then OR and AND over a point's rows.
#include "sign_changes.h"

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>

#include "parallel.h"

namespace pylinregion {
namespace {

struct Simd {
  const char* name;
  RowKernel row;
  bool available;
};

const Simd* simd_sets(size_t* count) {
#if defined(__x86_64__)
  static const Simd sets[] = {{"avx512", row_avx512, static_cast<bool>(__builtin_cpu_supports("avx512f"))},
                              {"avx2", row_avx2, static_cast<bool>(__builtin_cpu_supports("avx2"))},
                              {"portable", row_portable, true}};
#else
  static const Simd sets[] = {{"portable", row_portable, true}};
#endif
  *count = sizeof sets / sizeof sets[0];
  return sets;
}

std::atomic<const Simd*> chosen{nullptr};

const Simd* current() {
  if (const Simd* set = chosen.load()) return set;
  size_t count;
  const Simd* set = simd_sets(&count);
  while (!set->available) ++set;
  chosen.store(set);
  return set;
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

const char* simd() { return current()->name; }

void set_simd(const char* name) {
  size_t count;
  const Simd* sets = simd_sets(&count);
  for (size_t i = 0; i < count; ++i)
    if (std::strcmp(sets[i].name, name) == 0 && sets[i].available) return chosen.store(&sets[i]);
  throw std::invalid_argument("this machine has no instruction set named '" + std::string(name) + "'");
}

void sign_changes_cpu(DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out, int threads) {
  if (z.neurons == 0 || z.vertices == 0) return;  // an empty tensor has no address
  const RowKernel row_kernel = current()->row;
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
        finite &= row_kernel(dtype, row, kink);
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
