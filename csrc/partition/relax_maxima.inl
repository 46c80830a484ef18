// csrc/partition/relax_maxima.inl -- (Engine) bounds of maxima, for folds.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// The fates of the candidates of a stage (for keeps and on see Plan; of the cell's own stage only the candidates that
// are left live); for each group that lives one row with the relaxed form of its maximum, which is as good as another,
// for all have the same columns: max z = z_best + [0, H], H bounding all z_i - z_best.
inline GroupFates Engine::relax_groups(const Cell& cell, int64_t l, const Rows4& form, double g, const Relaxed& out,
                                       uint8_t* keeps, int32_t* on, int32_t* live) {
  const Fold& fold = *cell.fold;
  const Polygon& polygon = cell.polygon;
  const StageView& stage = fold.stages[l];
  const bool now = l == cell.stage;
  uint8_t* fate = arena_.take<uint8_t>(stage.end - stage.begin) - stage.begin;
  std::fill(fate + stage.begin, fate + stage.end, uint8_t{kGone});
  for (int64_t i = 0; now && i < cell.candidates.n; ++i) fate[cell.candidates.row[i]] = kKept;
  double x = 0, y = 0;
  for (int64_t v = 0; v < polygon.n; ++v) x += polygon.x[v], y += polygon.y[v];
  x /= static_cast<double>(polygon.n), y /= static_cast<double>(polygon.n);
  GroupFates found{0, 0, 0};
  for (int64_t begin = stage.begin, end; begin < stage.end; begin = end) {
    end = group_end(begin, stage.end, [&](int64_t r) { return int64_t{fold.line[r]}; });
    int64_t best = -1;
    double largest = 0;
    for (int64_t r = begin; r < end; ++r) {
      const double z = form.a[r] * x + form.b[r] * y + form.c[r];
      if ((!now || fate[r] == kKept) && (best < 0 || z > largest)) best = r, largest = z;
    }
    if (best < 0) continue;
    const double size_best = magnitude(form, best);
    // [low, high] of a form on the polygon, widened by what it is off (relax).
    const auto range = [&](double a, double b, double c, double p, double size, double& low, double& high) {
      low = INFINITY, high = -INFINITY;
      for (int64_t v = 0; v < polygon.n; ++v) {
        const double z = a * polygon.x[v] + b * polygon.y[v] + c;
        low = std::min(low, z), high = std::max(high, z);
      }
      const double slack = (p + (std::fabs(a) + std::fabs(b)) * polygon.d_max + 16 * kUnit * size) * (1 + 8 * g);
      const bool known = slack < INFINITY;
      low = known ? low - slack : -INFINITY, high = known ? high + slack : INFINITY;
    };
    double rise = 0, low, high;
    int64_t rivals = 0;
    for (int64_t r = begin; r < end; ++r) {
      if (now && fate[r] != kKept) continue;
      const double size = magnitude(form, r);
      range(form.a[r], form.b[r], form.c[r], form.p[r], size, low, high);
      out.high[r] = std::max(-low, high);
      if (r == best) continue;
      range(form.a[r] - form.a[best], form.b[r] - form.b[best], form.c[r] - form.c[best], form.p[r] + form.p[best],
            size + size_best, low, high);
      if (!now && high < 0) continue;
      rise = std::max(rise, high);
      if (!now) fate[r] = kKept;
      ++rivals;
    }
    if (!now) {
      fate[best] = rivals ? kKept : kOn;
      if (rivals)
        found.kept += rivals + 1;
      else
        on[found.on++] = static_cast<int32_t>(best);
    }
    live[found.live++] = static_cast<int32_t>(best);
    const double half = rise / 2;
    const bool bounded = rise < INFINITY && form.p[best] < INFINITY;
    out.form.a[best] = bounded ? form.a[best] : 0;
    out.form.b[best] = bounded ? form.b[best] : 0;
    out.form.c[best] = bounded ? form.c[best] + half : 0;
    out.form.p[best] = bounded ? half + form.p[best] + g * (size_best + 2 * rise) : INFINITY;
  }
  for (int64_t r = stage.begin; r < stage.end; r += kLanes, ++keeps) {
    *keeps = 0;
    for (int64_t i = 0; i < kLanes && r + i < stage.end; ++i)
      *keeps = static_cast<uint8_t>(*keeps | (fate[r + i] == kKept) << i);
  }
  return found;
}

}  // namespace
}  // namespace pylinregion
