// csrc/partition/fold_system.inl -- Engine: the smaller system that a fold makes. What it rounds: Lemma 1 of
// docs/exactness.md.
//
// A system of the rows that are kept; those that are on are eliminated, stage by stage, as a Schur complement:
//   X_rc = C_rc + sum over on rows t of C_rt X_tc, for the kept columns c and the affine part.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

constexpr int64_t kMovedTogether = 32;  // columns: what is added to them is read once from far memory

// Old rows are those of the cell's fold, new rows those that are kept, in the fold that is made. Stages [first, end) of
// the plan are folded. Stages before last_ are touched: their rows take from what is eliminated. Later ones stay.
class Engine::FoldMaker {
 public:
  PLR_ENGINE FoldMaker(Engine& engine, Cell& cell, const FoldPlan& plan);
  PLR_ENGINE void make();

 private:
  PLR_STEP void number_rows();
  PLR_ENGINE int64_t number_stage(int64_t l, int32_t* to) const;
  PLR_STEP void lay_out_columns();

  PLR_ENGINE void take_room();
  PLR_ENGINE void move_columns();
  PLR_STEP void move_some_columns(int64_t l, int64_t k, int64_t n);
  template <int N> PLR_ENGINE void take_columns(int64_t l, int64_t k, int64_t i);
  PLR_ENGINE void eliminate_from_columns(int64_t j, int64_t n);
  template <int N> PLR_ENGINE void keep_columns(int64_t l, int64_t k, int64_t i);

  PLR_ENGINE void find_gammas();
  PLR_STEP void eliminate_and_bound();
  PLR_STEP void keep_forms();
  PLR_STEP void find_norms();
  PLR_ENGINE void install(Fold* made);

  PLR_ENGINE int64_t on(int64_t l) const {
    return on_begin_[l + 1] - on_begin_[l];
  }  // how many rows of a stage are eliminated
  // For as many old rows of a stage as there are lanes, which are kept; null: all.
  PLR_ENGINE const Bits* keeps(int64_t l) const { return l < plan_.end ? plan_.keeps + plan_.keeps_begin[l] : nullptr; }
  // N of the columns that are moved together, from the i-th on, at an old row.
  template <int N> PLR_ENGINE Arrays<N> room(int64_t i, int64_t row) const;
  // work(the number n, but at most 4) as a constant
  template <class Work> PLR_ENGINE static void with_count(int64_t n, const Work& work);

  Engine& engine_;
  Arena& arena_;
  Cell& cell_;
  const Fold& fold_;
  const FoldPlan& plan_;
  const int64_t n_stages_, first_, last_;
  const int64_t folded_end_, untouched_;  // old rows: behind the folded stages, behind the touched ones
  const int64_t reach_, rows_;            // new rows: of the touched stages, all

  // What is made.
  StageView* stages_;    // [n_stages_]
  double** columns_;     // [last_] of each folded stage
  int32_t* lines_;       // [rows_]
  int32_t* kept_;        // [reach_] old rows
  int64_t* on_begin_;    // [last_ + 1] into plan_.on, by stage
  int64_t* column_end_;  // [last_] the stage before which the columns of a folded stage end
  RowForms made_forms_;  // [reach_]
  Norms made_norms_{};

  // On the way, of the old rows from behind_ to untouched_. That some of them do not live on is not worth leaving out.
  const int64_t behind_, size_;
  double* room_;                       // [kMovedTogether][size_]
  RowArray size_before_, size_after_;  // |A_r| + sum |C_rc| high_c, of the row as it was, and will be
  RowForms forms_;                     // p: e'_r of Lemma 1
  RowForms given_;                     // what rows that are eliminated give to others: p is e'_t + gamma size'_t
  double* gamma_;                      // [last_] what a row of a stage rounds by, in units of its size
  double largest_gamma_ = 0;
};

PLR_ENGINE Engine::FoldMaker::FoldMaker(Engine& engine, Cell& cell, const FoldPlan& plan)
    : engine_(engine),
      arena_(engine.arena_),
      cell_(cell),
      fold_(*cell.fold),
      plan_(plan),
      n_stages_(engine.n_stages_),
      first_(plan.first),
      last_(plan.touched_end),
      folded_end_(fold_.stages[plan.end - 1].end),
      untouched_(last_ < n_stages_ ? fold_.stages[last_].begin : fold_.rows),
      reach_(plan.kept + untouched_ - folded_end_),
      rows_(reach_ + fold_.rows - untouched_),
      stages_(arena_.take<StageView>(n_stages_)),
      columns_(arena_.take<double*>(last_)),
      lines_(arena_.take<int32_t>(rows_ + kLanes)),
      kept_(arena_.take<int32_t>(reach_ + kLanes)),
      on_begin_(arena_.take<int64_t>(last_ + 1)),
      column_end_(arena_.take<int64_t>(last_)),
      behind_(fold_.stages[first_].end),
      size_(padded(untouched_ - behind_ + kLanes)) {}

PLR_ENGINE void Engine::FoldMaker::make() {
  number_rows();
  sync();
  lay_out_columns();
  made_forms_ = engine_.take_row_forms(0, reach_);
  Fold* made = arena_.take<Fold>(1);
  if (fold_.norms.own) made_norms_ = engine_.take_norms();

  const Arena::Mark mark = arena_.mark();
  take_room();
  move_columns();
  find_gammas();
  eliminate_and_bound();
  keep_forms();
  if (fold_.norms.own) find_norms();
  arena_.release(mark);
  install(made);
}

// --- number ---

PLR_STEP void Engine::FoldMaker::number_rows() {
  int64_t n = 0, n_on = 0;
  for (int64_t l = 0; l < first_; ++l) stages_[l] = {0, 0, 0, nullptr, 0}, on_begin_[l] = 0;
  for (int64_t l = first_; l < plan_.end; ++l) {
    const int64_t begin = n;
    n += number_stage(l, kept_ + n);
    stages_[l] = {begin, n, n, nullptr, 0};
    on_begin_[l] = n_on;
    if (l + 1 < n_stages_) n_on += plan_.counts[l].on;  // nothing takes from what is on in the last stage
  }
  for (int64_t l = plan_.end; l < n_stages_; ++l) {
    const StageView& old = fold_.stages[l];
    const int64_t shift = rows_ - fold_.rows;
    stages_[l] = {old.begin + shift, old.end + shift, old.extent + shift, old.columns, old.stride};
  }
  for (int64_t l = plan_.end; l <= last_; ++l) on_begin_[l] = n_on;
  copy(engine_.shared_.row_numbers + folded_end_, untouched_ - folded_end_, kept_ + n);
  each(reach_, [&](int64_t i) { lines_[i] = fold_.line[kept_[i]]; });
  copy(fold_.line + untouched_, fold_.rows - untouched_, lines_ + reach_);
}

// The old rows of a folded stage that are kept, and how many.
PLR_ENGINE int64_t Engine::FoldMaker::number_stage(int64_t l, int32_t* to) const {
  if (l == first_) {
    copy(cell_.unsettled.row, cell_.unsettled.n, to);
    return cell_.unsettled.n;
  }
  const StageView& old = fold_.stages[l];
  const Bits* kept = keeps(l);
  int32_t* end = to;
  for (int64_t r = old.begin; r < old.end; r += kLanes) end = compress(end, engine_.shared_.row_numbers + r, *kept++);
  return end - to;
}

// The columns of a folded stage end with what it takes part in, or with what those that are on behind it do.
PLR_STEP void Engine::FoldMaker::lay_out_columns() {
  int64_t behind = 0;
  for (int64_t l = plan_.end; l-- > first_;) {
    const int64_t extent = std::max(fold_.stages[l].extent, behind);
    if (on(l)) behind = extent;
    int64_t to = l + 1;
    while (to < last_ && fold_.stages[to].begin < extent) ++to;
    column_end_[l] = to;
    StageView& stage = stages_[l];
    stage.extent = to < last_ ? stages_[to].begin : reach_;
    stage.stride = padded(stage.extent - stage.end) + kLanes;
    columns_[l] = arena_.take<double>((stage.end - stage.begin) * stage.stride);
    stage.columns = columns_[l];
  }
}

// --- move the columns that are kept, and eliminate from them ---

PLR_ENGINE void Engine::FoldMaker::take_room() {
  double* memory = arena_.take<double>(7 * size_);
  const auto array = [&](int64_t i) { return memory + i * size_; };
  size_before_ = {array(0), behind_}, size_after_ = {array(1), behind_};
  fill(array(0), 2 * size_, 0.0);
  forms_ = {{array(2), array(3), array(4), array(5)}, behind_};
  given_ = {{array(2), array(3), array(4), array(6)}, behind_};
  room_ = arena_.take<double>(kMovedTogether * size_);
  gamma_ = arena_.take<double>(last_);
}
template <int N> PLR_ENGINE Arrays<N> Engine::FoldMaker::room(int64_t i, int64_t row) const {
  Arrays<N> out;
  for (int j = 0; j < N; ++j) out.at[j] = room_ + ((i + j) * size_ + row - behind_);
  return out;
}
template <class Work> PLR_ENGINE void Engine::FoldMaker::with_count(int64_t n, const Work& work) {
  switch (n) {
    case 1: return work(std::integral_constant<int, 1>());
    case 2: return work(std::integral_constant<int, 2>());
    case 3: return work(std::integral_constant<int, 3>());
    default: return work(std::integral_constant<int, 4>());
  }
}

PLR_ENGINE void Engine::FoldMaker::move_columns() {
  for (int64_t l = first_; l < plan_.end; ++l) {
    const int64_t n = stages_[l].end - stages_[l].begin;
    for (int64_t k = 0; k < n; k += kMovedTogether) move_some_columns(l, k, std::min(n - k, +kMovedTogether));
  }
}
// Of stage l n columns, from the k-th on.
PLR_STEP void Engine::FoldMaker::move_some_columns(int64_t l, int64_t k, int64_t n) {
  for (int64_t i = 0; i < n; i += 4) with_count(n - i, [&](auto count) { take_columns<count>(l, k + i, i); });
  for (int64_t j = l + 1; j < std::min(column_end_[l], plan_.end); ++j)
    if (on(j)) eliminate_from_columns(j, n);
  for (int64_t i = 0; i < n; i += 4) with_count(n - i, [&](auto count) { keep_columns<count>(l, k + i, i); });
}

// N columns from the k-th on, as they are.
template <int N> PLR_ENGINE void Engine::FoldMaker::take_columns(int64_t l, int64_t k, int64_t i) {
  const StageView& from = fold_.stages[l];
  const int64_t stage_end = column_end_[l];
  const int64_t end = (stage_end < last_ ? fold_.stages[stage_end].begin : untouched_) - from.end;
  const int64_t extent = from.extent - from.end;
  const Arrays<N> to = room<N>(i, from.end);
  double* const sizes = size_before_.from(from.end);
  const double* columns[N];
  V high[N];
  for (int j = 0; j < N; ++j) {
    const int64_t row = kept_[stages_[l].begin + k + j];
    columns[j] = from.columns + (row - from.begin) * from.stride, high[j] = set(plan_.high[row]);
  }
  for (int64_t r = 0; r < extent; r += kLanes) {
    V size = load(sizes + r);
    for (int j = 0; j < N; ++j) {
      const V w = load(columns[j] + r);
      store(to.at[j] + r, w);
      size = multiply_add(abs(w), high[j], size);
    }
    store(sizes + r, size);
  }
  for (int j = 0; j < N; ++j) fill(to.at[j] + extent, end - extent, 0.0);
}

// To the n columns that are moved together, what the rows of stage j that are on take from them and give on.
PLR_ENGINE void Engine::FoldMaker::eliminate_from_columns(int64_t j, int64_t n) {
  const Arena::Mark mark = arena_.mark();
  const StageView& stage = fold_.stages[j];
  const int32_t* t = plan_.on + on_begin_[j];
  Arrays<4> values[kMovedTogether / 4];
  for (int64_t i = 0; i < n; i += 4)
    with_count(n - i, [&](auto count) {
      const Arrays<count> some = engine_.gathered(room<count>(i, stage.begin), stage.begin, t, on(j));
      for (int c = 0; c < count; ++c) values[i / 4].at[c] = some.at[c];
    });
  int64_t r = 0;
  const auto add_rows = [&](auto vectors) {
    for (int64_t i = 0; i < n; i += 4)
      with_count(n - i, [&](auto count) {
        const Arrays<count> rows = room<count>(i, stage.end);
        Columns<count> columns{&stage, t, {}, on(j)};
        for (int c = 0; c < count; ++c) columns.values.at[c] = values[i / 4].at[c];
        add_columns<vectors, count, false>(rows, rows, r, columns);
      });
    r += vectors * kLanes;
  };
  const int64_t end = stage.extent - stage.end;
  while (r + (kTall - 1) * kLanes < end) add_rows(std::integral_constant<int, kTall>());
  while (r < end) add_rows(std::integral_constant<int, 1>());
  arena_.release(mark);
}

// What is kept of their rows.
template <int N> PLR_ENGINE void Engine::FoldMaker::keep_columns(int64_t l, int64_t k, int64_t i) {
  const StageView& to = stages_[l];
  double* out[N];
  V high[N];
  for (int j = 0; j < N; ++j) {
    out[j] = columns_[l] + (k + j) * to.stride;
    high[j] = set(plan_.high[kept_[to.begin + k + j]]);
  }
  double* const stop = out[0] + to.stride;
  for (int64_t s = l + 1; s < column_end_[l]; ++s) {
    const StageView& stage = fold_.stages[s];
    const int64_t n = stage.end - stage.begin;
    const Bits* which = keeps(s);
    const Arrays<N> from = room<N>(i, stage.begin);
    double* const sizes = size_after_.from(stage.begin);
    for (int64_t r = 0; r < n; r += kLanes) {
      const uint32_t valid = first_lanes(n - r), kept = which ? *which++ : valid;
      const V before = load(sizes + r);
      V size = before;
      for (int j = 0; j < N; ++j) {
        const V w = load(from.at[j] + r);
        size = multiply_add(abs(w), high[j], size);
        out[j] = compress(out[j], w, kept);
      }
      store(sizes + r, select(valid, size, before));
    }
  }
  const int64_t rest = stop - out[0];
  for (int j = 0; j < N; ++j) fill(out[j], rest, 0.0);
}

// --- eliminate from the forms, with bounds ---

// A row rounds as many products as are added to it; none: nothing.
PLR_ENGINE void Engine::FoldMaker::find_gammas() {
  for (int64_t l = first_; l < last_; ++l) {
    int64_t added = 0;
    for (int64_t j = first_; j < std::min(l, plan_.end); ++j)
      if (fold_.stages[j].extent > fold_.stages[l].begin) added += on(j);
    gamma_[l] = added ? gamma(added + 3) : 0;
    largest_gamma_ = std::max(largest_gamma_, gamma_[l]);
  }
}

// The forms, and e'_r = e_r + gamma_r size_r + sum |C_rt| (e'_t + gamma size'_t): Lemma 1.
PLR_STEP void Engine::FoldMaker::eliminate_and_bound() {
  const int64_t reach = std::max(behind_, cell_.reach);
  copy_forms(cell_.forms.from(behind_), forms_.from(behind_), reach - behind_);
  copy_forms(fold_.far.from(reach), forms_.from(reach), untouched_ - reach);
  for (int64_t i = 0; i < untouched_ - behind_; i += kLanes)
    store(size_before_.begin + i, load(size_before_.begin + i) + engine_.magnitudes(forms_.forms, i));
  for (int64_t l = first_ + 1; l < last_; ++l) {
    const StageView& stage = fold_.stages[l];
    const int64_t n = stage.end - stage.begin;
    const Forms x = forms_.from(stage.begin);
    const double* before = size_before_.from(stage.begin);
    double *after = size_after_.from(stage.begin), *given = given_.from(stage.begin).p;
    for (int64_t r = 0; r < n; r += kLanes) {  // the next stage's rows are not known yet
      const uint32_t valid = first_lanes(n - r);
      const V off = load(x.p + r), so_far = load(after + r), whole = so_far + engine_.magnitudes(x, r);
      const V off_now = (off + set(gamma_[l]) * load(before + r)) * set(kInflate);
      store(x.p + r, select(valid, off_now, off));
      store(after + r, select(valid, whole, so_far));
      store(given + r, off_now + set(largest_gamma_) * whole);
    }
    if (!on(l)) continue;
    const int32_t* t = plan_.on + on_begin_[l];
    const Arrays<4> gives = engine_.gathered(given_.forms.arrays(), behind_, t, on(l));
    const Arrays<4> takes = forms_.from(stage.end).arrays();
    add_columns<4, true>(takes, takes, {&stage, t, gives, on(l)});
  }
}

// Those of the new rows, with the budget of roundings prepaid.
PLR_STEP void Engine::FoldMaker::keep_forms() {
  const Unsettled& left = cell_.unsettled;
  const Forms& out = made_forms_.forms;
  copy_forms(left, out, left.n);
  Arrays<4> to = out.from(left.n).arrays();
  for (int64_t l = first_ + 1; l < last_; ++l) {
    const int64_t n = fold_.stages[l].end - fold_.stages[l].begin;
    const Arrays<4> from = forms_.from(fold_.stages[l].begin).arrays();
    const Bits* which = keeps(l);
    for (int64_t r = 0; r < n; r += kLanes) {
      const uint32_t kept = which ? *which++ : first_lanes(n - r);
      for (int i = 0; i < 4; ++i) to.at[i] = compress(to.at[i], load(from.at[i] + r), kept);
    }
  }
  for (int64_t r = 0; r < reach_; r += kLanes)
    store(out.p + r, load(out.p + r) + set(engine_.shared_.prepaid) * engine_.magnitudes(out, r));
}

// As the norm form has them (docs/exactness.md, 5.1): what the rows have rounded by themselves, now with this fold.
PLR_STEP void Engine::FoldMaker::find_norms() {
  double *rounded = arena_.take<double>(last_), *after = arena_.take<double>(last_);
  for (int64_t l = first_; l < last_; ++l) {
    const StageView& stage = fold_.stages[l];
    const int64_t n = stage.end - stage.begin;
    double sum = gamma_[l] ? norm(size_before_.from(stage.begin), n) : 0;
    after[l] = on(l) ? norm(size_after_.from(stage.begin), n) : 0;
    for (int64_t j = first_; j < l; ++j) sum += engine_.frobenius(l, j) * after[j];
    rounded[l] = sum * (gamma_[l] * kInflateNorm);
  }
  const Norms &old = fold_.norms, &to = made_norms_;
  const double operations = static_cast<double>(cell_.operations) * 2 * kUnit;
  for (int64_t l = 0; l < n_stages_; ++l) {
    double own = old.own[l];
    if (l >= fold_.first && l < last_) own += operations * old.size[l] * kInflateNorm;
    if (l >= first_ && l < last_) own += rounded[l];
    to.own[l] = own;
    if (l >= first_ && l < last_) {
      to.size[l] = engine_.size_norm(made_forms_.from(stages_[l].begin), stages_[l].end - stages_[l].begin);
    } else if (l >= last_) {
      const StageView& stage = fold_.stages[l];
      to.size[l] = engine_.size_norm(fold_.far.from(stage.begin), stage.end - stage.begin);
    }
  }
  engine_.add_up(to, first_);
}

// --- install ---

PLR_ENGINE void Engine::FoldMaker::install(Fold* made) {
  const RowForms far{fold_.far.forms, fold_.far.first - (fold_.rows - rows_)};  // the same, by new rows
  *made = {stages_, rows_, lines_, far, first_, fold_.depth + 1, made_norms_};
  cell_.fold = made;
  cell_.forms = made_forms_, cell_.reach = reach_;
  cell_.spent = cell_.operations = 0;
  cell_.unsettled = engine_.unsettled_of(cell_);
}

}  // namespace
}  // namespace pylinregion
