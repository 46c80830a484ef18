// csrc/partition/walk.inl -- the walk: depth first over cells, stage by stage. A policy says whose the deep cells are.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Cells are walked to the leaves, and memory is given back on the way up.
class WalksAll {
 public:
  static constexpr bool kPutsOff = false;
  static void done_with(Arena& arena, Arena::Mark mark) { arena.release(mark); }
};

struct Task {
  Cell cell;
  std::vector<uint8_t> on;
};
// Cells that so many cuts lie above are put off, as tasks for other walks, in order. They point to what this walk has
// made, so all of its memory stays.
class PutsOff {
 public:
  static constexpr bool kPutsOff = true;
  static void done_with(Arena&, Arena::Mark) {}
  explicit PutsOff(int64_t depth) : depth_(depth) {}
  bool is_deep(int64_t depth) const { return depth >= depth_; }

  std::vector<Task> tasks;
  std::vector<Found> before;  // before[i] comes before task i

 private:
  int64_t depth_;
};

template <class Policy> class Walk : private Engine {
 public:
  explicit Walk(const Shared& shared, const ExactRows& exact, Policy policy_ = Policy())
      : Engine(shared, exact), policy(std::move(policy_)) {}

  // my_turn: whether all that comes before this walk has been given away, so that its own cells may be.
  void from_root(std::function<bool()> my_turn);
  void from_task(const Task& task, std::function<bool()> my_turn);
  using Engine::give_away;
  using Engine::take_found;  // what comes after the last task, of a walk that puts off

  Policy policy;

 private:
  Polygon root_polygon();
  void enter_stage(Cell& cell, int64_t depth);
  void visit(Cell& cell, int64_t depth);
  void go_down(Cell& cell, int64_t depth);
  void split(const Cell& cell, int64_t depth);
  void split_maximum(const Cell& cell, int64_t depth);

  Fold root_fold_{};
};

template <class Policy> void Walk<Policy>::from_root(std::function<bool()> my_turn) {
  my_turn_ = std::move(my_turn);
  const RowForms rows = take_row_forms(0, system_.rows);
  const Forms& forms = rows.forms;
  for (int64_t r = 0; r < system_.rows; ++r) {
    forms.a[r] = system_.a[r], forms.b[r] = system_.b[r], forms.c[r] = system_.c[r];
    forms.p[r] = system_.error[r] + shared_.prepaid * magnitude(forms, r);
  }
  root_fold_ = Fold{system_.stages.data(), system_.rows, root_lines(), rows, 0, 0, root_norms(forms)};
  Cell cell{&root_fold_, 0, rows, 0, {}, root_polygon(), 0, 0, INT64_MAX};
  enter_stage(cell, 0);
  report();
}

template <class Policy> void Walk<Policy>::from_task(const Task& task, std::function<bool()> my_turn) {
  my_turn_ = std::move(my_turn);
  on_ = task.on;
  Cell cell = task.cell;
  const Arena::Mark mark = arena_.mark();
  go_down(cell, 0);  // it was settled when it was made, and decisions count once
  arena_.release(mark);
  report();
}

template <class Policy> Polygon Walk<Policy>::root_polygon() {
  const int64_t n = system_.n_corners;
  Polygon p = take_polygon(arena_, n, options_.cells);
  p.d_max = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double *corner = system_.corners + 2 * i, *next = system_.corners + 2 * ((i + 1) % n);
    p.x[i] = corner[0], p.y[i] = corner[1], p.d[i] = 0;
    if (system_.borders) {
      p.d[i] = kUnit * kInflate * std::max(std::fabs(p.x[i]), std::fabs(p.y[i])) + kQuotientUnderflow;
      p.d_max = std::max(p.d_max, p.d[i]);
      corner = system_.borders + 4 * i, next = corner + 2;
    }
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

// The cell is settled in all stages before cell.stage. It is changed on the way, here and in visit.
template <class Policy> inline void Walk<Policy>::enter_stage(Cell& cell, int64_t depth) {
  const Fold& fold = *cell.fold;
  while (cell.stage < n_stages_ && fold.stages[cell.stage].begin == fold.stages[cell.stage].end) finish_stage(cell);
  if (cell.stage == n_stages_) return leaf(cell.polygon);
  const StageView& stage = fold.stages[cell.stage];
  if (cell.reach <= stage.begin)
    cell.forms = fold.far, cell.reach = stage.end, cell.spent = 0;
  else if (cell.spent + 3 * (stage.end - stage.begin) + kEvaluation > shared_.budget)
    prepay(cell);
  if (options_.cells) name_edges(cell.polygon);
  cell.attempt = INT64_MAX;
  cell.unsettled = unsettled_of(cell);
  if (fold.norms.own) cell.unsettled.p = capped(cell);
  visit(cell, depth);
}

// Settles what is settled. A cell that no line of its stage is left to cross goes on to the next.
template <class Policy> inline void Walk<Policy>::visit(Cell& cell, int64_t depth) {
  if (shared_.progress.stop.load(std::memory_order_relaxed)) return;
  const Arena::Mark mark = arena_.mark();
  if (cell.unsettled.n) has_groups(cell.stage) ? settle_maxima(cell) : settle(cell);
  if (cell.unsettled.n == 0) {
    finish_stage(cell);
    enter_stage(cell, depth);
  } else {
    go_down(cell, depth);
  }
  policy.done_with(arena_, mark);
}

// What is left of a settled cell's lines crosses it.
template <class Policy> inline void Walk<Policy>::go_down(Cell& cell, int64_t depth) {
  const bool last = cell.stage + 1 == n_stages_, maxima = has_groups(cell.stage);
  if (last && !options_.cells && cell.polygon.n > 2 && !maxima && count_chords(cell)) return;
  if constexpr (Policy::kPutsOff)
    if (policy.is_deep(depth)) {
      policy.before.push_back(take_found());
      policy.tasks.push_back({cell, on_});
      return;
    }
  if (!last && options_.fold_ahead) refold(cell);
  maxima ? split_maximum(cell, depth) : split(cell, depth);
}

// Cuts by the first line, and goes down both sides.
template <class Policy> inline void Walk<Policy>::split(const Cell& cell, int64_t depth) {
  const Unsettled& all = cell.unsettled;
  Polygon halves[2];
  const bool starts_below = cut_by_first(cell, halves[0], halves[1]);
  const Arena::Mark mark = arena_.mark();
  const int first = cell.polygon.n == 2 && starts_below ? 1 : 0;  // segments from their start to their end
  for (const int side : {first, 1 - first}) {
    Cell child = cell;
    child.unsettled = without_first(all, 1);
    child.polygon = halves[side];
    set_on(all.line[0], side == 0);
    if (side == 0 && cell.stage + 1 < n_stages_) substitute(child, {all, 1, all.row});
    visit(child, depth + 1);
    policy.done_with(arena_, mark);
  }
}

// Cuts by the first group, into the shares of its candidates, and goes down each.
template <class Policy> inline void Walk<Policy>::split_maximum(const Cell& cell, int64_t depth) {
  const Unsettled& all = cell.unsettled;
  const int64_t size = group_end(all, 0);
  Share* shares = arena_.take<Share>(size);
  const int64_t n = cut_into_shares(cell, size, shares);
  for (int64_t i = 0; i < size; ++i)
    if (n > 1 || shares[0].candidate != i) set_on(all.line[i], false);  // in the share of another
  int64_t halvings = 0;                                                 // as many cuts in two make so many shares
  while ((int64_t{1} << halvings) < n) ++halvings;
  const Arena::Mark mark = arena_.mark();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t winner = shares[i].candidate;
    Cell child = cell;
    child.unsettled = without_first(all, size);
    child.polygon = shares[i].polygon;
    set_on(all.line[winner], true);
    if (cell.stage + 1 < n_stages_) substitute(child, {all.from(winner), 1, all.row + winner});
    visit(child, depth + halvings);
    on_[static_cast<size_t>(all.line[winner])] = 0;
    policy.done_with(arena_, mark);
  }
}

}  // namespace
}  // namespace pylinregion
