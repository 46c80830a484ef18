// csrc/partition/cut.inl -- Engine: a cell is cut in two by a line that crosses it.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Where the first unsettled line is on, and where it is off; whether the first vertex is in the second.
PLR_STEP bool Engine::cut_by_first(const Cell& cell, Polygon& above, Polygon& below) {
  const Unsettled& all = cell.unsettled;
  const Polygon& polygon = cell.polygon;
  int8_t* signs = arena_.take<int8_t>(padded(polygon.n));
  double* z = arena_.take<double>(padded(polygon.n));
  vertex_signs(cell, 0, signs, z);
  if (options_.pieces) see_zeros(polygon, signs);
  RowOnPlane* line = arena_.take<RowOnPlane>(1);
  *line = {all.a[0], all.b[0], all.c[0], all.p[0], system_.number_of(all.line[0])};
  cut_in_two(arena_, polygon, line, signs, above, below,
             [&](int64_t i) { return known_crossing(polygon, i, *line, z[i], z[i + 1 == polygon.n ? 0 : i + 1]); });
  return signs[0] < 0;
}

// Nearly equal lines cross where float64 values are noise; coordinates worth having then come from the integers.
PLR_ENGINE NewVertex Engine::known_crossing(const Polygon& polygon, int64_t i, const RowOnPlane& line, double z_i,
                                            double z_next) {
  NewVertex v = crossing(polygon, i, line, z_i, z_next);
  if (!options_.cells || v.d <= shared_.blur) return v;
  const int64_t edge = polygon.n == 2 ? kAxisRow : polygon.edges[i]->number;
  const Place exact = outside_.crossing(edge, line.number, on_);
  v.x = exact.x, v.y = exact.y;
  v.d = kRatio * std::max(std::fabs(v.x), std::fabs(v.y)) + kQuotientUnderflow;
  return v;
}

}  // namespace
}  // namespace pylinregion
