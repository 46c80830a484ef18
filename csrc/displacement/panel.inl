// csrc/displacement/panel.inl -- some rows of a matrix times a panel: some of its columns, each with a row of numbers.
// No packing: rows and columns are picked by their numbers, and all is in the cache.
#pragma once
#include <cstdint>

#include "bounds.h"

namespace pylinregion {
namespace {

constexpr int kTileRows = 6;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileWide = 4;  // 24 sums in 32 registers
#else
constexpr int kTileWide = 2;
#endif

template <class T> struct Panel {
  const T* numbers;  // [n][stride], whole vectors
  int64_t stride;
  const int32_t* column;  // [n]
  int64_t n;
};

// out[r][0 .. kWide) = sum over the panel of row[r][column] times its vectors from `at` on.
// The loops over rows are unrolled by force: GCC keeps the sums of narrow tiles in memory else.
template <class T, int kWide>
inline void tile(const T* const* row, const Panel<T>& panel, int64_t at, T* out, int64_t out_stride) {
  using L = Lanes<T>;
  const T* numbers = panel.numbers + at;
  int64_t k = 0;
  do {
    typename L::V sum[kTileRows][kWide];
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r)
      for (int w = 0; w < kWide; ++w) sum[r][w] = L::set(0);
    const int64_t begin = k, end = panel.n - k < kBlock ? panel.n : k + kBlock;
    for (; k < end; ++k, numbers += panel.stride) {
      typename L::V h[kWide];
      for (int w = 0; w < kWide; ++w) h[w] = L::load(numbers + w * L::count);
      const int64_t column = panel.column[k];
#pragma GCC unroll 6
      for (int r = 0; r < kTileRows; ++r) {
        const typename L::V weight = L::set(row[r][column]);
        for (int w = 0; w < kWide; ++w) sum[r][w] = L::multiply_add(weight, h[w], sum[r][w]);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r)
      for (int w = 0; w < kWide; ++w) {
        T* const to = out + r * out_stride + at + w * L::count;
        L::store(to, begin ? L::load(to) + sum[r][w] : sum[r][w]);
      }
  } while (k < panel.n);
}

// The same for `vectors` vectors.
template <class T>
void multiply(const T* const* row, const Panel<T>& panel, int64_t vectors, T* out, int64_t out_stride) {
  constexpr int64_t count = Lanes<T>::count;
  int64_t v = 0;
  if constexpr (kTileWide == 4) {
    for (; vectors - v > 4 || vectors - v == 4; v += vectors - v == 5 ? 3 : 4) {  // 5: 3 and 2 rather than 4 and 1
      if (vectors - v == 5)
        tile<T, 3>(row, panel, v * count, out, out_stride);
      else
        tile<T, 4>(row, panel, v * count, out, out_stride);
    }
    if (vectors - v == 3) tile<T, 3>(row, panel, v * count, out, out_stride), v += 3;
  }
  for (; vectors - v >= 2; v += 2) tile<T, 2>(row, panel, v * count, out, out_stride);
  if (v < vectors) tile<T, 1>(row, panel, v * count, out, out_stride);
}

}  // namespace
}  // namespace pylinregion
