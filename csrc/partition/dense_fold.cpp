// csrc/partition/dense_fold.cpp -- see dense_fold.h.
#include "dense_fold.h"

#include <algorithm>
#include <cmath>

#include "../rounding.h"
#include "../simd.h"

namespace pylinregion {
namespace {

// These decide nothing but what takes less time.
constexpr double kMany = 0.5;        // decisions that are expected to be left to integers: other bounds take longer
constexpr double kCoordinate = 1e6;  // times as many corners as decisions: a corner is asked for to 1e-6 of the slice

// What a row changes by on a slice, about.
double change_on(const FoldShape& shape, int64_t slice, const double* slopes) {
  double change = 0;
  for (int64_t k = 0; k < shape.axes; ++k) {
    double span = shape.radii ? shape.radii[slice] : 0;
    for (int64_t i = 0; !shape.radii && i < shape.n_corners; ++i)
      span = std::max(span, std::fabs(shape.corners[2 * (slice * shape.n_corners + i) + k]));
    change = shape.radii ? std::max(change, std::fabs(slopes[k]) * span) : change + std::fabs(slopes[k]) * span;
  }
  return change;
}

}  // namespace

void find_loose(const FoldShape& shape, bool cells, std::vector<SliceFold>& folds) {
  for (int64_t slice = 0; slice < shape.slices; ++slice) {
    SliceFold& fold = folds[static_cast<size_t>(slice)];
    const double decisions = static_cast<double>(fold.lines.size());  // of a row: against each of its slice, about
    const double* row = fold.taken.data();
    double expected = 0;
    for (size_t stage = 0, line = 0; stage + 1 < fold.births.size(); ++stage)
      for (; line < static_cast<size_t>(fold.births[stage + 1]); ++line) {
        const double share = fold.errors[line] / change_on(shape, slice, row) * (cells ? kCoordinate : 1);
        expected += decisions * (share < 1 ? share : 1.0);
        row += shape.axes + fold.births[stage];
      }
    fold.loose |= expected > kMany;
  }
}

FoldFunction fold_function() {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return fold_stage_avx512;
  if (simd() == Simd::avx2) return fold_stage_avx2;
#endif
  return fold_stage_portable;
}

}  // namespace pylinregion
