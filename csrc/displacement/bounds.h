// csrc/displacement/bounds.h -- what decides in a chain: how far rows move and how far they are off, and the kink of a
// neuron at the vertices. g++ compiles it for the CPU's walk, nvcc for the kernel: one text, one answer. Internal
// linkage, see ../sign_changes_row.inl. The proofs: docs/exactness.md, 12.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "../kink.h"
#include "../rounding.h"
#include "chain.h"

namespace pylinregion {
namespace {

constexpr double kLargest = std::numeric_limits<double>::max();

PLR_HD inline double gamma(int64_t products, double unit) { return static_cast<double>(products + 4) * unit * kSlack; }
// A sum over n products: kBlock products are summed, then the blocks.
constexpr int64_t kBlock = 32;
// How many roundings the most-rounded product goes through, and product k.
PLR_HD inline int64_t roundings(int64_t n) { return n < kBlock ? n : kBlock + (n + kBlock - 1) / kBlock; }
PLR_HD inline int64_t roundings_of(int64_t k, int64_t n) {
  const int64_t block = k / kBlock, end = (block + 1) * kBlock;
  return (end < n ? end : n) - k + (n + kBlock - 1) / kBlock - block;
}

// What the kinks' own arithmetic rounds, for displacements of this size.
template <class T> PLR_HD inline double changed(const ChainLayer& layer, double size) {
  return (layer.slope ? 6 * (1 + 2 * layer.steepest) : 6) * kUnitOf<T> * size * kSlack;
}
template <class T> PLR_HD inline double tiny(const ChainLayer& layer) {
  return kUnderflowOf<T> * layer.steepest * static_cast<double>(layer.neurons);
}

// The rows of the first layer of a split. Row i moves by reach(i) at most among the vertices, and its stored
// pre-activations are off by off(i) at most.
template <class T> struct SplitRows {
  const double *row_norm, *bias_size, *direction_size;
  double radius, size, g;

  PLR_HD SplitRows(const ChainLayer& layer, const double* direction_size_, double norm, double radius_)
      : row_norm(layer.row_norm),
        bias_size(layer.bias_size),
        direction_size(direction_size_),
        radius(radius_),
        size(norm + radius_),
        g(gamma(layer.inputs, kUnit)) {}
  PLR_HD double reach(int64_t i) const { return radius * direction_size[i] * kSlack; }
  PLR_HD double off(int64_t i) const {
    return g * kSlack * (row_norm[i] * size + bias_size[i]) + 4 * kUnitOf<T> * (radius * direction_size[i]) +
           kUnderflowOf<T>;
  }
  // How far what the kinks make of all rows is off, in the 2-norm.
  PLR_HD double error(const ChainLayer& layer, double direction_norm) const {
    return layer.steepest * g * (layer.frobenius * size + layer.bias_norm) * kSlack +
           changed<T>(layer, radius * direction_norm) + tiny<T>(layer);
  }
};

// A sum in an order that a warp can keep: number k goes to part k % kSumParts, then halves of these are added.
constexpr int kSumParts = 32;

// What of a layer's weights takes part, as sums of squares. Rows: those that are looked at. Columns: those of the
// panel's n rows, row k's times the square of what its products are rounded by.
struct Part {
  double rows, columns;
};
template <class T> PLR_HD inline double weighted(double column_square, int64_t k, int64_t n) {
  const double g = gamma(roundings_of(k, n), kUnitOf<T>);
  return g * g * column_square;
}

// The same of a layer that is applied to n rows of displacements: |o_p| + |e_p| <= displacement for all pairs, in
// 2-norms; c + e_p +- o_p is off by error at most, in the 2-norm.
template <class T> struct PanelRows {
  const double *row_norm, *bias_size;
  double displacement, before, g, g64, point, to_reach, w_off, b_off;

  PLR_HD PanelRows(const ChainLayer& layer, int64_t n, double norm, double displacement_, double error_before)
      : row_norm(layer.row_norm),
        bias_size(layer.bias_size),
        displacement(displacement_),
        before(error_before),
        g(gamma(roundings(n), kUnitOf<T>)),
        g64(gamma(layer.inputs, kUnit)),
        point(g64 * norm),
        to_reach(displacement_ * kSlack),
        w_off((g * displacement_ + point + error_before) * kSlack),
        b_off(g64 * kSlack) {}
  PLR_HD double reach(int64_t i) const { return row_norm[i] * to_reach; }
  PLR_HD double off(int64_t i) const { return row_norm[i] * w_off + bias_size[i] * b_off + kUnderflowOf<T>; }
  PLR_HD double error(const ChainLayer& layer, const Part& part) const {
    const double rows = std::sqrt(part.rows), columns = std::sqrt(part.columns);
    const double spectral = rows < layer.spectral ? rows : layer.spectral;
    const double products = g * rows < columns ? g * rows : columns;
    return layer.steepest * kSlack *
               (spectral * before + products * displacement + rows * point + g64 * layer.bias_norm) +
           changed<T>(layer, spectral * displacement) + tiny<T>(layer);
  }
};

// Given vertices, for the sum of the squares of the largest |up| + |down| of each input.
template <class T> PLR_HD inline double error_of_vertices(double squares, int64_t inputs) {
  return 8 * kUnitOf<T> * std::sqrt(squares) * kSlack + kUnderflowOf<T> * static_cast<double>(inputs);
}

// |o_p| + |e_p| of one pair, of sums of squares, and a bound for all pairs from the largest of these, over `rows` rows.
template <class T> PLR_HD inline double size_of_pair(T odd, T even) {
  return std::sqrt(static_cast<double>(odd)) + std::sqrt(static_cast<double>(even));
}
template <class T> PLR_HD inline double displacement_bound(double most, int64_t n_rows) {
  const double rows = static_cast<double>(n_rows), unit = kUnitOf<T>, lost = kUnderflowOf<T>;
  return n_rows ? most * (1 + (rows + 4) * 2 * unit) + 2 * std::sqrt(rows * lost) : 0;
}

// Whether all vertices are on the side of the point, whose pre-activation is z. A row without weights is its bias.
PLR_HD inline bool is_settled(double z, double reach, double off, double row_norm) {
  return (std::fabs(z) > reach + off) | (row_norm == 0);
}
// Whether the next layer takes a row all of whose vertices are on the side of the point.
PLR_HD inline bool is_passed_on(double z, double slope) { return (z > 0) | (slope != 0); }

// A kink at vectors of pairs, for a neuron that is z at the point and not settled. L: Lanes, see ../lanes_avx512.h.
template <class L, class T> class Bend {
  using V = typename L::V;

 public:
  PLR_HD Bend(double z, double off, T slope)
      : on_(z > 0 ? ~uint64_t{0} : 0),
        sloped_(slope != 0),
        t_(L::set(static_cast<T>(-z))),
        base_(L::set(static_cast<T>(-z) < T(0) ? T(0) : static_cast<T>(-z))),
        bound_(L::set(static_cast<T>((off + 4 * kUnitOf<T> * std::fabs(z)) * kSlack))),
        below_(L::set(slope)),
        rise_(L::set(T(1) - slope)),
        half_(L::set(T(0.5))) {}

  // Of vertices that are displaced by s, bits: those on another side than the point, and those whose side is proven.
  PLR_HD uint64_t flips(V s) const { return L::above(s, t_) ^ on_; }
  PLR_HD uint64_t sure(V s) const { return L::above(s - t_, bound_) | L::above(t_ - s, bound_); }
  // The displacements o and e behind the kink, of those of the plus and the minus vertices.
  PLR_HD void apply(V plus, V minus, V& odd, V& even) const {
    V up = L::max(plus, t_) - base_, down = L::max(minus, t_) - base_;
    if (sloped_) up = below_ * plus + rise_ * up, down = below_ * minus + rise_ * down;
    odd = half_ * (up - down), even = half_ * (up + down);
  }

 private:
  uint64_t on_;
  bool sloped_;
  V t_, base_, bound_, below_, rise_, half_;
};

}  // namespace
}  // namespace pylinregion
