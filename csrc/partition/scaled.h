// csrc/partition/scaled.h -- exact vectors and matrices: integers of any size times a power of two, and their
// arithmetic.
#pragma once
#include <cmath>
#include <cstdint>
#include <utility>

#include "digits.h"

namespace pylinregion {

// Integers times 2^exponent; not present: none has been added yet.
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

// Arithmetic with digits of some bits: of so many products of two digits, and what a carry leaves, the sum is exact, so
// that carries are due. Digits of 20 bits and the products that fit take any numbers. Where all sums are known to be
// short, digits may be wider, and no carry is due before a sum is complete.
class ScaledArithmetic {
 public:
  static constexpr int64_t kAnyProducts = INT64_MAX;
  static ScaledArithmetic of_any_length() {
    constexpr int bits = 20;
    return {bits, (int64_t{1} << (53 - 2 * (bits - 1))) - 1};
  }
  ScaledArithmetic(int bits, int64_t products) : bits_(bits), products_(products) {}

  Scaled vector(const double* x, int64_t size) const {
    const int64_t exponent = BitRange(x, size).exponent();
    return {Digits::from(x, size, exponent, bits_), exponent, true};
  }
  Matrix matrix(const double* x, int64_t rows, int64_t columns) const {
    Scaled numbers = vector(x, rows * columns);
    return {std::move(numbers.digits), columns, numbers.exponent};
  }
  int64_t products() const { return products_; }
  void carry(Digits& x) const { x.carry(bits_); }
  BigInt integer(const Scaled& x, int64_t i) const { return x.present ? x.digits.integer(i, bits_) : BigInt(); }

  // to += what, at the finer of the two scales.
  void add(Scaled& to, Scaled what) const {
    if (!to.present) {
      to = std::move(what);
      return;
    }
    if (what.exponent > to.exponent)
      rescale(what, to.exponent);
    else
      rescale(to, what.exponent);
    for (int64_t q = 0; q < what.digits.levels(); ++q) {
      double* sum = to.digits.level(q);
      for (int64_t i = 0; i < to.digits.size(); ++i) sum[i] += what.digits[q][i];
    }
    to.digits.carry(bits_);
  }

  // x *= integer: |integer| times the largest digit must be below 2^52.
  void multiply(Scaled& x, double integer) const {
    if (!x.present) return;
    for (int64_t q = 0; q < x.digits.levels(); ++q) {
      double* digits = x.digits.level(q);
      for (int64_t i = 0; i < x.digits.size(); ++i) digits[i] *= integer;
    }
    x.digits.carry(bits_);
  }

  // x times a matrix [size of x, columns].
  Scaled product(const Scaled& x, const Matrix& w) const {
    Digits out(w.columns);
    add_product(x.digits, 0, x.digits.size(), w, out, 0);
    out.carry(bits_);
    return {std::move(out), x.exponent + w.exponent, true};
  }
  // A matrix [rows, n] times a matrix [n, columns], as one vector.
  Scaled product(const Matrix& x, const Matrix& w) const {
    const int64_t n = x.columns, rows = x.digits.size() / n;
    Digits out(rows * w.columns);
    for (int64_t r = 0; r < rows; ++r) add_product(x.digits, r * n, n, w, out, r * w.columns);
    out.carry(bits_);
    return {std::move(out), x.exponent + w.exponent, true};
  }

  // Number by number.
  Scaled products(const Scaled& x, const Scaled& y) const {
    Digits out(x.digits.size());
    for (int64_t p = 0; p < x.digits.levels(); ++p)
      for (int64_t q = 0; q < y.digits.levels(); ++q) {
        double* to = out.level(p + q);
        for (int64_t i = 0; i < x.digits.size(); ++i) to[i] += x.digits[p][i] * y.digits[q][i];
      }
    out.carry(bits_);
    return {std::move(out), x.exponent + y.exponent, true};
  }

  // The sum of products, one number.
  Scaled dot(const Scaled& x, const Scaled& y) const {
    Digits out(1);
    int64_t sums = 0;
    for (int64_t p = 0; p < x.digits.levels(); ++p)
      for (int64_t q = 0; q < y.digits.levels(); ++q) {
        const double *left = x.digits[p], *right = y.digits[q];
        for (int64_t i = 0; i < x.digits.size();) {
          const int64_t end = std::min(x.digits.size(), i + products_ / 2);
          double sums_of[4] = {};  // in any order: all are exact
          for (; i + 4 <= end; i += 4)
            for (int64_t k = 0; k < 4; ++k) sums_of[k] += left[i + k] * right[i + k];
          for (; i < end; ++i) sums_of[0] += left[i] * right[i];
          const double sum = (sums_of[0] + sums_of[1]) + (sums_of[2] + sums_of[3]);
          // |sum| <= 2^52: two such numbers and what a carry leaves are exact.
          if (++sums > 1) out.carry(bits_);
          *out.level(p + q) += sum;
        }
      }
    out.carry(bits_);
    return {std::move(out), x.exponent + y.exponent, true};
  }

 private:
  // The same numbers as multiples of 2^exponent, which must not be above the present one.
  void rescale(Scaled& x, int64_t exponent) const {
    const int64_t up = x.exponent - exponent;
    if (up == 0) return;
    Digits moved(x.digits.size());
    const double factor = std::ldexp(1.0, static_cast<int>(up % bits_));
    for (int64_t q = 0; q < x.digits.levels(); ++q) {
      double* to = moved.level(q + up / bits_);
      for (int64_t i = 0; i < x.digits.size(); ++i) to[i] = x.digits[q][i] * factor;
    }
    moved.carry(bits_);
    x.digits = std::move(moved);
    x.exponent = exponent;
  }

  // out[at ...] += x[from ... from + n] times the matrix [n, columns], where out was 0; carried last by the caller.
  void add_product(const Digits& x, int64_t from, int64_t n, const Matrix& w, Digits& out, int64_t at) const {
    int64_t room = products_ - 1;  // products that may be added to one number before carries are due
    for (int64_t p = 0; p < x.levels(); ++p)
      for (int64_t q = 0; q < w.digits.levels(); ++q) {
        const double *factors = x[p] + from, *rows = w.digits[q];
        for (int64_t j = 0, end; j < n; j = end) {
          if (room == 0) {
            out.carry(bits_);
            room = products_ - 2;  // what a carry leaves counts as one
          }
          end = std::min(n, room < n ? j + room : n);
          room -= end - j;
          add_rows(factors, rows, j, end, w.columns, out.level(p + q) + at);
        }
      }
  }
  static void add_rows(const double* factors, const double* rows, int64_t begin, int64_t end, int64_t columns,
                       double* to) {
    for (int64_t j = begin; j < end; ++j) {
      const double digit = factors[j];
      if (digit == 0) continue;
      const double* row = rows + j * columns;
      for (int64_t k = 0; k < columns; ++k) to[k] += digit * row[k];
    }
  }

  int bits_;
  int64_t products_;
};

}  // namespace pylinregion
