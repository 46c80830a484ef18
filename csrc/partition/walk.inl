// csrc/partition/walk.inl -- (Engine) the walk, depth first over cells.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

inline Engine::Engine(const Shared& shared, const ExactRows& exact)
    : shared_(shared),
      system_(shared.system),
      options_(shared.options),
      exact_(exact),
      factor_(options_.force_exact ? kForceExact : kInflate),
      n_stages_(static_cast<int64_t>(system_.stages.size())),
      on_(static_cast<size_t>(padded(system_.lines)), 0),
      line_numbers_(static_cast<size_t>(system_.lines + kLanes)) {
  for (size_t r = 0; r < line_numbers_.size(); ++r) line_numbers_[r] = static_cast<int32_t>(r);
  for (const StageView& stage : system_.stages)
    has_groups_.push_back(stage.begin < stage.end && system_.groups->of_line()[stage.begin] >= 0);
  start_result();
}

inline void Engine::run_root(std::vector<Task>* tasks, std::vector<Part>* before) {
  tasks_ = tasks;
  before_ = before;
  const int64_t lines = system_.lines;
  Affine affine = take_affine(0, lines);
  root_fold_ = Fold{system_.stages.data(), lines, line_numbers_.data(), affine, 0, 0, {}};
  for (int64_t r = 0; r < lines; ++r) {
    affine.a[r] = system_.a[r], affine.b[r] = system_.b[r], affine.c[r] = system_.c[r];
    affine.p[r] = system_.error[r] + shared_.prepaid * magnitude(affine, r);
  }
  root_fold_.norms = root_norms(affine);
  Cell cell{&root_fold_, 0, affine, 0, {}, root_polygon(), 0, 0, INT64_MAX};
  if (!tasks) my_turn_ = [] { return true; };
  enter_stage(cell, 0);
  flush();
  if (!tasks && options_.cells) give_away();
}
inline void Engine::run_task(const Task& task, std::function<bool()> my_turn) {
  my_turn_ = std::move(my_turn);
  on_ = task.on;
  Cell cell = task.cell;
  const Arena::Mark mark = arena_.mark();
  go_down(cell, 0);  // it was settled when it was made, and decisions count once
  arena_.release(mark);
  flush();
}
inline Part Engine::take_result() {
  Part taken{std::move(result_), std::move(cells_), true};
  start_result();
  return taken;
}

inline Polygon Engine::root_polygon() {
  const int64_t n = system_.n_corners;
  Polygon p = take_polygon(arena_, n, options_.cells);
  p.d_max = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double *corner = system_.corners + 2 * i, *next = system_.corners + 2 * ((i + 1) % n);
    p.x[i] = corner[0], p.y[i] = corner[1], p.d[i] = 0;
    if (p.keys) p.keys[i] = hashed({1, 2}, static_cast<uint64_t>(i));
    RowOnPlane& row = *arena_.take<RowOnPlane>(1);
    p.edges[i] = &row;
    if (n == 2) {
      row = {1, 0, -corner[0], 0, border_row(i)};
    } else {
      row = {corner[1] - next[1], next[0] - corner[0], corner[0] * next[1] - next[0] * corner[1], 0, border_row(i)};
      const double size = std::fabs(row.a) * shared_.hs + std::fabs(row.b) * shared_.ht +
                          std::fabs(corner[0] * next[1]) + std::fabs(next[0] * corner[1]);
      row.error = 8 * kUnit * size + kBorderUnderflow;
    }
  }
  return p;
}

// The cell is settled in all stages before cell.stage. It is changed on the way, here and in cut.
inline void Engine::enter_stage(Cell& cell, int64_t depth) {
  const Fold& fold = *cell.fold;
  while (cell.stage < n_stages_ && fold.stages[cell.stage].begin == fold.stages[cell.stage].end)
    ++result_.regions[static_cast<size_t>(cell.stage++)];
  if (cell.stage == n_stages_) return leaf(cell.polygon);
  const StageView& stage = fold.stages[cell.stage];
  if (cell.reach <= stage.begin) {
    cell.affine = fold.far, cell.reach = stage.end, cell.spent = 0;
  } else if (cell.spent + 3 * (stage.end - stage.begin) + kEvaluation > shared_.budget) {
    const Affine before = cell.affine;
    cell.affine = take_affine(stage.begin, cell.reach);
    for (int64_t r = stage.begin; r < cell.reach; ++r) {
      cell.affine.a[r] = before.a[r], cell.affine.b[r] = before.b[r], cell.affine.c[r] = before.c[r];
      cell.affine.p[r] = before.p[r] + shared_.prepaid * magnitude(before, r);
    }
    cell.spent = 0;
  }
  if (options_.cells)
    for (int64_t i = 0; i < cell.polygon.n; ++i)
      cell.polygon.bases[i] = between(cell.polygon.keys[i], cell.polygon.keys[i + 1 == cell.polygon.n ? 0 : i + 1]);
  cell.attempt = INT64_MAX;
  cell.candidates = candidates_of(cell);
  if (fold.norms.own) cell.candidates.p = capped(cell);
  cut(cell, depth);
}

// Settle what is settled, then cut by the first line that crosses, and go down both sides.
inline void Engine::cut(Cell& cell, int64_t depth) {
  if (shared_.progress.stop.load(std::memory_order_relaxed)) return;
  const Arena::Mark mark = arena_.mark();
  if (cell.candidates.n) has_groups(cell.stage) ? settle_groups(cell) : settle(cell);
  if (cell.candidates.n == 0) {
    ++result_.regions[static_cast<size_t>(cell.stage++)];
    enter_stage(cell, depth);
  } else {
    go_down(cell, depth);
  }
  if (!tasks_) arena_.release(mark);  // what the cells of tasks point to stays
}
// What is left of a settled cell's candidates crosses it.
inline void Engine::go_down(Cell& cell, int64_t depth) {
  const bool last = cell.stage + 1 == n_stages_;
  if (last && !options_.cells && cell.polygon.n > 2 && !has_groups(cell.stage) && count_chords(cell)) return;
  if (tasks_ && depth >= shared_.split_depth) {
    before_->push_back(take_result());
    tasks_->push_back({cell, on_});
    return;
  }
  if (!last && options_.fold_ahead) refold(cell);
  has_groups(cell.stage) ? split_group(cell, depth) : split(cell, depth);
}

inline void Engine::split(const Cell& cell, int64_t depth) {
  const Candidates& all = cell.candidates;
  const Polygon& polygon = cell.polygon;
  int8_t* signs = arena_.take<int8_t>(padded(polygon.n));
  double* z = arena_.take<double>(padded(polygon.n));
  vertex_signs(cell, 0, signs, z);
  const int64_t number = all.line[0];
  RowOnPlane* line = arena_.take<RowOnPlane>(1);
  *line = {all.a[0], all.b[0], all.c[0], all.p[0], number};
  Polygon parts[2];
  cut_in_two(arena_, polygon, line, signs, parts[0], parts[1],
             [&](int64_t i) { return known_crossing(polygon, i, *line, z[i], z[i + 1 == polygon.n ? 0 : i + 1]); });
  const Arena::Mark mark = arena_.mark();
  const int first = polygon.n == 2 && signs[0] < 0 ? 1 : 0;  // segments from their start to their end
  for (const int side : {first, 1 - first}) {
    Cell child = cell;
    child.candidates = without_first(all, 1);
    child.polygon = parts[side];
    on_[static_cast<size_t>(number)] = side == 0;
    if (side == 0 && cell.stage + 1 < n_stages_) substitute(child, {all, 1, all.row});
    cut(child, depth + 1);
    if (!tasks_) arena_.release(mark);
  }
}

// All rows of its stage.
inline Candidates Engine::candidates_of(const Cell& cell) const {
  const StageView& stage = cell.fold->stages[cell.stage];
  const int64_t from = stage.begin;
  return {{shifted(cell.affine, from), stage.end - from, line_numbers_.data() + from}, cell.fold->line + from};
}
inline Candidates Engine::without_first(const Candidates& all, int64_t n) {
  return {{shifted(all, n), all.n - n, all.row + n}, all.line + n};
}

}  // namespace
}  // namespace pylinregion
