// csrc/lanes_avx512.h -- 64-byte vectors. Only for files built with -mavx512f.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace pylinregion {
namespace {

// Lanes<T>: a vector V of T. For each lane: set, abs, and min and max, which are b where one is NaN. multiply_add is
// one operation where the processor has it. above: bit i is set where lane i of z is above that of c. select: `yes` in
// the lanes with a bit. expand: the lanes with a bit take the numbers at `from` in turn, the others are 0. compress:
// the lanes with a bit next to each other; `to` has room for a vector.
template <class T> struct Lanes;
template <> struct Lanes<float> {
  using V = __m512;
  static constexpr int count = 16;
  static V load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, V z) { _mm512_storeu_ps(to, z); }
  static V set(float value) { return _mm512_set1_ps(value); }
  static V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static uint64_t above(V z, V c) { return _mm512_cmp_ps_mask(z, c, _CMP_GT_OQ); }
  static bool finite(V probe) { return _mm512_cmp_ps_mask(probe, _mm512_setzero_ps(), _CMP_EQ_OQ) == 0xffff; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V abs(V z) { return _mm512_abs_ps(z); }
  static V expand(uint64_t bits, const float* from) {
    return _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), _mm512_loadu_ps(from));
  }
  static void compress(float* to, V z, uint64_t bits) {
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), z));
  }
};
template <> struct Lanes<double> {
  using V = __m512d;
  static constexpr int count = 8;
  static V load(const double* from) { return _mm512_loadu_pd(from); }
  static void store(double* to, V z) { _mm512_storeu_pd(to, z); }
  static V set(double value) { return _mm512_set1_pd(value); }
  static V multiply_add(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  static uint64_t above(V z, V c) { return _mm512_cmp_pd_mask(z, c, _CMP_GT_OQ); }
  static bool finite(V probe) { return _mm512_cmp_pd_mask(probe, _mm512_setzero_pd(), _CMP_EQ_OQ) == 0xff; }
  static V min(V a, V b) { return a < b ? a : b; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V abs(V z) { return _mm512_abs_pd(z); }
  static V select(uint64_t bits, V yes, V no) { return _mm512_mask_blend_pd(static_cast<__mmask8>(bits), no, yes); }
  static V expand(uint64_t bits, const double* from) {
    return _mm512_maskz_expand_pd(static_cast<__mmask8>(bits), _mm512_loadu_pd(from));
  }
  static void compress(double* to, V z, uint64_t bits) {
    _mm512_storeu_pd(to, _mm512_maskz_compress_pd(static_cast<__mmask8>(bits), z));
  }
};
}  // namespace
}  // namespace pylinregion
