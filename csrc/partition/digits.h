// csrc/partition/digits.h -- vectors of integers of any size by levels: x = sum over q of d_q 2^(bits q), the digits
// |d_q| <= 2^(bits - 1) of a level kept as doubles. Products of two such vectors are float64 sums that are exact as
// long as terms * 2^(2 bits - 2) <= 2^53, so plain loops do them, in any instruction set.
#pragma once
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bigint.h"

namespace pylinregion {

// The exponent of the lowest bit that is set: x = odd * 2^lowest_bit(x). For x != 0.
inline int lowest_bit(double x) {
  int exponent;
  const double mantissa = std::frexp(x, &exponent);  // in [1/2, 1)
  int64_t integer = static_cast<int64_t>(std::ldexp(mantissa, 53));
  return exponent - 53 + __builtin_ctzll(static_cast<uint64_t>(integer));
}

// The bits that some doubles have set: all are multiples of 2^low, and below 2^high in size.
struct BitRange {
  int low = INT_MAX, high = INT_MIN;

  BitRange() = default;
  BitRange(const double* x, int64_t size) { add(x, size); }
  void add(const double* x, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      if (x[i] == 0) continue;
      low = std::min(low, lowest_bit(x[i]));
      high = std::max(high, std::ilogb(x[i]) + 1);
    }
  }
  bool empty() const { return low == INT_MAX; }
  int exponent() const { return empty() ? 0 : low; }
  int width() const { return empty() ? 1 : high - low; }
};

class Digits {
 public:
  Digits() = default;
  explicit Digits(int64_t size) : size_(size) {}

  // x[i] / 2^exponent, which must be integers.
  static Digits from(const double* x, int64_t size, int64_t exponent, int bits) {
    Digits out(size);
    for (int64_t i = 0; i < size; ++i) {
      double rest = x[i];
      if (rest == 0) continue;
      // The highest level that is not 0, then downwards: each step takes the nearest multiple, exactly.
      const int64_t top = (std::ilogb(rest) - exponent) / bits + 1;
      for (int64_t q = top; q >= 0 && rest != 0; --q) {
        const int64_t unit = exponent + q * bits;  // a level below all doubles holds nothing
        if (unit > 1023) continue;
        const double digit = std::nearbyint(std::ldexp(rest, static_cast<int>(-unit)));
        if (digit == 0) continue;
        out.level(q)[i] = digit;
        rest -= std::ldexp(digit, static_cast<int>(unit));
      }
    }
    out.carry(bits);
    return out;
  }

  int64_t size() const { return size_; }
  int64_t levels() const { return static_cast<int64_t>(levels_.size()); }
  const double* operator[](int64_t q) const { return levels_[static_cast<size_t>(q)].data(); }
  double* level(int64_t q) {
    while (levels() <= q) levels_.emplace_back(static_cast<size_t>(size_), 0.0);
    return levels_[static_cast<size_t>(q)].data();
  }

  // Digits back to at most half a base, and empty levels on top dropped.
  void carry(int bits) {
    const double base = static_cast<double>(int64_t{1} << bits), inverse = 1 / base;
    for (int64_t q = 0; q < levels(); ++q) {
      bool more = false;
      double* low = level(q);
      for (int64_t i = 0; i < size_ && !more; ++i) more = std::nearbyint(low[i] * inverse) != 0;
      if (!more) continue;
      double* high = level(q + 1);
      low = level(q);
      for (int64_t i = 0; i < size_; ++i) {
        const double up = std::nearbyint(low[i] * inverse);
        low[i] -= up * base;
        high[i] += up;
      }
    }
    while (!levels_.empty() && all_zero(levels_.back())) levels_.pop_back();
  }

  BigInt integer(int64_t i, int bits) const {
    BigInt out;
    for (int64_t q = levels(); q-- > 0;) out = out.shifted(bits) + BigInt(static_cast<int64_t>((*this)[q][i]));
    return out;
  }

 private:
  static bool all_zero(const std::vector<double>& values) {
    for (const double value : values)
      if (value != 0) return false;
    return true;
  }

  int64_t size_ = 0;
  std::vector<std::vector<double>> levels_;
};

}  // namespace pylinregion
