// csrc/partition/scaled.h -- exact vectors: integers of any size times a power of two, with digits of so many bits.
#pragma once
#include <cmath>
#include <cstdint>
#include <utility>

#include "digits.h"

namespace pylinregion {

// An exact vector: integers times 2^exponent.
struct Scaled {
  Digits digits;
  int64_t exponent = 0;
  bool present = false;
};

// [rows, columns], row-major: integers times 2^exponent.
struct Matrix {
  Digits digits;
  int64_t columns = 0, exponent = 0;
};

// The same numbers as multiples of 2^exponent, which must not be above the present one.
inline void rescale(Scaled& x, int64_t exponent, int bits) {
  const int64_t up = x.exponent - exponent;
  if (up == 0) return;
  Digits moved(x.digits.size());
  const double factor = std::ldexp(1.0, static_cast<int>(up % bits));
  for (int64_t q = 0; q < x.digits.slices(); ++q) {
    double* to = moved.slice(q + up / bits);
    for (int64_t i = 0; i < x.digits.size(); ++i) to[i] = x.digits[q][i] * factor;
  }
  moved.carry(std::ldexp(1.0, bits));
  x.digits = std::move(moved);
  x.exponent = exponent;
}

// to += what, at the finer of the two scales.
inline void add(Scaled& to, Scaled what, int bits) {
  if (!to.present) {
    to = std::move(what);
    return;
  }
  if (what.exponent > to.exponent)
    rescale(what, to.exponent, bits);
  else
    rescale(to, what.exponent, bits);
  for (int64_t q = 0; q < what.digits.slices(); ++q) {
    double* sum = to.digits.slice(q);
    for (int64_t i = 0; i < to.digits.size(); ++i) sum[i] += what.digits[q][i];
  }
  to.digits.carry(std::ldexp(1.0, bits));
}

// x *= integer: |integer| times the largest digit must be below 2^52.
inline void times(Scaled& x, double integer, int bits) {
  if (!x.present) return;
  for (int64_t q = 0; q < x.digits.slices(); ++q) {
    double* digits = x.digits.slice(q);
    for (int64_t i = 0; i < x.digits.size(); ++i) digits[i] *= integer;
  }
  x.digits.carry(std::ldexp(1.0, bits));
}

}  // namespace pylinregion
