// csrc/partition/linear_map.h -- what a stage's rows take from the units of another: y = W x with stored numbers, as a
// matrix, as a few terms for each row, or as a convolution, of which no matrix is formed. Views of arrays that the
// caller keeps (pylinregion/lowering/linear_maps.py has their layout).
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "scaled.h"

namespace pylinregion {

// [outputs, inputs], the same for each of some places: y[p] = W x[p].
struct DenseMap {
  int64_t outputs, inputs, places;
};
// y_r = sum over k of numbers[r, k] x[place[r, k]].
struct TermsMap {
  const int64_t* place;  // [rows, terms]
  int64_t terms;
};
// Any sizes, also such as torch never gives: what a window has outside of the source is 0, and is not read.
// numbers: [out channels, in channels / groups, kernel]; three dimensions, the first of them 1 where there are fewer.
struct ConvolutionMap {
  std::array<int64_t, 3> source, target, kernel, stride, padding, dilation;
  int64_t in_channels, out_channels, groups;
  bool transposed;  // from target to source
};

struct LinearMap {
  enum class Kind { dense, terms, convolution } kind = Kind::dense;
  int64_t rows = 0, width = 0;
  const double* numbers = nullptr;
  int64_t count = 0;     // of the numbers
  int64_t products = 0;  // at least the products that a row or a column sums
  DenseMap dense{};
  TermsMap few{};
  ConvolutionMap convolution{};

  static LinearMap of_matrix(const double* weight, int64_t rows, int64_t width) {
    LinearMap out;
    out.rows = rows, out.width = width;
    out.numbers = weight;
    out.count = rows * width;
    out.products = std::max(rows, width);
    out.dense = {rows, width, 1};
    return out;
  }
};

// A map in digits.
class DigitMap {
 public:
  DigitMap(const LinearMap& map, const ScaledArithmetic& arithmetic)
      : map_(map), arithmetic_(arithmetic), numbers_(arithmetic.vector(map.numbers, map.count)) {}

  Scaled times(const Scaled& x) const { return applied(x, map_.rows, true); }   // W x
  Scaled back(const Scaled& g) const { return applied(g, map_.width, false); }  // g W
  int64_t rows() const { return map_.rows; }

 private:
  Scaled applied(const Scaled& x, int64_t size, bool forwards) const;
  std::vector<double> convolved(const Digits& x, const double* weights, int64_t size, bool forwards) const;
  // out += the part of x's and the map's digits of one level each.
  void add_dense(const double* x, const double* w, double* out, bool forwards) const;
  void add_terms(const double* x, const double* w, double* out, bool forwards) const;

  LinearMap map_;
  ScaledArithmetic arithmetic_;
  Scaled numbers_;
};

}  // namespace pylinregion
