// csrc/partition/walk.inl -- the walk: depth first over cells, stage by stage. A policy says whose the deep cells are.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Cells are walked to the leaves, and memory is given back on the way.
class WalksAll {
 public:
  static constexpr bool kPutsOff = false;
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
  explicit PutsOff(int64_t depth) : depth_(depth) {}
  bool is_deep(int64_t depth) const { return depth >= depth_; }

  std::vector<Task> tasks;
  std::vector<Found> before;  // before[i] comes before task i

 private:
  int64_t depth_;
};

// A cell that lines cross, and the parts that it is cut into. The walk goes into one after another.
struct Branch {
  Cell cell;
  int64_t depth;    // cuts above the parts
  int64_t size;     // unsettled lines that cut: one, or a group
  Share* parts;     // [n]
  int64_t n, next;  // the part that the walk goes into next
  Arena::Mark mark;
  Branch* above;
};

template <class Policy> class Walk : private Engine {
 public:
  explicit Walk(const Shared& shared, Outside& outside, Policy policy_ = Policy())
      : Engine(shared, outside), policy(std::move(policy_)) {}

  void from_root();
  void from_task(const Task& task);
  Found take_found();

  Policy policy;

 private:
  Polygon root_polygon();
  void walk(Cell cell);
  bool enter_stage(Cell& cell);
  bool settle_down(Cell& cell);
  bool goes_down(Cell& cell, int64_t depth);
  Branch* branch(const Cell& cell, int64_t depth);
  void enter_part(Branch& branch, Cell& cell);
  void finish_stage(Cell& cell);

  Fold root_fold_{};
};

template <class Policy> void Walk<Policy>::from_root() {
  const RowForms rows = take_row_forms(0, system_.rows);
  const Forms& forms = rows.forms;
  for (int64_t r = 0; r < system_.rows; ++r) {
    forms.a[r] = system_.a[r], forms.b[r] = system_.b[r], forms.c[r] = system_.c[r];
    forms.p[r] = system_.error[r] + shared_.prepaid * magnitude(forms, r);
  }
  root_fold_ = Fold{system_.stages.first, system_.rows, root_lines(), rows, 0, 0, root_norms(forms)};
  Cell cell{&root_fold_, 0, rows, 0, {}, root_polygon(), 0, 0, INT64_MAX};
  if (enter_stage(cell) && settle_down(cell)) walk(cell);
  outside_.report();
}

template <class Policy> void Walk<Policy>::from_task(const Task& task) {
  std::copy(task.on.begin(), task.on.end(), on_);
  const Arena::Mark mark = arena_.mark();
  walk(task.cell);
  arena_.release(mark);
  outside_.report();
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

template <class Policy> Found Walk<Policy>::take_found() {
  Found taken = outside_.take_found(std::exchange(decisions_, Decisions()));
  tally_ = outside_.tally();
  return taken;
}

// From a cell that is settled, and that lines cross, depth first.
template <class Policy> void Walk<Policy>::walk(Cell cell) {
  Branch* top = nullptr;
  for (int64_t depth = 0;;) {
    if (goes_down(cell, depth)) {
      Branch* const more = branch(cell, depth);
      more->above = top, top = more;
    }
    do {
      while (top && top->next == top->n) top = top->above;
      if (!top || outside_.stopped()) return;
      if (!Policy::kPutsOff) arena_.release(top->mark);
      enter_part(*top, cell), depth = top->depth;
    } while (!settle_down(cell));
  }
}

// The cell is settled in all stages before cell.stage. False: that is all of them, and it is written.
template <class Policy> inline bool Walk<Policy>::enter_stage(Cell& cell) {
  const Fold& fold = *cell.fold;
  while (cell.stage < n_stages_ && fold.stages[cell.stage].begin == fold.stages[cell.stage].end) finish_stage(cell);
  if (cell.stage == n_stages_) {
    if (options_.cells) outside_.write(cell.polygon, on_);
    outside_.count(1);
    return false;
  }
  const StageView& stage = fold.stages[cell.stage];
  if (cell.reach <= stage.begin)
    cell.forms = fold.far, cell.reach = stage.end, cell.spent = 0;
  else if (cell.spent + 3 * (stage.end - stage.begin) + kEvaluation > shared_.budget)
    prepay(cell);
  if (options_.cells) name_edges(cell.polygon);
  cell.attempt = INT64_MAX;
  cell.unsettled = unsettled_of(cell);
  if (fold.norms.own) cell.unsettled.p = capped(cell);
  return true;
}

// Settles what is settled. A cell that no line of its stage is left to cross goes on to the next; false: it is done.
template <class Policy> inline bool Walk<Policy>::settle_down(Cell& cell) {
  for (;;) {
    if (cell.unsettled.n) has_groups(cell.stage) ? settle_maxima(cell) : settle(cell);
    if (cell.unsettled.n) return true;
    finish_stage(cell);
    if (!enter_stage(cell)) return false;
  }
}

// A cell that is settled in its stage.
template <class Policy> inline void Walk<Policy>::finish_stage(Cell& cell) {
  ++tally_.regions[cell.stage];
  if (options_.pieces) see_pieces(cell.polygon, cell.stage);
  ++cell.stage;
}

// Whether a cell is to be cut; else it was counted, or put off. It may be folded.
template <class Policy> inline bool Walk<Policy>::goes_down(Cell& cell, int64_t depth) {
  const bool last = cell.stage + 1 == n_stages_;
  if (last && !options_.cells && cell.polygon.n > 2 && !has_groups(cell.stage) && count_chords(cell)) return false;
  if constexpr (Policy::kPutsOff)
    if (policy.is_deep(depth)) {
      policy.before.push_back(take_found());
      policy.tasks.push_back({cell, {on_, on_ + padded(system_.lines)}});
      return false;
    }
  if (!last && options_.fold_ahead) refold(cell);
  return true;
}

// Cuts by the first line, or into the shares of the first group's candidates.
template <class Policy> inline Branch* Walk<Policy>::branch(const Cell& cell, int64_t depth) {
  Branch& branch = *arena_.take<Branch>(1);
  branch.cell = cell;
  branch.next = 0;
  if (has_groups(cell.stage)) {
    branch.size = group_end(cell.unsettled, 0);
    branch.parts = arena_.take<Share>(branch.size);
    branch.n = cut_into_shares(cell, branch.size, branch.parts);
    branch.depth = depth;  // as many cuts in two make so many shares
    while ((int64_t{1} << (branch.depth - depth)) < branch.n) ++branch.depth;
  } else {
    branch.size = 1, branch.n = 2, branch.depth = depth + 1;
    branch.parts = arena_.take<Share>(2);
    Polygon above, below;
    const bool starts_below = cut_by_first(cell, above, below);
    const int64_t first = cell.polygon.n == 2 && starts_below;  // segments from their start to their end
    branch.parts[first] = {0, above}, branch.parts[1 - first] = {kNone, below};
  }
  branch.mark = arena_.mark();
  return &branch;
}

// The next part: of the lines that cut, the candidate's is on. When the first is entered, `cell` is the branch's.
template <class Policy> inline void Walk<Policy>::enter_part(Branch& branch, Cell& cell) {
  if (branch.next) cell = branch.cell;
  const Share& part = branch.parts[branch.next++];
  const Unsettled& all = branch.cell.unsettled;
  cell.unsettled = without_first(all, branch.size);
  cell.polygon = part.polygon;
  for (int64_t i = 0; i < branch.size; ++i) set_on(all.line[i], i == part.candidate);
  if (part.candidate != kNone && cell.stage + 1 < n_stages_)
    substitute(cell, {all.from(part.candidate), 1, all.row + part.candidate});
}

}  // namespace
}  // namespace pylinregion
