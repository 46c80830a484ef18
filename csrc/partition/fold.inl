// csrc/partition/fold.inl -- Engine: what is left of a cell's system becomes a smaller one, where that pays: a plan
// (fold_plan.inl), then the system (fold_system.inl).
#pragma once
#include "engine.h"
#include "fold_plan.inl"
#include "fold_system.inl"

namespace pylinregion {
namespace {

constexpr int64_t kVector = 8;         // numbers of the vectors that the costs are of: the same on every machine
constexpr int64_t kWorthFolding = 32;  // later rows: fewer are evaluated as fast as they are folded

PLR_STEP void Engine::refold(Cell& cell) {
  if (!may_fold(cell)) return;
  cell.attempt = cell.unsettled.n;
  const Arena::Mark mark = arena_.mark();
  const Fold& fold = *cell.fold;
  const FoldPlan plan = FoldPlanner(*this, cell).plan();
  if (!pays(fold, plan)) return arena_.release(mark);
  ++decisions_.folds;
  settle_rest(fold, plan);
  FoldMaker(*this, cell, plan).make();
}

// The lines that the plan does not keep are on or off all over the cell. Of the others nothing is known.
PLR_ENGINE void Engine::settle_rest(const Fold& fold, const FoldPlan& plan) {
  for (int64_t l = plan.first + 1; l < plan.end; ++l) {
    const StageView& stage = fold.stages[l];
    for (int64_t r = stage.begin, i = plan.keeps_begin[l]; r < stage.end; r += kLanes, ++i) {
      const uint32_t valid = first_lanes(stage.end - r);
      each_bit(plan.is_on[i] & valid, [&](int bit) { set_on(fold.line[r + bit], true); });
      each_bit(~(plan.is_on[i] | plan.keeps[i]) & valid, [&](int bit) { set_on(fold.line[r + bit], false); });
    }
  }
}

PLR_ENGINE bool Engine::may_fold(const Cell& cell) const {
  const Fold& fold = *cell.fold;
  const int64_t later = fold.rows - fold.stages[cell.stage].end;
  if (later == 0 || fold.depth == kMostFolds) return false;
  if (options_.fold_ahead > 0) return true;
  // Not again in a stage before a quarter of the lines is settled.
  return later >= kWorthFolding && (cell.attempt == INT64_MAX || 4 * cell.unsettled.n <= 3 * cell.attempt);
}

// Whether the cells to come save more multiplications than the fold costs; the factors were found by measuring.
PLR_ENGINE bool Engine::pays(const Fold& fold, const FoldPlan& plan) const {
  if (plan.end < plan.first + 2) return false;
  if (options_.fold_ahead > 0) return true;
  const int64_t touched =
      (plan.touched_end < n_stages_ ? fold.stages[plan.touched_end].begin : fold.rows) - fold.stages[plan.end - 1].end;
  int64_t live = plan.kept + plan.n_on + touched, kept_later = plan.kept + touched, kept_before = 0;
  double saved = 0, cost = 0, k = 0, cells = 1;
  for (int64_t l = plan.first; l < plan.end; ++l) {
    const StageView& stage = fold.stages[l];
    const StageCount& count = plan.counts[l];
    kept_later -= count.kept, live -= count.kept + count.on;
    const int64_t before = (stage.end - stage.begin) * (stage.extent - stage.end + kVector);
    const int64_t after = count.kept * (kept_later + kVector);
    saved += 1.5 * cells * static_cast<double>(before - after);
    cost += static_cast<double>(count.on * (kept_before + 4) * live) +
            8 * static_cast<double>((count.kept + count.on) * live);
    kept_before += count.kept;
    k += static_cast<double>(count.likely);  // k lines make between 1 + k and 1 + k (k + 1) / 2 cells
    cells = 1 + k + k * k / 6;
  }
  return saved > cost;
}

}  // namespace
}  // namespace pylinregion
