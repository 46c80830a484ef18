// csrc/partition/cut.inl -- (Engine) where lines cut a cell.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Nearly equal lines cross where float64 values are noise; coordinates worth having then come from the integers.
inline NewVertex Engine::known_crossing(const Polygon& polygon, int64_t i, const RowOnPlane& line, double z_i,
                                        double z_next) {
  NewVertex v = crossing(polygon, i, line, z_i, z_next);
  if (!options_.cells || v.d <= shared_.blur) return v;
  const int64_t edge = polygon.n == 2 ? kAxisRow : polygon.edges[i]->number;
  const std::array<double, 2> exact = exact_.crossing(edge, line.number, on_.data());
  v.x = exact[0], v.y = exact[1];
  v.d = kRatio * std::max(std::fabs(v.x), std::fabs(v.y)) + kQuotientUnderflow;
  return v;
}

}  // namespace
}  // namespace pylinregion
