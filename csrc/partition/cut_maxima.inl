// csrc/partition/cut_maxima.inl -- Engine: a cell is cut along the upper envelope of a group's candidates: into their
// shares, on each of which one is the largest.
#pragma once
#include "engine.h"
#include "share_names.inl"

namespace pylinregion {
namespace {

// Of the first `size` candidates, a group; how many have a share.
PLR_STEP int64_t Engine::cut_into_shares(const Cell& cell, int64_t size, Share* shares) {
  int64_t n = 0;
  for (int64_t i = 0; i < size; ++i) shares[n++].candidate = i;
  // Again without those that win nowhere: of the winners each edge belongs to one pair alone.
  for (int64_t before = n + 1; n < before;) {
    const int64_t rivals = before = n;
    n = 0;
    int64_t* winners = arena_.take<int64_t>(rivals);
    each(rivals, [&](int64_t i) { winners[i] = shares[i].candidate; });
    for (int64_t i = 0; i < rivals; ++i) {
      Share share{winners[i], cell.polygon};
      if (clip_to_share(cell, winners, rivals, share)) shares[n++] = share;
    }
  }
  if (outside_.is_open()) return n;
  if (cell.polygon.n == 2)
    line_up(cell, shares, n);
  else if (options_.cells)
    ShareNames(*this, cell, size, shares, n).give();
  return n;
}

// Cuts a share to where its candidate is not below a rival; false if nothing is left.
PLR_ENGINE bool Engine::clip_to_share(const Cell& cell, const int64_t* rivals, int64_t n, Share& share) {
  const Unsettled& candidates = cell.unsettled;
  const int64_t i = share.candidate;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t j = rivals[k];
    if (j == i) continue;
    const Polygon polygon = share.polygon;
    int8_t* signs = arena_.take<int8_t>(polygon.n);
    double* z = arena_.take<double>(polygon.n);
    RowOnPlane& row = *arena_.take<RowOnPlane>(1);
    row = difference(candidates, i, j);
    bool some_above = false, some_below = false;
    for (int64_t v = 0; v < polygon.n; ++v) {
      signs[v] = static_cast<int8_t>(difference_sign(candidates, polygon, v, row, i, j, z[v]));
      some_above |= signs[v] > 0, some_below |= signs[v] < 0;
    }
    decisions_.filter += polygon.n;
    if (options_.pieces) see_zeros(polygon, signs);
    if (!some_below && (some_above || i < j)) continue;
    if (!some_above) return false;
    row.number = pair_of(candidates, std::min(i, j), std::max(i, j));
    Polygon below;
    cut_in_two(arena_, polygon, &row, signs, share.polygon, below, [&](int64_t e) {
      NewVertex cut = known_crossing(polygon, e, row, z[e], z[e + 1 == polygon.n ? 0 : e + 1]);
      cut.key = VertexKey{0, 0};
      return cut;
    });
  }
  return true;
}

// The shares of a segment from its start to its end; each starts where the one before it ends.
PLR_ENGINE void Engine::line_up(const Cell& cell, Share* shares, int64_t n) {
  for (int64_t i = 1; i < n; ++i)
    for (int64_t k = i; k > 0; --k) {
      const int64_t p = shares[k - 1].candidate, q = shares[k].candidate;
      double z;
      if (difference_sign(cell.unsettled, cell.polygon, 0, difference(cell.unsettled, p, q), p, q, z) > 0) break;
      const Share first = shares[k - 1], second = shares[k];
      put(shares[k - 1], second), put(shares[k], first);
    }
  for (int64_t i = 1; i < n; ++i) {
    const Polygon &before = shares[i - 1].polygon, &after = shares[i].polygon;
    after.x[0] = before.x[1], after.y[0] = before.y[1], after.d[0] = before.d[1];
    after.edges[0] = before.edges[1];
  }
}

}  // namespace
}  // namespace pylinregion
