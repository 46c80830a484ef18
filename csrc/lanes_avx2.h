// csrc/lanes_avx2.h -- 32-byte vectors. Only for files built with -mavx2 -mfma.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "lanes_in_memory.h"

namespace pylinregion {
namespace {

// Lanes<T>: a vector of T, and the bits of z > c; expand and compress as in lanes_avx512.h.
template <class T> struct Lanes;
template <> struct Lanes<float> {
  using V = __m256;
  static constexpr int count = 8;
  static V load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, V z) { _mm256_storeu_ps(to, z); }
  static V set(float value) { return _mm256_set1_ps(value); }
  static V multiply_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static uint64_t above(V z, V c) { return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(z, c, _CMP_GT_OQ))); }
  static bool finite(V probe) {
    return _mm256_movemask_ps(_mm256_cmp_ps(probe, _mm256_setzero_ps(), _CMP_EQ_OQ)) == 0xff;
  }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }
  static V abs(V z) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), z); }
  static V expand(uint64_t bits, const float* from) { return expand_lanes<Lanes>(bits, from); }
  static void compress(float* to, V z, uint64_t bits) { compress_lanes<Lanes>(to, z, bits); }
};
template <> struct Lanes<double> {
  using V = __m256d;
  static constexpr int count = 4;
  static V load(const double* from) { return _mm256_loadu_pd(from); }
  static void store(double* to, V z) { _mm256_storeu_pd(to, z); }
  static V set(double value) { return _mm256_set1_pd(value); }
  static V multiply_add(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  static uint64_t above(V z, V c) { return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(z, c, _CMP_GT_OQ))); }
  static bool finite(V probe) {
    return _mm256_movemask_pd(_mm256_cmp_pd(probe, _mm256_setzero_pd(), _CMP_EQ_OQ)) == 0xf;
  }
  static V min(V a, V b) { return _mm256_min_pd(a, b); }
  static V max(V a, V b) { return _mm256_max_pd(a, b); }
  static V abs(V z) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), z); }
  static V select(uint64_t bits, V yes, V no) {
    const __m256i each = _mm256_setr_epi64x(1, 2, 4, 8), all = _mm256_set1_epi64x(static_cast<int64_t>(bits));
    return _mm256_blendv_pd(no, yes, _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(all, each), each)));
  }
  static V expand(uint64_t bits, const double* from) { return expand_lanes<Lanes>(bits, from); }
  static void compress(double* to, V z, uint64_t bits) { compress_lanes<Lanes>(to, z, bits); }
};
}  // namespace
}  // namespace pylinregion
