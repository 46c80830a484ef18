// csrc/kink.h -- the arithmetic of a kink. g++ compiles it for the CPU path, nvcc for the kernels, and the
// SIMD rows instantiate the same functions on vector types: one text, one answer.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __CUDACC__
#define PLR_HD __host__ __device__
#else
// Always inlined: a copy built for one instruction set must not be what the linker keeps for another.
#define PLR_HD __attribute__((always_inline))
#endif

namespace pylinregion {

enum class DType : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };
enum class Activation : int { none = 0, relu = 1, leaky_relu = 2, clamp = 3 };

// A scalar kink: the neuron is on piece k if k of its breakpoints lie strictly below z. So a neuron at
// exactly a breakpoint is on the lower piece: a ReLU at 0 is off. Values are exact in the data's dtype.
struct Kink {
  Activation activation;
  int n_breakpoints;     // 1 or 2, ascending
  double breakpoint[2];  // the second is not read if n_breakpoints is 1
  double slope;          // leaky_relu: the slope at and below 0
  double low, high;      // clamp: the bounds, infinite where there is none
};

// Activations as torch computes them; V is a scalar or a vector of scalars T. NaN comes out as NaN.
template <class V> PLR_HD inline V relu(V z) { return z <= V{} ? V{} : z; }
template <class V, class T> PLR_HD inline V leaky_relu(V z, T slope) { return z > V{} ? z : z * slope; }
template <class V, class T> PLR_HD inline V clamp(V z, T low, T high) {
  const V lower = V{} + low, upper = V{} + high;
  const V raised = z < lower ? lower : z;
  return raised > upper ? upper : raised;
}
template <class T, class V> PLR_HD inline V activate(const Kink& kink, V z) {
  switch (kink.activation) {
    case Activation::relu: return relu(z);
    case Activation::leaky_relu: return leaky_relu(z, static_cast<T>(kink.slope));
    case Activation::clamp: return clamp(z, static_cast<T>(kink.low), static_cast<T>(kink.high));
    case Activation::none: break;
  }
  return z;
}

// 0 for a finite number, NaN for NaN and infinity, so that a sum of these tells whether all were finite.
template <class V> PLR_HD inline V finite_probe(V z) { return z - z; }

// 16-bit floats travel as their bits; every bfloat16 and float16 is a float, so widening is exact.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

PLR_HD inline float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
PLR_HD inline float widen(float z) { return z; }
PLR_HD inline double widen(double z) { return z; }
PLR_HD inline float widen(BFloat16 z) { return float_from_bits(uint32_t{z.bits} << 16); }
PLR_HD inline float widen(Float16 z) {
  const uint32_t sign = (z.bits & 0x8000u) << 16;
  const uint32_t magnitude = z.bits & 0x7fffu;
  if (magnitude >= 0x7c00u)  // infinity or NaN
    return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // Exponent and fraction moved into place stand for 2^-112 of the value, subnormals included.
  const float scaled = float_from_bits(magnitude << 13) * 5.192296858534828e33f;  // 2^112
  return sign ? -scaled : scaled;
}
template <class T> struct Wide {
  using type = float;
};
template <> struct Wide<double> {
  using type = double;
};

// The activation of a 16-bit float stays in 16 bits: only relu is offered for these, and it selects.
template <class T> PLR_HD inline T activate_stored(const Kink& kink, T z) { return activate<T>(kink, z); }
PLR_HD inline BFloat16 activate_stored(const Kink& kink, BFloat16 z) {
  return kink.activation == Activation::relu && widen(z) <= 0.0f ? BFloat16{0} : z;
}
PLR_HD inline Float16 activate_stored(const Kink& kink, Float16 z) {
  return kink.activation == Activation::relu && widen(z) <= 0.0f ? Float16{0} : z;
}

PLR_HD constexpr inline int64_t words_for_bits(int64_t bits) { return (bits + 63) / 64; }

}  // namespace pylinregion
