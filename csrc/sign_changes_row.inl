// csrc/sign_changes_row.inl -- the row pass, compiled once per instruction set. The includer defines PLR_ROW
// (the function's name) and, before it includes this, the vectors of that set. Everything here has internal
// linkage: code built with -mavx512f must never be the copy the linker keeps for another file.
#include "one_lane.h"
#include "sign_changes.h"

namespace pylinregion {
namespace {

#ifndef PLR_HAS_LANES
template <class T> struct Lanes : OneLane<T> {};
#endif

template <class T> struct DenseSource {
  const T* z;
  template <class L> typename L::V load(int64_t n) const { return L::load(z + n); }
};
template <class T> struct SplitSource {
  const T *centre, *direction;
  T scale;
  template <class L> typename L::V load(int64_t n) const {
    return L::load(centre + n) + L::load(direction + n) * L::set(scale);
  }
};

// Neurons [begin, begin + 64): their bits, their activations, and whether all were finite.
template <class L, class T, class Source, Activation kActivation, int kBreakpoints>
inline bool block(const Source& source, const Kink& kink, int64_t begin, int64_t size, T* activation, uint64_t* bits) {
  const typename L::V first = L::set(static_cast<T>(kink.breakpoint[0]));
  const typename L::V second = L::set(static_cast<T>(kink.breakpoint[1]));
  Kink fixed = kink;
  fixed.activation = kActivation;  // a constant, so that the switch is gone
  typename L::V probe = L::set(0);
  bits[0] = bits[1] = 0;
  for (int64_t n = 0; n < size; n += L::count) {
    const typename L::V z = source.template load<L>(begin + n);
    probe = probe + finite_probe(z);
    bits[0] |= L::above(z, first) << n;
    if (kBreakpoints == 2) bits[1] |= L::above(z, second) << n;
    if (activation) L::store(activation + begin + n, activate<T>(fixed, z));
  }
  return L::finite(probe);
}

template <class T, class Source, Activation kActivation, int kBreakpoints>
bool run_row(const Source& source, const Row& row, const Kink& kink) {
  const int64_t words = words_for_bits(row.neurons), whole = row.neurons / 64;
  T* activation = static_cast<T*>(row.activation);
  bool finite = true;
  uint64_t bits[2];
  for (int64_t w = 0; w < words; ++w) {
    if (w < whole)
      finite &= block<Lanes<T>, T, Source, kActivation, kBreakpoints>(source, kink, w * 64, 64, activation, bits);
    else
      finite &= block<OneLane<T>, T, Source, kActivation, kBreakpoints>(source, kink, w * 64, row.neurons - w * 64,
                                                                        activation, bits);
    row.bits[w] = bits[0];
    if (kBreakpoints == 2) row.bits[words + w] = bits[1];
  }
  return finite;
}

template <class T, class Source, Activation kActivation>
bool with_breakpoints(const Source& source, const Row& row, const Kink& kink) {
  return kink.n_breakpoints == 2 ? run_row<T, Source, kActivation, 2>(source, row, kink)
                                 : run_row<T, Source, kActivation, 1>(source, row, kink);
}

template <class T, class Source> bool with_activation(const Source& source, const Row& row, const Kink& kink) {
  switch (kink.activation) {
    case Activation::relu: return with_breakpoints<T, Source, Activation::relu>(source, row, kink);
    case Activation::leaky_relu: return with_breakpoints<T, Source, Activation::leaky_relu>(source, row, kink);
    case Activation::clamp: return with_breakpoints<T, Source, Activation::clamp>(source, row, kink);
    case Activation::none: break;
  }
  return with_breakpoints<T, Source, Activation::none>(source, row, kink);
}

template <class T> bool float_row(const Row& row, const Kink& kink) {
  if (row.dense) return with_activation<T>(DenseSource<T>{static_cast<const T*>(row.dense)}, row, kink);
  return with_activation<T>(SplitSource<T>{static_cast<const T*>(row.centre), static_cast<const T*>(row.direction),
                                           static_cast<T>(row.scale)},
                            row, kink);
}

template <class T> bool half_row(const Row& row, const Kink& kink) {
  const T* dense = static_cast<const T*>(row.dense);
  T* activation = static_cast<T*>(row.activation);
  const int64_t words = words_for_bits(row.neurons);
  const float first_breakpoint = static_cast<float>(kink.breakpoint[0]);
  const float second_breakpoint = static_cast<float>(kink.breakpoint[1]);
  float probe = 0;
  for (int64_t w = 0; w < words; ++w) {
    const int64_t begin = w * 64, end = begin + 64 < row.neurons ? begin + 64 : row.neurons;
    uint64_t first = 0, second = 0;
    for (int64_t n = begin; n < end; ++n) {
      const float z = widen(dense[n]);
      probe += finite_probe(z);
      first |= static_cast<uint64_t>(z > first_breakpoint) << (n - begin);
      second |= static_cast<uint64_t>(z > second_breakpoint) << (n - begin);
      if (activation) activation[n] = activate_stored(kink, dense[n]);
    }
    row.bits[w] = first;
    if (kink.n_breakpoints == 2) row.bits[words + w] = second;
  }
  return probe == 0;
}
}  // namespace

bool PLR_ROW(DType dtype, const Row& row, const Kink& kink) {
  switch (dtype) {
    case DType::float32: return float_row<float>(row, kink);
    case DType::float64: return float_row<double>(row, kink);
    case DType::bfloat16: return half_row<BFloat16>(row, kink);
    case DType::float16: break;
  }
  return half_row<Float16>(row, kink);
}

}  // namespace pylinregion
