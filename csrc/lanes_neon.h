// csrc/lanes_neon.h -- 16-byte vectors of aarch64, every processor of which has them.
#pragma once
#include <arm_neon.h>

#include <cstdint>

#include "lanes_in_memory.h"

namespace pylinregion {
namespace {

// Lanes<T>: a vector of T, and the bits of z > c; expand and compress as in lanes_avx512.h. V is the compilers' own
// vector type: kink.h compares and selects vectors with operators, which not every compiler has for float32x4_t.
template <class T> struct Lanes;
template <> struct Lanes<float> {
  using V = float __attribute__((vector_size(16)));
  static constexpr int count = 4;
  static V load(const float* from) { return V(vld1q_f32(from)); }
  static void store(float* to, V z) { vst1q_f32(to, float32x4_t(z)); }
  static V set(float value) { return V(vdupq_n_f32(value)); }
  static V multiply_add(V a, V b, V c) { return V(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b))); }
  static uint64_t above(V z, V c) { return bits(vcgtq_f32(float32x4_t(z), float32x4_t(c))); }
  static bool finite(V probe) { return bits(vceqzq_f32(float32x4_t(probe))) == 0xf; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V abs(V z) { return V(vabsq_f32(float32x4_t(z))); }
  static V expand(uint64_t bits, const float* from) { return expand_lanes<Lanes>(bits, from); }
  static void compress(float* to, V z, uint64_t bits) { compress_lanes<Lanes>(to, z, bits); }

 private:
  static uint64_t bits(uint32x4_t lanes) { return vaddvq_u32(vandq_u32(lanes, uint32x4_t{1, 2, 4, 8})); }
};
template <> struct Lanes<double> {
  using V = double __attribute__((vector_size(16)));
  static constexpr int count = 2;
  static V load(const double* from) { return V(vld1q_f64(from)); }
  static void store(double* to, V z) { vst1q_f64(to, float64x2_t(z)); }
  static V set(double value) { return V(vdupq_n_f64(value)); }
  static V multiply_add(V a, V b, V c) { return V(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b))); }
  static uint64_t above(V z, V c) { return bits(vcgtq_f64(float64x2_t(z), float64x2_t(c))); }
  static bool finite(V probe) { return bits(vceqzq_f64(float64x2_t(probe))) == 0x3; }
  static V min(V a, V b) { return a < b ? a : b; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V abs(V z) { return V(vabsq_f64(float64x2_t(z))); }
  static V select(uint64_t bits, V yes, V no) {
    const uint64x2_t each{1, 2};
    return V(vbslq_f64(vtstq_u64(vdupq_n_u64(bits), each), float64x2_t(yes), float64x2_t(no)));
  }
  static V expand(uint64_t bits, const double* from) { return expand_lanes<Lanes>(bits, from); }
  static void compress(double* to, V z, uint64_t bits) { compress_lanes<Lanes>(to, z, bits); }

 private:
  static uint64_t bits(uint64x2_t lanes) { return vaddvq_u64(vandq_u64(lanes, uint64x2_t{1, 2})); }
};
}  // namespace
}  // namespace pylinregion
