// csrc/partition/products.inl -- rows of numbers times packed weights, where many of the numbers are 0: the units of a
// ReLU layer along a segment. Included by trace.inl, once per instruction set.
#include "../linear.h"
#include "lanes.h"
#include "tile.h"
#include "trace.h"

namespace pylinregion {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileWide = 4;
#elif defined(__AVX2__)
constexpr int kTileRows = 3, kTileWide = 2;
#else
constexpr int kTileRows = 3, kTileWide = 1;
#endif

// The numbers of the columns [0, width) in which any of some rows is not 0; `to` has room for whole vectors.
template <int kRows> int64_t used_columns(const double* const* x, int64_t width, int32_t* to) {
  int32_t* const begin = to;
  int64_t c = 0;
#if defined(__AVX512F__)
  __m512i number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; c + 2 * kLanes <= width; c += 2 * kLanes) {
    uint32_t some = 0;
    for (int r = 0; r < kRows; ++r)
      for (int half = 0; half < 2; ++half) {
        const __m512d v = _mm512_loadu_pd(x[r] + c + half * kLanes);
        some |= static_cast<uint32_t>(_mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ)) << (half * kLanes);
      }
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(some), number));
    to += __builtin_popcount(some);
    number = _mm512_add_epi32(number, _mm512_set1_epi32(2 * kLanes));
  }
#endif
  for (; c < width; ++c) {
    bool some = false;
    for (int r = 0; r < kRows; ++r) some |= x[r][c] != 0;
    *to = static_cast<int32_t>(c);
    to += some;
  }
  return to - begin;
}

// Rows x some columns of them x a panel's columns, from vector `at` on.
struct Tile {
  const double* const* x;
  const int32_t* columns;
  int64_t n;
  const double* panel;
  int64_t vectors;  // that the panel is wide
  double* const* out;
  double* sums;  // what comes out is added there, absolutely
  int64_t first;
  bool more;  // added to out
};

template <int kRows, int kWide> inline void multiply_tile(const Tile& tile, int64_t vector) {
  const int64_t at = tile.first + vector * kLanes, stride = tile.vectors * kLanes;
  const double* const panel = tile.panel + vector * kLanes;
  V sum[kRows][kWide];
  for (int r = 0; r < kRows; ++r)
    for (int w = 0; w < kWide; ++w) sum[r][w] = tile.more ? load(tile.out[r] + at + w * kLanes) : V{};
  add_products<kRows, kWide, false>(
      sum, tile.n, [&](int64_t i) { return panel + tile.columns[i] * stride; },
      [&](int r, int64_t i) { return tile.x[r][tile.columns[i]]; });
  for (int w = 0; w < kWide; ++w) {
    V total = load(tile.sums + at + w * kLanes);
    for (int r = 0; r < kRows; ++r) {
      store(tile.out[r] + at + w * kLanes, sum[r][w]);
      total += abs(sum[r][w]);
    }
    store(tile.sums + at + w * kLanes, total);
  }
}

template <int kRows, int kWide> void multiply_tiles(const Tile& tile, int64_t vector) {
  for (; vector + kWide <= tile.vectors; vector += kWide) multiply_tile<kRows, kWide>(tile, vector);
  if constexpr (kWide > 1) multiply_tiles<kRows, kWide - 1>(tile, vector);
}

class Products {
 public:
  // out[i] = x[i] times the block's weights (more: added to out[i]) for n rows; sums += |out[i]|, in whole vectors.
  void multiply(const TraceBlock& block, int64_t padded_rows, const double* const* x, double* const* out, int64_t n,
                double* sums, bool more) {
    bands_.clear();
    columns_.resize(static_cast<size_t>((n + 1) * (block.width + 2 * kLanes)));  // there are no more bands than rows
    int64_t used = 0;
    for (int64_t r = 0; r < n;) {
      const int rows = n - r >= kTileRows ? kTileRows : static_cast<int>(std::min<int64_t>(n - r, 3));
      Band band{r, rows, used, 0};
      with(rows, [&](auto count) { band.n = used_columns<count>(x + r, block.width, columns_.data() + used); });
      used += band.n;
      bands_.push_back(band);
      r += rows;
    }
    const PanelPlan plan(padded_rows, kLanes);
    for (int64_t p = 0; p < plan.panels; ++p) {
      const int64_t first = plan.first_group(p) * kLanes;
      const double* panel = block.packed.data() + first * block.width;
      for (const Band& band : bands_) {
        const Tile tile{
            x + band.row, columns_.data() + band.begin, band.n, panel, plan.width(p), out + band.row, sums, first,
            more};
        with(band.rows, [&](auto count) { multiply_tiles<count, kTileWide>(tile, 0); });
      }
    }
  }

 private:
  struct Band {
    int64_t row;
    int rows;
    int64_t begin, n;  // its columns
  };
  template <class Work> static void with(int rows, const Work& work) {
    switch (rows) {
      case 1: return work(std::integral_constant<int, 1>());
      case 2: return work(std::integral_constant<int, 2>());
      case 3: return work(std::integral_constant<int, 3>());
      default: return work(std::integral_constant<int, kTileRows>());
    }
  }

  std::vector<Band> bands_;
  std::vector<int32_t> columns_;
};

}  // namespace
}  // namespace pylinregion
