// csrc/partition/settle_maxima.inl -- Engine: stages of maxima: their lines are candidates, in groups of consecutive
// ones (docs/exactness.md, 10). Which candidates may be the largest on a cell.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// The first row after `begin` of another group, of rows whose lines are line_of(begin), ...
template <class LineOf> PLR_ENGINE int64_t Engine::group_end(int64_t begin, int64_t end, LineOf&& line_of) const {
  const int32_t* group = system_.groups.of_line;
  int64_t i = begin + 1;
  const int32_t own = group[system_.number_of(line_of(begin))];
  while (i < end && group[system_.number_of(line_of(i))] == own) ++i;
  return i;
}
PLR_ENGINE int64_t Engine::group_end(const Unsettled& candidates, int64_t begin) const {
  return group_end(begin, candidates.n, [&](int64_t i) { return candidates.line[i]; });
}

// Candidate i less candidate j; the rounding of the difference is one of those that p prepays.
PLR_ENGINE RowOnPlane Engine::difference(const Unsettled& of, int64_t i, int64_t j) {
  return {of.a[i] - of.a[j], of.b[i] - of.b[j], of.c[i] - of.c[j], of.p[i] + of.p[j], 0};
}

// The number of candidate i less candidate j, of which i comes first in the network.
PLR_ENGINE int64_t Engine::pair_of(const Unsettled& of, int64_t i, int64_t j) const {
  return system_.groups.pair(system_.number_of(of.line[i]), system_.number_of(of.line[j]));
}

// The sign at a vertex of candidate i less candidate j, which is `row`; z: its value.
PLR_ENGINE int Engine::difference_sign(const Unsettled& candidates, const Polygon& polygon, int64_t v,
                                       const RowOnPlane& row, int64_t i, int64_t j, double& z) {
  z = row.a * polygon.x[v] + row.b * polygon.y[v] + row.c;
  const double t = threshold(row.a, row.b, row.error, polygon.d[v]);
  if (z > t) return 1;
  if (z < -t) return -1;
  return candidates.line[i] < candidates.line[j] ? exact_sign(polygon, v, pair_of(candidates, i, j))
                                                 : -exact_sign(polygon, v, pair_of(candidates, j, i));
}

// What float64 can tell of two candidates on a cell; with `exactly` what is true. Of equal ones the first wins.
PLR_ENGINE Contest Engine::contest(const Cell& cell, int64_t i, int64_t j, bool exactly) {
  const Polygon& polygon = cell.polygon;
  const RowOnPlane row = difference(cell.unsettled, i, j);
  bool above = false, below = false, open = false;
  for (int64_t v = 0; v < polygon.n; ++v) {
    const double z = row.a * polygon.x[v] + row.b * polygon.y[v] + row.c;
    const double t = threshold(row.a, row.b, row.error, polygon.d[v]);
    z > t ? above = true : z < -t ? below = true : open = true;
  }
  if (above && below) return kBothMay;
  if (open && !exactly) return kOpen;
  const Arena::Mark mark = arena_.mark();
  int8_t* signs = arena_.take<int8_t>(polygon.n);
  double z;
  int64_t known = 0;
  for (; open && known < polygon.n && !(above && below); ++known) {
    signs[known] = static_cast<int8_t>(difference_sign(cell.unsettled, polygon, known, row, i, j, z));
    above |= signs[known] > 0, below |= signs[known] < 0;
  }
  if (options_.pieces && known == polygon.n) see_zeros(polygon, signs);
  arena_.release(mark);
  return above && below ? kBothMay : below ? kSecondWins : kFirstWins;
}

// A rectified candidate that is off is 0 on the cell, and one that is on is above 0: no arithmetic for these.
PLR_ENGINE void Engine::find_rectified_losers(const Unsettled& candidates, int64_t begin, int64_t end, uint8_t* lost) {
  const int64_t* zero = system_.zero;
  bool some_on = false, some_off = false;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t line = zero[candidates.line[k]];
    if (line >= 0) (on_[line] ? some_on : some_off) = true;
  }
  for (int64_t k = begin, kept = some_on; some_off && k < end; ++k) {
    const int64_t line = zero[candidates.line[k]];
    if (line >= 0 && !on_[line]) lost[k] = kept, kept = 1;
  }
}

// Marks those of the candidates [begin, end) of a group that are the largest nowhere inside the cell.
PLR_ENGINE void Engine::find_losers(const Cell& cell, int64_t begin, int64_t end, uint8_t* lost) {
  const Unsettled& all = cell.unsettled;
  const Polygon& polygon = cell.polygon;
  fill(lost + begin, end - begin, uint8_t{0});
  find_rectified_losers(all, begin, end, lost);
  sync();
  // Most are below the one that is the largest in the middle.
  double x = 0, y = 0;
  for (int64_t v = 0; v < polygon.n; ++v) x += polygon.x[v], y += polygon.y[v];
  const double each = 1 / static_cast<double>(polygon.n);
  int64_t best = -1;
  double largest = 0;
  for (int64_t k = begin; k < end; ++k) {
    const double z = all.a[k] * (x * each) + all.b[k] * (y * each) + all.c[k];
    if (!lost[k] && (best < 0 || z > largest)) best = k, largest = z;
  }
  decisions_.filter += (end - begin) * polygon.n;
  const V a_best = set(all.a[best]), b_best = set(all.b[best]), c_best = set(all.c[best]), p_best = set(all.p[best]);
  for (int64_t k = begin; k < end; k += kLanes) {
    const V a = load(all.a + k) - a_best, b = load(all.b + k) - b_best, c = load(all.c + k) - c_best;
    const V t = (load(all.p + k) + p_best + (abs(a) + abs(b)) * set(polygon.d_max)) * set(factor_);
    uint32_t below = kAllLanes;
    for (int64_t v = 0; v < polygon.n && below; ++v)
      below &= above(-multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c)), t);
    each_bit(below & first_lanes(end - k), [&](int i) { lost[k + i] = 1; });
  }
  // The rest in pairs, those that float64 can tell first.
  for (const bool exactly : {false, true})
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = i + 1; j < end && !lost[i]; ++j) {
        if (lost[j]) continue;
        const Contest result = contest(cell, i, j, exactly);
        sync();
        if (result == kFirstWins) lost[j] = 1;
        if (result == kSecondWins) lost[i] = 1;
        sync();
      }
}

// As settle: candidates that are nowhere the largest are off, one that has no rivals left is on.
PLR_STEP void Engine::settle_maxima(Cell& cell) {
  const Unsettled& all = cell.unsettled;
  const Arena::Mark mark = arena_.mark();
  uint8_t* lost = arena_.take<uint8_t>(all.n);
  const int64_t size = padded(all.n + kLanes);
  int32_t* const numbers = arena_.take<int32_t>(3 * size);
  SomeRows on{take_forms(all.n), 0, numbers};
  Unsettled left{{take_forms(all.n), 0, numbers + size}, numbers + 2 * size};
  const auto copy = [&](int64_t k, const Forms& to, int64_t i) {
    to.a[i] = all.a[k], to.b[i] = all.b[k], to.c[i] = all.c[k], to.p[i] = all.p[k];
  };
  for (int64_t begin = 0, end; begin < all.n; begin = end) {
    end = group_end(all, begin);
    find_losers(cell, begin, end, lost);
    int64_t left_over = 0;
    for (int64_t k = begin; k < end; ++k) left_over += !lost[k];
    const bool decided = left_over == 1;
    if (!outside_.is_open())
      each(end - begin, [&](int64_t i) {
        if (lost[begin + i] || decided) set_on(all.line[begin + i], !lost[begin + i]);
      });
    for (int64_t k = begin; k < end; ++k) {
      if (lost[k]) continue;
      if (decided) {
        numbers[on.n] = all.row[k], copy(k, on, on.n++);
        continue;
      }
      numbers[size + left.n] = all.row[k], numbers[2 * size + left.n] = all.line[k];
      copy(k, left, left.n++);
    }
  }
  if (left.n == all.n) return arena_.release(mark);
  if (on.n && cell.stage + 1 < n_stages_) substitute(cell, on);
  cell.unsettled = left;
}

}  // namespace
}  // namespace pylinregion
