// csrc/partition/fold_plan.inl -- Engine: what to fold: bounds over the cell say which lines of later stages cannot
// cross it (docs/exactness.md, 5). Those that are off drop out, those that are on are eliminated, and a smaller system
// remains. Bounds only prune: they need be safe, not tight. Where they prune little, in stages far ahead, the fold
// ends: the rows from there on stay as they are.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

constexpr double kMostKept = 0.9;  // of a stage: where bounds prune less, a fold ends

// Which of some rows are settled on a cell, and which would cross it if their relaxed forms were exact.
struct Sides {
  uint32_t on, off, likely;
};
// Between what numbers a form is on a cell.
struct Range {
  double low, high;
};
// What becomes of a candidate.
enum Fate : uint8_t { kGone, kKept, kOn };

// Makes a plan, stage by stage: a row's form is known once all that it depends on is relaxed.
class Engine::FoldPlanner {
 public:
  PLR_ENGINE FoldPlanner(Engine& engine, const Cell& cell);
  PLR_STEP FoldPlan plan();

 private:
  PLR_ENGINE void know_until(int64_t row);
  PLR_ENGINE void know(const RowForms& in, int64_t from, int64_t to);
  PLR_ENGINE bool ends_before(int64_t l, int64_t kept) const;
  PLR_ENGINE int64_t first_untouched() const;
  PLR_STEP StageCount relax_lines(int64_t l);
  PLR_ENGINE Sides relax(int64_t r) const;

  // --- fold_maxima.inl ---
  PLR_STEP StageCount relax_maxima(int64_t l);
  PLR_ENGINE int64_t relax_maximum(const Forms& form, const Relaxed& out, int64_t begin, int64_t end, int64_t best,
                                   bool now, uint8_t* fate) const;
  PLR_ENGINE Range range(const RowOnPlane& form, double size) const;

  Engine& engine_;
  const Cell& cell_;
  const Fold& fold_;
  const bool always_;  // a test: fold so many stages ahead, whether it pays or not
  const double g_;     // pays for the rounding of relaxed forms
  Relaxed relaxed_;    // [rows]
  Forms form_;         // [rows], of those before known_; p: the radius
  int64_t known_;
  FoldPlan plan_;
  int32_t* live_;  // [n_live_]: rows of the stage that others take from
  int64_t n_live_ = 0;
};

PLR_ENGINE Engine::FoldPlanner::FoldPlanner(Engine& engine, const Cell& cell)
    : engine_(engine),
      cell_(cell),
      fold_(*cell.fold),
      always_(engine.options_.fold_ahead > 0),
      g_(gamma(fold_.rows + 32)),
      known_(fold_.stages[cell.stage].end) {
  const int64_t rows = fold_.rows, stages = engine.n_stages_, crossing = cell.unsettled.n;
  Arena& arena = engine.arena_;
  relaxed_ = {engine.take_forms(rows), arena.take<double>(rows + kLanes)};
  form_ = engine.take_forms(rows);
  live_ = arena.take<int32_t>(rows + kLanes);
  plan_.first = cell.stage, plan_.end = stages;
  plan_.kept = crossing, plan_.n_on = 0;
  plan_.keeps = arena.take<Bits>(2 * (rows / kLanes + stages + 1));
  plan_.is_on = plan_.keeps + (rows / kLanes + stages + 1);
  plan_.keeps_begin = arena.take<int64_t>(stages + 1);
  plan_.keeps_begin[cell.stage] = 0;
  plan_.on = arena.take<int32_t>(rows + kLanes);
  plan_.high = relaxed_.high;
  plan_.counts = arena.take<StageCount>(stages);
  plan_.counts[cell.stage] = {crossing, 0, crossing};
  each(crossing, [&](int64_t i) {
    const Forms &from = cell.unsettled, to = form_.from(cell.unsettled.row[i]);
    *to.a = from.a[i], *to.b = from.b[i], *to.c = from.c[i];
    *to.p = from.p[i] + g_ * engine.magnitude(to, 0);
  });
}

PLR_STEP FoldPlan Engine::FoldPlanner::plan() {
  for (int64_t l = plan_.first; l < engine_.n_stages_; ++l) {
    const StageView& stage = fold_.stages[l];
    know_until(stage.end);
    n_live_ = 0;
    const StageCount found = engine_.has_groups(l) ? relax_maxima(l) : relax_lines(l);
    if (l > plan_.first) {
      if (ends_before(l, found.kept)) {
        plan_.end = l;
        break;
      }
      plan_.counts[l] = found;
      plan_.kept += found.kept, plan_.n_on += found.on;
    }
    if (l + 1 == engine_.n_stages_) break;
    know_until(stage.extent);
    if (n_live_ == 0) continue;
    const Arena::Mark mark = engine_.arena_.mark();
    const Arrays<4> gives = engine_.gathered(relaxed_.form.arrays(), 0, live_, n_live_);
    const Arrays<4> takes = form_.from(stage.end).arrays();
    add_columns<4, true>(takes, takes, {&stage, live_, gives, n_live_});
    engine_.arena_.release(mark);
  }
  plan_.touched_end = first_untouched();
  return plan_;
}

// The forms of the rows before `row`, of what the cell has.
PLR_ENGINE void Engine::FoldPlanner::know_until(int64_t row) {
  if (known_ < cell_.reach) know(cell_.forms, known_, std::min(row, cell_.reach));
  if (row > cell_.reach) know(fold_.far, std::max(known_, cell_.reach), row);
  known_ = std::max(known_, row);
}
PLR_ENGINE void Engine::FoldPlanner::know(const RowForms& rows, int64_t from, int64_t to) {
  const Forms in = rows.from(from), out = form_.from(from);
  for (int64_t i = 0; i < to - from; i += kLanes) {
    const V radius = load(in.p + i) + set(g_) * engine_.magnitudes(in, i);
    store(out.a + i, load(in.a + i)), store(out.b + i, load(in.b + i)), store(out.c + i, load(in.c + i));
    store(out.p + i, radius);
  }
}

// Whether the fold ends before stage l, of which so many rows would be kept.
PLR_ENGINE bool Engine::FoldPlanner::ends_before(int64_t l, int64_t kept) const {
  if (always_) return l > cell_.stage + engine_.options_.fold_ahead;
  const int64_t lines = fold_.stages[l].end - fold_.stages[l].begin;
  return static_cast<double>(kept) > kMostKept * static_cast<double>(lines) && l + 1 < engine_.n_stages_;
}

// The first stage whose rows take from no stage that is folded, and have taken from none.
PLR_ENGINE int64_t Engine::FoldPlanner::first_untouched() const {
  int64_t touched = std::max(cell_.reach, fold_.stages[plan_.end - 1].end);
  for (int64_t l = plan_.first; l < plan_.end; ++l) touched = std::max(touched, fold_.stages[l].extent);
  int64_t l = plan_.end;
  while (l < engine_.n_stages_ && fold_.stages[l].begin < touched) ++l;
  return l;
}

// The relaxed forms of a stage's rows. Of the cell's own stage only its unsettled lines live.
PLR_STEP StageCount Engine::FoldPlanner::relax_lines(int64_t l) {
  const StageView& stage = fold_.stages[l];
  const bool now = l == plan_.first;
  int64_t at = plan_.keeps_begin[l];
  int32_t *on = plan_.on + plan_.n_on, *live = live_;
  StageCount found{0, 0, 0};
  for (int64_t r = stage.begin; r < stage.end; r += kLanes) {
    const Sides sides = relax(r);
    if (now) continue;
    const uint32_t lives = first_lanes(stage.end - r) & ~sides.off, is_on = lives & sides.on;
    put(plan_.keeps[at], static_cast<Bits>(lives & ~is_on)), put(plan_.is_on[at], static_cast<Bits>(is_on));
    ++at;
    found.likely += count_bits(lives & sides.likely);
    const int32_t* const rows = engine_.shared_.row_numbers + r;
    on = compress(on, rows, is_on), live = compress(live, rows, lives);
    found.on += count_bits(is_on);
  }
  n_live_ = live - live_;
  found.kept = n_live_ - found.on;
  if (now) {
    n_live_ = cell_.unsettled.n;
    copy(cell_.unsettled.row, n_live_, live_);
  }
  plan_.keeps_begin[l + 1] = at;
  return found;
}

// A vector of rows: z is between low and high on the polygon, so max(z, 0) is within lambda * form + mu +- (mu + lambda
// p), lambda the slope from (low, 0) to (high, high). Rows that are on come out unchanged.
PLR_ENGINE Sides Engine::FoldPlanner::relax(int64_t r) const {
  const Polygon& polygon = cell_.polygon;
  const Forms form = form_.from(r), out = relaxed_.form.from(r);
  const double g = g_;
  const V a = load(form.a), b = load(form.b), c = load(form.c), p = load(form.p);
  V low = set(INFINITY), high = set(-INFINITY);
  for (int64_t v = 0; v < polygon.n; ++v) {
    const V z = multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c));
    low = min(z, low), high = max(z, high);
  }
  const V size = engine_.magnitudes(form, 0);
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
  store(relaxed_.high + r, high);
  store(out.a, choose(bounded, lambda * a, zero));
  store(out.b, choose(bounded, lambda * b, zero));
  store(out.c, choose(bounded, lambda * c + mu, zero));
  store(out.p, choose(bounded, mu + lambda * p + set(g) * (lambda * size + high + mu), huge));
  return sides;
}

}  // namespace
}  // namespace pylinregion
