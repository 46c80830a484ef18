// csrc/partition/walk.inl -- the walk: depth first over cells, stage by stage. A policy says which cells are put off,
// for other walks: policy.puts_off(walk, cell, depth), asked for each cell that is settled and that lines cross; and
// policy.puts_off_open(walk, cell, next), told of one where a decision is not known yet.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// What a walk does next with a cell: settles the lines of its stage; folds it, where that pays, or counts by chords, or
// puts it off; cuts it.
enum class Next : int32_t { settle, go_down, cut };

// All cells are walked to the leaves, and memory is given back on the way.
struct WalksAll {
  static constexpr bool kKeepsMemory = false;
  template <class Walk> PLR_ENGINE bool puts_off(Walk&, const Cell&, int64_t) { return false; }
  template <class Walk> PLR_ENGINE void puts_off_open(Walk&, const Cell&, Next) {}
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
  PLR_ENGINE Walk(const Shared& shared, Outside& outside, Policy& policy) : Engine(shared, outside), policy_(policy) {}

  // The whole polygon, in front of its first stage; of a system without stages it is found at once, and false.
  PLR_ENGINE bool root(Cell& cell);
  PLR_ENGINE void from_root();
  // From a cell; on: [lines, padded] of those that are settled, which are on.
  PLR_ENGINE void from(const Cell& cell, const uint8_t* on, Next next);

  // Of the lines that are settled where the walk is, which are on.
  PLR_ENGINE const uint8_t* on() const { return on_; }
  // What was counted since it was asked last; what comes is counted anew.
  PLR_ENGINE Decisions take_decisions();

 private:
  PLR_ENGINE Polygon root_polygon();
  PLR_ENGINE void walk(Cell& cell, bool is_cut = false);
  PLR_STEP bool enter_stage(Cell& cell);
  PLR_ENGINE bool settle_down(Cell& cell);
  PLR_ENGINE bool goes_down(Cell& cell, int64_t depth);
  PLR_STEP Branch* branch(const Cell& cell, int64_t depth);
  PLR_STEP void enter_part(Branch& branch, Cell& cell);
  PLR_ENGINE void finish_stage(Cell& cell);

  // A cell before a step in which something may stay open.
  struct Before {
    Cell cell;
    Decisions decisions;
  };
  PLR_ENGINE Before before(const Cell& cell);
  PLR_ENGINE bool is_open(const Before& before, Next next);

  Policy& policy_;
};

template <class Policy> PLR_ENGINE void Walk<Policy>::from_root() {
  Cell cell;
  if (root(cell) && settle_down(cell)) walk(cell);
}

template <class Policy> PLR_ENGINE bool Walk<Policy>::root(Cell& cell) {
  const RowForms rows = take_row_forms(0, system_.rows);
  const Forms& forms = rows.forms;
  each(system_.rows, [&](int64_t r) {
    forms.a[r] = system_.a[r], forms.b[r] = system_.b[r], forms.c[r] = system_.c[r];
    forms.p[r] = system_.error[r] + shared_.prepaid * magnitude(forms, r);
  });
  Fold* const fold = arena_.take<Fold>(1);
  *fold = Fold{system_.stages.first, system_.rows, root_lines(), rows, 0, 0, root_norms(forms)};
  cell = {fold, 0, rows, 0, {}, root_polygon(), 0, 0, INT64_MAX};
  return enter_stage(cell);
}

template <class Policy> PLR_ENGINE void Walk<Policy>::from(const Cell& cell, const uint8_t* on, Next next) {
  copy(on, padded(system_.lines), on_);
  const Arena::Mark mark = arena_.mark();
  Cell here = cell;
  if (next != Next::settle || settle_down(here)) walk(here, next == Next::cut);
  arena_.release(mark);
}

template <class Policy> PLR_ENGINE Polygon Walk<Policy>::root_polygon() {
  const int64_t n = system_.n_corners;
  Polygon p = take_polygon(arena_, n, options_.cells);
  p.d_max = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double *corner = system_.corners + 2 * i, *next = system_.corners + 2 * ((i + 1) % n);
    p.x[i] = corner[0], p.y[i] = corner[1];
    double d = 0;
    if (system_.borders) {
      d = kUnit * kInflate * std::max(std::fabs(corner[0]), std::fabs(corner[1])) + kQuotientUnderflow;
      p.d_max = std::max(p.d_max, d);
      corner = system_.borders + 4 * i, next = corner + 2;
    }
    p.d[i] = d;
    if (p.keys) p.keys[i] = hashed({1, 2}, static_cast<uint64_t>(i));
    RowOnPlane row;
    if (n == 2) {
      row = {1, 0, -corner[0], 0, border_row(i)};
    } else {
      row = {corner[1] - next[1], next[0] - corner[0], corner[0] * next[1] - next[0] * corner[1], 0, border_row(i)};
      const double size = std::fabs(row.a) * shared_.hs + std::fabs(row.b) * shared_.ht +
                          std::fabs(corner[0] * next[1]) + std::fabs(next[0] * corner[1]);
      row.error = 8 * kUnit * size + kBorderUnderflow;
    }
    RowOnPlane* const kept = arena_.take<RowOnPlane>(1);
    *kept = row;
    p.edges[i] = kept;
  }
  return p;
}

template <class Policy> PLR_ENGINE Decisions Walk<Policy>::take_decisions() {
  const Decisions taken = decisions_;
  decisions_ = Decisions();
  tally_ = outside_.tally();
  return taken;
}

// From a cell that is settled, and that lines cross, depth first. is_cut: nothing else is left to do with it.
template <class Policy> PLR_ENGINE void Walk<Policy>::walk(Cell& cell, bool is_cut) {
  Branch* top = nullptr;
  for (int64_t depth = 0;;) {
    if (is_cut || goes_down(cell, depth)) {
      Branch* const more = branch(cell, depth);
      if (more) more->above = top, top = more;
    }
    is_cut = false;
    do {
      while (top && top->next == top->n) top = top->above;
      if (!top || outside_.stopped()) return;
      if (!Policy::kKeepsMemory) arena_.release(top->mark);
      enter_part(*top, cell), depth = top->depth;
    } while (!settle_down(cell));
  }
}

// The cell is settled in all stages before cell.stage. False: that is all of them, and it is written.
template <class Policy> PLR_STEP bool Walk<Policy>::enter_stage(Cell& cell) {
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
template <class Policy> PLR_ENGINE bool Walk<Policy>::settle_down(Cell& cell) {
  for (;;) {
    if (cell.unsettled.n) {
      const Before at = before(cell);
      has_groups(cell.stage) ? settle_maxima(cell) : settle(cell);
      if (is_open(at, Next::settle)) return false;
    }
    if (cell.unsettled.n) return true;
    finish_stage(cell);
    if (!enter_stage(cell)) return false;
  }
}

// A cell that is settled in its stage.
template <class Policy> PLR_ENGINE void Walk<Policy>::finish_stage(Cell& cell) {
  add_to(tally_.regions[cell.stage], 1);
  if (options_.pieces) see_pieces(cell.polygon, cell.stage);
  ++cell.stage;
}

// Whether a cell is to be cut; else it was counted, or put off. It may be folded.
template <class Policy> PLR_ENGINE bool Walk<Policy>::goes_down(Cell& cell, int64_t depth) {
  const bool last = cell.stage + 1 == n_stages_;
  if (last && !options_.cells && cell.polygon.n > 2 && !has_groups(cell.stage) && count_chords(cell)) return false;
  if (policy_.puts_off(*this, cell, depth)) return false;
  if (!last && options_.fold_ahead) refold(cell);
  return true;
}

template <class Policy> PLR_ENGINE typename Walk<Policy>::Before Walk<Policy>::before(const Cell& cell) {
  if (options_.pieces) outside_.keep_zeros();
  return {cell, decisions_};
}

// Whether a decision of the last step is not known yet; then the cell is put off as it was before.
template <class Policy> PLR_ENGINE bool Walk<Policy>::is_open(const Before& before, Next next) {
  if (!outside_.is_open()) return false;  // never, where integers decide at once
  decisions_ = before.decisions;
  if (options_.pieces) outside_.put_zeros_back();
  policy_.puts_off_open(*this, before.cell, next);
  return true;
}

// Cuts by the first line, or into the shares of the first group's candidates. Null: it is put off.
template <class Policy> PLR_STEP Branch* Walk<Policy>::branch(const Cell& cell, int64_t depth) {
  const Before at = before(cell);
  Branch& branch = *arena_.take<Branch>(1);
  branch.cell = cell;
  branch.next = 0;
  if (has_groups(cell.stage)) {
    branch.size = group_end(cell.unsettled, 0);
    branch.parts = arena_.take<Share>(branch.size);
    branch.n = cut_into_shares(cell, branch.size, branch.parts);
    int64_t halvings = 0;  // as many cuts in two make so many shares
    while ((int64_t{1} << halvings) < branch.n) ++halvings;
    branch.depth = depth + halvings;
  } else {
    branch.size = 1, branch.n = 2, branch.depth = depth + 1;
    branch.parts = arena_.take<Share>(2);
    Polygon above, below;
    const bool starts_below = cut_by_first(cell, above, below);
    const int64_t first = cell.polygon.n == 2 && starts_below;  // segments from their start to their end
    branch.parts[first] = {0, above}, branch.parts[1 - first] = {kNone, below};
  }
  if (is_open(at, Next::cut)) return nullptr;
  branch.mark = arena_.mark();
  return &branch;
}

// The next part: of the lines that cut, the candidate's is on. When the first is entered, `cell` is the branch's.
template <class Policy> PLR_STEP void Walk<Policy>::enter_part(Branch& branch, Cell& cell) {
  const int64_t number = branch.next;
  if (number) cell = branch.cell;
  put(branch.next, number + 1);
  const Share& part = branch.parts[number];
  const Unsettled& all = branch.cell.unsettled;
  cell.unsettled = without_first(all, branch.size);
  cell.polygon = part.polygon;
  each(branch.size, [&](int64_t i) { set_on(all.line[i], i == part.candidate); });
  if (part.candidate != kNone && cell.stage + 1 < n_stages_)
    substitute(cell, {all.from(part.candidate), 1, all.row + part.candidate});
}

}  // namespace
}  // namespace pylinregion
