// csrc/partition/chords.inl -- Engine: the cells of the last stage are only counted: k chords of a convex polygon
// with I crossings inside make 1 + k + I cells, when no three meet in a point and no two on the border. What is not
// certain is left to cutting.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

constexpr int64_t kMostChords = 12;  // of a cell that is counted: it takes their number cubed
constexpr int64_t kMostCorners = 8;  // of such a cell

// Counts the cells that the unsettled lines make of a cell; false if not all of that is certain.
PLR_STEP bool Engine::count_chords(const Cell& cell) {
  const int64_t k = cell.unsettled.n;
  int64_t crossings = 0;
  if (k > kMostChords) return false;
  Chord chords[kMostChords];
  if (k > 1 || options_.pieces) {
    for (int64_t i = 0; i < k; ++i)
      if (!chord_of(cell, i, chords[i])) return false;
    bool meet[kMostChords][kMostChords];
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = i + 1; j < k; ++j) {
        const int crossed = interleave(chords[i], chords[j]);
        if (crossed < 0) return false;
        meet[i][j] = crossed;
        crossings += crossed;
      }
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = i + 1; j < k; ++j)
        for (int64_t l = j + 1; l < k; ++l)
          if (meet[i][j] && meet[i][l] && meet[j][l] && !certain_at_crossing(cell, i, j, l)) return false;
  }
  if (options_.changes) each(k, [&](int64_t i) { tally_.sides[cell.unsettled.line[i]] = kSomeOn | kSomeOff; });
  if (options_.pieces) {  // the cell's own along each border, and one more for each end of a chord
    see_pieces(cell.polygon, cell.stage);
    for (int64_t i = 0; i < k; ++i)
      for (const int64_t edge : {chords[i].from.edge, chords[i].to.edge}) {
        const int64_t row = cell.polygon.edges[edge]->number;
        if (is_border(row)) add_to(tally_.pieces[cell.stage * system_.n_corners + border_of(row)], 1);
      }
  }
  const int64_t cells = 1 + k + crossings;
  add_to(tally_.regions[cell.stage], cells);
  outside_.count(cells);
  return true;
}

// False if it is not certain, or the polygon has too many vertices.
PLR_ENGINE bool Engine::chord_of(const Cell& cell, int64_t k, Chord& chord) const {
  const Polygon& polygon = cell.polygon;
  if (polygon.n > kMostCorners) return false;
  const double a = cell.unsettled.a[k], b = cell.unsettled.b[k];
  const V z = multiply_add(set(a), load(polygon.x), multiply_add(set(b), load(polygon.y), set(cell.unsettled.c[k])));
  const V t = (set(cell.unsettled.p[k]) + set(std::fabs(a) + std::fabs(b)) * load(polygon.d)) * set(factor_);
  const uint32_t all = first_lanes(polygon.n), up = above(z, set(0)) & all;
  if ((above(abs(z), t + t) & all) != all) return false;
  const uint32_t ends = up ^ (up >> 1 | (up << (polygon.n - 1) & all));  // edges whose ends are on different sides
  if (count_bits(ends) != 2) return false;
  const auto end_at = [&](int64_t edge) {
    const int64_t next = edge + 1 == polygon.n ? 0 : edge + 1;
    const double here = lane(z, edge), there = lane(z, next), width = std::fabs(here - there);
    return ChordEnd{edge, std::fabs(here) / width,
                    2 * std::max(lane(t, edge), lane(t, next)) / width * kInflate + 16 * kUnit};
  };
  chord = {end_at(lowest_bit(ends)), end_at(highest_bit(ends))};
  return true;
}

// 1 if the chords cross inside, 0 if not, -1 if that is not certain.
PLR_ENGINE int Engine::interleave(const Chord& p, const Chord& q) {
  const auto order = [](const ChordEnd& a, const ChordEnd& b) {
    if (a.edge != b.edge) return a.edge < b.edge ? -1 : 1;
    const double gap = a.error + b.error + 4 * kUnit;
    return a.t < b.t - gap ? -1 : a.t > b.t + gap ? 1 : 0;
  };
  const int a = order(p.from, q.from), b = order(p.from, q.to), c = order(p.to, q.from), d = order(p.to, q.to);
  if (!a || !b || !c || !d) return -1;
  const bool from_inside = a < 0 && c > 0, to_inside = b < 0 && d > 0;  // of q's ends between p's
  return from_inside != to_inside;
}

PLR_ENGINE bool Engine::certain_at_crossing(const Cell& cell, int64_t i, int64_t j, int64_t l) const {
  const Unsettled& r = cell.unsettled;
  const RowOnPlane p{r.a[i], r.b[i], r.c[i], r.p[i], 0}, q{r.a[j], r.b[j], r.c[j], r.p[j], 0};
  const double det = p.a * q.b - q.a * p.b;
  const double x = (p.b * q.c - q.b * p.c) / det, y = (q.a * p.c - p.a * q.c) / det;
  const double z = r.a[l] * x + r.b[l] * y + r.c[l];
  return std::fabs(z) > threshold(r.a[l], r.b[l], r.p[l], vertex_error(p, q, x, y));
}

}  // namespace
}  // namespace pylinregion
