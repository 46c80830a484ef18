// csrc/partition/lanes.h -- eight doubles at a time, in whatever the file is compiled for. Internal linkage: see
// sign_changes_row.inl for why.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace pylinregion {
namespace {

constexpr int64_t kLanes = 8;
using V = double __attribute__((vector_size(64)));

inline V load(const double* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(double* to, V v) { std::memcpy(to, &v, sizeof v); }
inline V set(double x) { return V{} + x; }
inline V abs(V v) { return v < 0.0 ? -v : v; }
inline V min(V a, V b) { return a < b ? a : b; }
inline V max(V a, V b) { return a > b ? a : b; }

#if defined(__AVX512F__)
inline V multiply_add(V a, V b, V c) { return V(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c))); }
inline uint32_t above(V a, V b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_GT_OQ); }
#elif defined(__AVX2__) && defined(__FMA__)
inline V multiply_add(V a, V b, V c) {
  __m256d x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b), std::memcpy(z, &c, sizeof c);
  for (int i = 0; i < 2; ++i) z[i] = _mm256_fmadd_pd(x[i], y[i], z[i]);
  V out;
  std::memcpy(&out, z, sizeof out);
  return out;
}
inline uint32_t above(V a, V b) {
  __m256d x[2], y[2];
  std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b);
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(x[0], y[0], _CMP_GT_OQ)) |
                               _mm256_movemask_pd(_mm256_cmp_pd(x[1], y[1], _CMP_GT_OQ)) << 4);
}
#else
inline V multiply_add(V a, V b, V c) { return a * b + c; }
inline uint32_t above(V a, V b) {
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a[i] > b[i]) << i;
  return bits;
}
#endif

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

}  // namespace
}  // namespace pylinregion
