// csrc/partition/bigint.h -- integers of any size, for the last step of an exact decision: a 3x3 determinant.
// Small and plain; what takes time runs in doubles before it (digits.h).
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

namespace pylinregion {

class BigInt {
 public:
  BigInt() = default;
  explicit BigInt(int64_t value) : negative_(value < 0) {
    uint64_t magnitude = negative_ ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
    for (; magnitude; magnitude >>= 32) limbs_.push_back(static_cast<uint32_t>(magnitude));
  }

  // The quotient as a double; the divisor is not 0. Off by at most 6 * 2^-53 of itself, each of the two leading parts
  // by 2 roundings and 2^-64 that are cut off, their quotient by another; or by 2^-1074 where it underflows.
  static double ratio(const BigInt& x, const BigInt& y) {
    if (x.limbs_.empty()) return 0;
    int64_t x_exponent, y_exponent;
    const double high = x.leading(x_exponent), low = y.leading(y_exponent);
    const int64_t exponent = x_exponent - y_exponent;
    const int clamped = exponent > 4000 ? 4000 : exponent < -4000 ? -4000 : static_cast<int>(exponent);
    return (x.negative_ == y.negative_ ? 1 : -1) * std::ldexp(high / low, clamped);
  }

  int sign() const { return limbs_.empty() ? 0 : negative_ ? -1 : 1; }
  BigInt operator-() const {
    BigInt out = *this;
    if (!limbs_.empty()) out.negative_ = !negative_;
    return out;
  }
  BigInt operator+(const BigInt& other) const {
    if (negative_ == other.negative_) return make(add(limbs_, other.limbs_), negative_);
    const int order = compare(limbs_, other.limbs_);
    if (order == 0) return BigInt();
    return order > 0 ? make(subtract(limbs_, other.limbs_), negative_)
                     : make(subtract(other.limbs_, limbs_), other.negative_);
  }
  BigInt operator-(const BigInt& other) const { return *this + -other; }
  BigInt operator*(const BigInt& other) const {
    if (limbs_.empty() || other.limbs_.empty()) return BigInt();
    Limbs out(limbs_.size() + other.limbs_.size(), 0);
    for (size_t i = 0; i < limbs_.size(); ++i) {
      uint64_t carry = 0;
      for (size_t j = 0; j < other.limbs_.size(); ++j) {
        carry += out[i + j] + uint64_t{limbs_[i]} * other.limbs_[j];
        out[i + j] = static_cast<uint32_t>(carry);
        carry >>= 32;
      }
      out[i + other.limbs_.size()] = static_cast<uint32_t>(carry);
    }
    return make(std::move(out), negative_ != other.negative_);
  }
  BigInt shifted(int64_t bits) const {  // times 2^bits, bits >= 0
    if (limbs_.empty() || bits == 0) return *this;
    const size_t words = static_cast<size_t>(bits / 32);
    const int rest = static_cast<int>(bits % 32);
    Limbs out(limbs_.size() + words + 1, 0);
    for (size_t i = 0; i < limbs_.size(); ++i) {
      const uint64_t wide = uint64_t{limbs_[i]} << rest;
      out[i + words] |= static_cast<uint32_t>(wide);
      out[i + words + 1] |= static_cast<uint32_t>(wide >> 32);
    }
    return make(std::move(out), negative_);
  }

 private:
  using Limbs = std::vector<uint32_t>;  // least significant first, no leading zeros

  static BigInt make(Limbs limbs, bool negative) {
    while (!limbs.empty() && limbs.back() == 0) limbs.pop_back();
    BigInt out;
    out.negative_ = negative && !limbs.empty();
    out.limbs_ = std::move(limbs);
    return out;
  }
  // The size, as result * 2^exponent.
  double leading(int64_t& exponent) const {
    double value = 0;
    const size_t used = limbs_.size() < 3 ? limbs_.size() : 3;
    for (size_t i = 0; i < used; ++i) value = value * 4294967296.0 + limbs_[limbs_.size() - 1 - i];
    exponent = 32 * static_cast<int64_t>(limbs_.size() - used);
    return value;
  }
  static int compare(const Limbs& a, const Limbs& b) {
    if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
    for (size_t i = a.size(); i-- > 0;)
      if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
  }
  static Limbs add(const Limbs& a, const Limbs& b) {
    Limbs out;
    uint64_t carry = 0;
    for (size_t i = 0; i < a.size() || i < b.size() || carry; ++i) {
      carry += (i < a.size() ? a[i] : 0u) + uint64_t{i < b.size() ? b[i] : 0u};
      out.push_back(static_cast<uint32_t>(carry));
      carry >>= 32;
    }
    return out;
  }
  static Limbs subtract(const Limbs& a, const Limbs& b) {  // a >= b
    Limbs out;
    int64_t borrow = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      int64_t limb = int64_t{a[i]} - (i < b.size() ? b[i] : 0u) - borrow;
      borrow = limb < 0;
      out.push_back(static_cast<uint32_t>(limb + (borrow << 32)));
    }
    return out;
  }

  Limbs limbs_;
  bool negative_ = false;
};

}  // namespace pylinregion
