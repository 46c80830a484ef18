// csrc/partition/fold_plan.inl -- (Engine) what to fold: bounds over the cell say which lines of later stages cannot
// cross it. Those that are off drop out, those that are on are substituted, and a smaller system remains. Bounds
// only prune: they need be safe, not tight. Where they prune little, in stages far ahead, the fold ends: the rows
// from there on stay as they are.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

inline void Engine::refold(Cell& cell) {
  const Fold& fold = *cell.fold;
  const StageView& current = fold.stages[cell.stage];
  const int64_t rows = fold.rows, crossing = cell.candidates.n;
  const bool always = options_.fold_ahead > 0;
  if (rows == current.end || fold.depth == kMostFolds) return;
  if (!always && (rows - current.end < kWorthFolding || (cell.attempt != INT64_MAX && 4 * crossing > 3 * cell.attempt)))
    return;
  cell.attempt = crossing;

  const Arena::Mark mark = arena_.mark();
  const int64_t size = padded(rows + kLanes);
  double* memory = arena_.take<double>(9 * size);
  const auto array = [&](int64_t i) { return memory + i * size; };
  Relaxed relaxed{{array(0), array(1), array(2), array(3)}, array(4)};
  const Rows4 form{array(5), array(6), array(7), array(8)};  // a row once what it depends on is relaxed; p: its radius
  Plan plan{arena_.take<uint8_t>(rows / kLanes + n_stages_ + 1),
            arena_.take<int64_t>(n_stages_ + 1),
            arena_.take<int32_t>(rows),
            relaxed.high,
            cell.stage,
            n_stages_,
            0,
            crossing,
            0,
            arena_.take<StageCount>(n_stages_)};
  plan.counts[cell.stage] = {crossing, 0, crossing};
  const double g = gamma(rows + 32);

  const Candidates& left = cell.candidates;
  for (int64_t i = 0; i < crossing; ++i) {
    const int64_t r = left.row[i];
    form.a[r] = left.a[i], form.b[r] = left.b[i], form.c[r] = left.c[i];
    form.p[r] = left.p[i] + g * magnitude(form, r);
  }
  plan.keeps_begin[cell.stage] = 0;
  int64_t known = current.end;  // rows before `known` have forms
  const auto know = [&](int64_t to) {
    if (known < cell.reach) know_rows(cell.affine, form, known, std::min(to, cell.reach), g);
    if (to > cell.reach) know_rows(fold.far, form, std::max(known, cell.reach), to, g);
    known = std::max(known, to);
  };
  int32_t* live = arena_.take<int32_t>(rows);
  for (int64_t l = cell.stage; l < n_stages_; ++l) {
    const StageView& stage = fold.stages[l];
    int64_t n = 0, kept = 0, on = 0, crosses = 0;
    know(stage.end);
    uint8_t* keeps = plan.keeps + plan.keeps_begin[l];
    if (has_groups(l)) {
      const GroupFates found = relax_groups(cell, l, form, g, relaxed, keeps, plan.on + plan.n_on, live);
      n = found.live, on = found.on, kept = crosses = found.kept;
      keeps += (stage.end - stage.begin + kLanes - 1) / kLanes;
    }
    for (int64_t r = stage.begin; r < stage.end && !has_groups(l); r += kLanes) {
      const uint32_t valid = stage.end - r >= kLanes ? 0xff : (1u << (stage.end - r)) - 1;
      const Sides sides = relax(cell.polygon, form, r, g, relaxed);
      if (l == cell.stage) continue;
      uint32_t lives = valid & ~sides.off, is_on = lives & sides.on;
      *keeps++ = static_cast<uint8_t>(lives & ~is_on);
      crosses += __builtin_popcount(lives & sides.likely);
      for (; is_on; is_on &= is_on - 1) plan.on[plan.n_on + on++] = static_cast<int32_t>(r + __builtin_ctz(is_on));
      for (; lives; lives &= lives - 1) live[n++] = static_cast<int32_t>(r + __builtin_ctz(lives));
    }
    plan.keeps_begin[l + 1] = keeps - plan.keeps;
    if (l == cell.stage && !has_groups(l)) {
      n = crossing;
      std::copy(left.row, left.row + n, live);
    } else if (l > cell.stage) {
      if (!has_groups(l)) kept = n - on;
      const bool far = always ? l > cell.stage + options_.fold_ahead
                              : kept > kMostKept * static_cast<double>(stage.end - stage.begin) && l + 1 < n_stages_;
      if (far) {
        plan.end = l;
        break;
      }
      plan.kept += kept;
      plan.counts[l] = {kept, on, crosses};
      plan.n_on += on;
    }
    if (l + 1 == n_stages_) break;
    know(stage.extent);
    if (n) {
      const Arena::Mark before = arena_.mark();
      add(form, form, stage, gathered(relaxed.form, live, n));
      arena_.release(before);
    }
  }
  int64_t touched = std::max(cell.reach, fold.stages[plan.end - 1].end);
  for (int64_t l = plan.first; l < plan.end; ++l) touched = std::max(touched, fold.stages[l].extent);
  plan.touched_end = plan.end;
  while (plan.touched_end < n_stages_ && fold.stages[plan.touched_end].begin < touched) ++plan.touched_end;
  if (plan.end < cell.stage + 2 || !(always || worth_folding(fold, plan))) {
    arena_.release(mark);
    return;
  }
  ++result_.decisions.folds;
  // Until they are settled, it does not matter what is said of those that are kept.
  for (int64_t r = current.end; r < fold.stages[plan.end - 1].end; ++r) on_[static_cast<size_t>(fold.line[r])] = 0;
  for (int64_t i = 0; i < plan.n_on; ++i) on_[static_cast<size_t>(fold.line[plan.on[i]])] = 1;
  compact(cell, plan);
}

inline void Engine::know_rows(const Affine& in, const Rows4& form, int64_t from, int64_t to, double g) const {
  for (int64_t r = from; r < to; r += kLanes) {
    const V a = load(in.a + r), b = load(in.b + r), c = load(in.c + r);
    const V size_of = abs(a) * set(shared_.hs) + abs(b) * set(shared_.ht) + abs(c);
    store(form.a + r, a), store(form.b + r, b), store(form.c + r, c);
    store(form.p + r, load(in.p + r) + set(g) * size_of);
  }
}

// Whether the cells to come save more multiplications than the fold costs; the factors were found by measuring.
inline bool Engine::worth_folding(const Fold& fold, const Plan& plan) const {
  const int64_t touched =
      (plan.touched_end < n_stages_ ? fold.stages[plan.touched_end].begin : fold.rows) - fold.stages[plan.end - 1].end;
  int64_t live = plan.kept + plan.n_on + touched, kept_later = plan.kept + touched, kept_before = 0;
  double saved = 0, cost = 0, k = 0, cells = 1;
  for (int64_t l = plan.first; l < plan.end; ++l) {
    const StageView& stage = fold.stages[l];
    const StageCount& count = plan.counts[l];
    kept_later -= count.kept, live -= count.kept + count.on;
    const int64_t before = (stage.end - stage.begin) * (stage.extent - stage.end + kLanes);
    const int64_t after = count.kept * (kept_later + kLanes);
    saved += 1.5 * cells * static_cast<double>(before - after);
    cost += static_cast<double>(count.on * (kept_before + 4) * live) +
            8 * static_cast<double>((count.kept + count.on) * live);
    kept_before += count.kept;
    k += static_cast<double>(count.likely);  // k lines make between 1 + k and 1 + k (k + 1) / 2 cells
    cells = 1 + k + k * k / 6;
  }
  return saved > cost;
}

// Eight rows: z is between low and high on the polygon, so max(z, 0) is within lambda * form + mu +- (mu + lambda p),
// lambda the slope from (low, 0) to (high, high). Rows that are on come out unchanged.
inline Sides Engine::relax(const Polygon& polygon, const Rows4& form, int64_t r, double g, const Relaxed& out) const {
  const V a = load(form.a + r), b = load(form.b + r), c = load(form.c + r), p = load(form.p + r);
  V low = set(INFINITY), high = set(-INFINITY);
  for (int64_t v = 0; v < polygon.n; ++v) {
    const V z = multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c));
    low = min(z, low), high = max(z, high);
  }
  const V size = abs(a) * set(shared_.hs) + abs(b) * set(shared_.ht) + abs(c);
  const V slack = (p + (abs(a) + abs(b)) * set(polygon.d_max) + set(16 * kUnit) * size) * set(1 + 8 * g);
  const V zero = set(0), huge = set(INFINITY);
  const auto known = less(slack, huge);  // false for NaN
  Sides sides;
  sides.likely = above(zero, low) & above(high, zero);
  low = choose(known, low - slack, -huge), high = choose(known, high + slack, huge);
  sides.on = above(low, zero), sides.off = above(zero, high);
  low = min(low, zero), high = max(high, zero);
  const auto bounded = both(known, both(less(high, huge), less(-huge, low)));
  const V width = high - low;
  const V lambda = choose(less(zero, width), high / width, zero), mu = -lambda * low * set(0.5);
  store(out.high + r, high);
  store(out.form.a + r, choose(bounded, lambda * a, zero));
  store(out.form.b + r, choose(bounded, lambda * b, zero));
  store(out.form.c + r, choose(bounded, lambda * c + mu, zero));
  store(out.form.p + r, choose(bounded, mu + lambda * p + set(g) * (lambda * size + high + mu), huge));
  return sides;
}

}  // namespace
}  // namespace pylinregion
