// csrc/partition/fold_maxima.inl -- Engine: what to fold of stages of maxima: docs/exactness.md, 10.
#pragma once
#include "engine.h"
#include "fold_plan.inl"

namespace pylinregion {
namespace {

// The fates of a stage's candidates; of the cell's own stage only those that are unsettled live. For each group that
// lives, one row has the relaxed form of its maximum. It is as good as another, for all have the same columns.
PLR_STEP StageCount Engine::FoldPlanner::relax_maxima(int64_t l) {
  const StageView& stage = fold_.stages[l];
  const int64_t n = stage.end - stage.begin;
  const bool now = l == plan_.first;
  const Forms form = form_.from(stage.begin);
  const Relaxed out{relaxed_.form.from(stage.begin), relaxed_.high + stage.begin};
  uint8_t* fate = engine_.arena_.take<uint8_t>(n);
  fill(fate, n, uint8_t{kGone});
  if (now) each(cell_.unsettled.n, [&](int64_t i) { fate[cell_.unsettled.row[i] - stage.begin] = kKept; });
  const Polygon& polygon = cell_.polygon;
  double x = 0, y = 0;  // the middle
  for (int64_t v = 0; v < polygon.n; ++v) x += polygon.x[v], y += polygon.y[v];
  x /= static_cast<double>(polygon.n), y /= static_cast<double>(polygon.n);
  StageCount found{0, 0, 0};
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = engine_.group_end(begin, n, [&](int64_t i) { return fold_.line[stage.begin + i]; });
    int64_t best = -1;
    double largest = 0;
    for (int64_t i = begin; i < end; ++i) {
      const double z = form.a[i] * x + form.b[i] * y + form.c[i];
      if ((!now || fate[i] == kKept) && (best < 0 || z > largest)) best = i, largest = z;
    }
    if (best < 0) continue;
    const int64_t rivals = relax_maximum(form, out, begin, end, best, now, fate);
    live_[n_live_++] = static_cast<int32_t>(stage.begin + best);
    if (now) continue;
    fate[best] = rivals ? kKept : kOn;
    if (rivals)
      found.kept += rivals + 1;
    else
      plan_.on[plan_.n_on + found.on++] = static_cast<int32_t>(stage.begin + best);
  }
  found.likely = found.kept;
  sync();
  int64_t at = plan_.keeps_begin[l];
  for (int64_t begin = 0; begin < n; begin += kLanes, ++at) {
    uint32_t kept = 0, is_on = 0;
    for (int64_t i = 0; i < kLanes && begin + i < n; ++i)
      kept |= uint32_t{fate[begin + i] == kKept} << i, is_on |= uint32_t{fate[begin + i] == kOn} << i;
    put(plan_.keeps[at], static_cast<Bits>(kept)), put(plan_.is_on[at], static_cast<Bits>(is_on));
  }
  plan_.keeps_begin[l + 1] = at;
  return found;
}

// Of the candidates [begin, end) of a group the bounds, and at the place of `best` the relaxed form of their maximum:
// max z = z_best + [0, H], H bounding all z_i - z_best. How many may be above `best`, which are kept.
PLR_ENGINE int64_t Engine::FoldPlanner::relax_maximum(const Forms& form, const Relaxed& out, int64_t begin, int64_t end,
                                                      int64_t best, bool now, uint8_t* fate) const {
  const double size_best = engine_.magnitude(form, best);
  double rise = 0;
  int64_t rivals = 0;
  for (int64_t i = begin; i < end; ++i) {
    if (now && fate[i] != kKept) continue;
    const double size = engine_.magnitude(form, i);
    const Range own = range({form.a[i], form.b[i], form.c[i], form.p[i], 0}, size);
    out.high[i] = std::max(-own.low, own.high);
    if (i == best) continue;
    const Range above = range(
        {form.a[i] - form.a[best], form.b[i] - form.b[best], form.c[i] - form.c[best], form.p[i] + form.p[best], 0},
        size + size_best);
    if (!now && above.high < 0) continue;
    rise = std::max(rise, above.high);
    if (!now) fate[i] = kKept;
    ++rivals;
  }
  const double half = rise / 2;
  const bool bounded = rise < INFINITY && form.p[best] < INFINITY;
  out.form.a[best] = bounded ? form.a[best] : 0;
  out.form.b[best] = bounded ? form.b[best] : 0;
  out.form.c[best] = bounded ? form.c[best] + half : 0;
  out.form.p[best] = bounded ? half + form.p[best] + g_ * (size_best + 2 * rise) : INFINITY;
  return rivals;
}

// Of a form on the polygon, widened by what it is off, as in relax; size: its magnitude, or more.
PLR_ENGINE Range Engine::FoldPlanner::range(const RowOnPlane& form, double size) const {
  const Polygon& polygon = cell_.polygon;
  double low = INFINITY, high = -INFINITY;
  for (int64_t v = 0; v < polygon.n; ++v) {
    const double z = form.a * polygon.x[v] + form.b * polygon.y[v] + form.c;
    low = std::min(low, z), high = std::max(high, z);
  }
  const double slack =
      (form.error + (std::fabs(form.a) + std::fabs(form.b)) * polygon.d_max + 16 * kUnit * size) * (1 + 8 * g_);
  const bool known = slack < INFINITY;
  return {known ? low - slack : -INFINITY, known ? high + slack : INFINITY};
}

}  // namespace
}  // namespace pylinregion
