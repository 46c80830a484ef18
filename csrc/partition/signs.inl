// csrc/partition/signs.inl -- Engine: the signs of a line at the vertices of a cell: by a filter, else by integers
// (docs/exactness.md, 6).
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

PLR_ENGINE double Engine::threshold(double a, double b, double p, double d) const {
  return (p + (std::fabs(a) + std::fabs(b)) * d) * factor_;
}

PLR_ENGINE int Engine::exact_sign(const Polygon& polygon, int64_t vertex, int64_t row) {
  ++decisions_.exact;
  const int sign = outside_.sign_at(polygon.first_row(vertex).number, polygon.second_row(vertex), row, on_);
  decisions_.zeros += sign == 0;
  return sign;
}

// Those of unsettled line k, proven; z holds its values. Both have room for whole vectors.
PLR_ENGINE void Engine::vertex_signs(const Cell& cell, int64_t k, int8_t* signs, double* z) {
  const Polygon& polygon = cell.polygon;
  const Unsettled& from = cell.unsettled;
  const double a = from.a[k], b = from.b[k], size = std::fabs(a) + std::fabs(b);
  for (int64_t v = 0; v < polygon.n; v += kLanes) {
    const V x = load(polygon.x + v), y = load(polygon.y + v), d = load(polygon.d + v);
    const V value = multiply_add(set(a), x, multiply_add(set(b), y, set(from.c[k])));
    const V t = (set(from.p[k]) + set(size) * d) * set(factor_);
    const uint32_t valid = first_lanes(polygon.n - v);
    uint32_t is_above = above(value, t) & valid, is_below = above(-value, t) & valid;
    store(z + v, value);
    for (uint32_t doubtful = valid & ~(is_above | is_below); doubtful; doubtful &= doubtful - 1) {
      const uint32_t bit = doubtful & -doubtful;
      const int sign = exact_sign(polygon, v + lowest_bit(bit), system_.number_of(from.line[k]));
      is_above |= sign > 0 ? bit : 0, is_below |= sign < 0 ? bit : 0;
    }
    put_signs(signs + v, is_above, is_below);
  }
}

}  // namespace
}  // namespace pylinregion
