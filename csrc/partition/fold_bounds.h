// csrc/partition/fold_bounds.h -- the arithmetic of a fold's decisions: what a row can be on a slice, and what an open
// line contributes. One text for every device. docs/exactness.md, 5.2 and 5.6.
#pragma once
#include <cmath>

#include "../kink.h"
#include "../rounding.h"

namespace pylinregion {
namespace {

constexpr int kFoldOperations = 40;  // see 5.2: what a relaxed form and its bounds round, besides the sums of columns

// What rows of a layer are off by, of which `error` came in: row r by at most off(|W_r|, |b_r|).
struct RowsOff {
  double by_norm, by_bias;
  PLR_HD double off(double row_norm, double bias_size) const { return row_norm * by_norm + bias_size * by_bias; }
};
PLR_HD inline RowsOff rows_off(double error, double size, double gamma_of_row) {
  return {error + gamma_of_row * size, gamma_of_row};
}

// A line that is not settled: low < 0 < high, and its row is within `slack` of an affine function f. max(z, 0) is then
// within radius of slope f + middle.
struct Relaxed {
  double slope, middle, radius;
};
PLR_HD inline Relaxed relaxed(double low, double high, double slack) {
  const double width = high - low, slope = width > 0 ? high / width : 0.0;
  const double middle = -slope * low / 2;
  return {slope, middle, middle + slope * slack};
}
// With what the form itself rounds; `size` is that of the form on the slice.
PLR_HD inline double widened(double radius, double size) {
  return (radius + kFoldOperations * kUnit * (size + radius)) * kInflateNorm;
}

}  // namespace
}  // namespace pylinregion
