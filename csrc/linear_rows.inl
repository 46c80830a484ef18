// csrc/linear_rows.inl -- the linear layer in one instruction set: a tile of rows times a panel of columns stays
// in registers while it runs down the inputs. The includer defines PLR_LINEAR and the Lanes; everything else here
// has internal linkage (see sign_changes_row.inl).
#include "linear.h"

namespace pylinregion {
namespace {

constexpr int64_t kDepth = 1024;  // inputs per pass: a panel of that depth (256 KB) stays in the second-level cache

template <class T> constexpr int kGroup = 64 / sizeof(T);                 // numbers in a group
template <class T> constexpr int kVectors = kGroup<T> / Lanes<T>::count;  // vectors in a group

// Rows [0, kRows) of x times kWide vectors of a panel, added to y, or to the bias on the first pass.
template <class T, int kRows, int kWide> inline void tile(const T* x, int64_t x_stride, const T* panel,
                                                          int64_t panel_stride, int64_t depth, const T* bias, T* y,
                                                          int64_t y_stride, int64_t columns) {
  using L = Lanes<T>;
  typename L::V sum[kRows][kWide];
  const bool whole = columns >= kWide * L::count;
  for (int r = 0; r < kRows; ++r) {
    T line[kWide * L::count] = {};
    const T* from = bias ? bias : y + r * y_stride;
    if (!bias && !whole) {
      for (int64_t c = 0; c < columns; ++c) line[c] = from[c];
      from = line;
    }
    for (int w = 0; w < kWide; ++w) sum[r][w] = L::load(from + w * L::count);
  }
  for (int64_t k = 0; k < depth; ++k) {
    typename L::V weights[kWide];
    for (int w = 0; w < kWide; ++w) weights[w] = L::load(panel + k * panel_stride + w * L::count);
    for (int r = 0; r < kRows; ++r) {
      const typename L::V value = L::set(x[r * x_stride + k]);
      for (int w = 0; w < kWide; ++w) sum[r][w] = L::multiply_add(value, weights[w], sum[r][w]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    T* to = y + r * y_stride;
    if (whole) {
      for (int w = 0; w < kWide; ++w) L::store(to + w * L::count, sum[r][w]);
    } else {
      T line[kWide * L::count];
      for (int w = 0; w < kWide; ++w) L::store(line + w * L::count, sum[r][w]);
      for (int64_t c = 0; c < columns; ++c) to[c] = line[c];
    }
  }
}

template <class T, int kRows, int kWide> void rows_of_panel(const T* x, int64_t rows, int64_t in, const T* panel,
                                                            int64_t panel_stride, int64_t depth, const T* bias, T* y,
                                                            int64_t out, int64_t columns) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    tile<T, kRows, kWide>(x + r * in, in, panel, panel_stride, depth, bias, y + r * out, out, columns);
  for (; r < rows; ++r) tile<T, 1, kWide>(x + r * in, in, panel, panel_stride, depth, bias, y + r * out, out, columns);
}

// The registers hold 24 sums with 32 vectors (avx512, neon), 12 with 16: the fewer columns, the more rows.
template <class T> void panel_rows(int64_t groups, const T* x, int64_t rows, int64_t in, const T* panel, int64_t depth,
                                   const T* bias, T* y, int64_t out, int64_t columns) {
  const int64_t stride = groups * kGroup<T>;
  if constexpr (kVectors<T> == 1) {
    switch (groups) {
      case 4: return rows_of_panel<T, 6, 4>(x, rows, in, panel, stride, depth, bias, y, out, columns);
      case 3: return rows_of_panel<T, 8, 3>(x, rows, in, panel, stride, depth, bias, y, out, columns);
      case 2: return rows_of_panel<T, 12, 2>(x, rows, in, panel, stride, depth, bias, y, out, columns);
      default: return rows_of_panel<T, 12, 1>(x, rows, in, panel, stride, depth, bias, y, out, columns);
    }
  } else {  // one group at a time
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t from = g * kGroup<T>;
      rows_of_panel<T, 6, kVectors<T>>(x, rows, in, panel + from, stride, depth, bias ? bias + from : nullptr, y + from,
                                       out, columns - from);
    }
  }
}

template <class T> void run(const T* x, int64_t rows, const LinearLayer& layer, T* y) {
  const PanelPlan plan(layer.out, kGroup<T>);
  const T* packed = static_cast<const T*>(layer.packed);
  for (int64_t p = 0; p < plan.panels; ++p) {
    const int64_t groups = plan.width(p), first = plan.first_group(p) * kGroup<T>, stride = groups * kGroup<T>;
    const T* bias = packed + first * (1 + layer.in);
    const T* panel = bias + stride;
    int64_t k = 0;
    do {
      const int64_t depth = layer.in - k < kDepth ? layer.in - k : kDepth;
      panel_rows<T>(groups, x + k, rows, layer.in, panel + k * stride, depth, k == 0 ? bias : nullptr, y + first,
                    layer.out, layer.out - first);
      k += depth;
    } while (k < layer.in);
  }
}
}  // namespace

void PLR_LINEAR(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y) {
  if (dtype == DType::float64)
    run<double>(static_cast<const double*>(x), rows, layer, static_cast<double*>(y));
  else
    run<float>(static_cast<const float*>(x), rows, layer, static_cast<float*>(y));
}

}  // namespace pylinregion
