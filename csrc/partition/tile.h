// csrc/partition/tile.h -- the small matrix product of the engine and the tracer: a tile of sums that stays in
// registers. Internal linkage: see ../sign_changes_row.inl for why.
#pragma once
#include <cstdint>

#include "lanes.h"

namespace pylinregion {
namespace {

// sum[r][w] += factor(r, i) times vector w of the numbers from row(i) on, for i in [0, n), in rising order. kSizes: the
// last row takes the sizes of these numbers.
template <int kRows, int kWide, bool kSizes, class Row, class Factor>
PLR_ENGINE void add_products(V (&sum)[kRows][kWide], int64_t n, const Row& row, const Factor& factor) {
  for (int64_t i = 0; i < n; ++i) {
    const double* numbers = row(i);
    V vector[kWide];
    for (int w = 0; w < kWide; ++w) vector[w] = load(numbers + w * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const V times = set(factor(r, i));
      for (int w = 0; w < kWide; ++w)
        sum[r][w] = multiply_add(times, kSizes && r + 1 == kRows ? abs(vector[w]) : vector[w], sum[r][w]);
    }
  }
}

}  // namespace
}  // namespace pylinregion
