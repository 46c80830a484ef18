// csrc/partition/fold.inl -- (Engine) the smaller system that a fold makes. What it rounds: Lemma 1 of
// docs/exactness.md.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

constexpr int64_t kMovedTogether = 32;  // what is added to them is read once from far memory

// A system of the rows that are kept; those that are on are eliminated, stage by stage, as a Schur complement:
//   X_rc = C_rc + sum over on rows t of C_rt X_tc, for the kept columns c and the affine part.
inline void Engine::compact(Cell& cell, const Plan& plan) {
  const Fold& fold = *cell.fold;
  const int64_t first = plan.first, last = plan.touched_end;
  const int64_t untouched = last < n_stages_ ? fold.stages[last].begin : fold.rows;
  const int64_t window_end = fold.stages[plan.end - 1].end;
  const int64_t reach = plan.kept + untouched - window_end, rows = reach + fold.rows - untouched;
  StageView* stages = arena_.take<StageView>(n_stages_);
  int32_t* numbers = arena_.take<int32_t>(rows);
  int32_t* kept = arena_.take<int32_t>(reach);         // the rows in `fold`
  int64_t* on_begin = arena_.take<int64_t>(last + 1);  // by stage
  int64_t n_kept = 0, n_on = 0;
  for (int64_t l = 0; l < n_stages_; ++l) {
    const StageView& old = fold.stages[l];
    if (l < last) on_begin[l] = n_on;
    if (l >= plan.end) {
      const int64_t shift = rows - fold.rows;
      stages[l] = {old.begin + shift, old.end + shift, old.extent + shift, old.columns, old.stride};
    } else {
      stages[l] = {n_kept, n_kept, n_kept, nullptr, 0};
      if (l < first) continue;
      if (l == first) {
        n_kept = cell.candidates.n;
        std::copy(cell.candidates.row, cell.candidates.row + n_kept, kept);
      } else {
        const uint8_t* keeps = plan.keeps + plan.keeps_begin[l];
        for (int64_t r = old.begin; r < old.end; r += kLanes)
          for (uint32_t rest = *keeps++; rest; rest &= rest - 1)
            kept[n_kept++] = static_cast<int32_t>(r + __builtin_ctz(rest));
      }
      stages[l].end = n_kept;
      if (l + 1 < n_stages_) n_on += plan.counts[l].on;  // nothing takes from what is on in the last stage
    }
  }
  on_begin[last] = n_on;
  for (int64_t r = window_end; r < untouched; ++r) kept[n_kept++] = static_cast<int32_t>(r);
  for (int64_t i = 0; i < reach; ++i) numbers[i] = fold.line[kept[i]];
  std::copy(fold.line + untouched, fold.line + fold.rows, numbers + reach);
  // Where the columns of a folded stage end: with what it takes part in, or what those that are on behind it do.
  int64_t* column_end = arena_.take<int64_t>(last);  // in stages
  int64_t behind = 0;
  for (int64_t l = plan.end; l-- > first;) {
    const int64_t extent = std::max(fold.stages[l].extent, behind);
    if (on_begin[l + 1] > on_begin[l]) behind = extent;
    int64_t to = l + 1;
    while (to < last && fold.stages[to].begin < extent) ++to;
    column_end[l] = to;
    const int64_t n = stages[l].end - stages[l].begin;
    stages[l].extent = to < last ? stages[to].begin : reach;
    stages[l].stride = padded(stages[l].extent - stages[l].end) + kLanes;
    stages[l].columns = n ? arena_.take<double>(n * stages[l].stride) : nullptr;
  }
  Affine affine = take_affine(0, reach);
  Fold* out = arena_.take<Fold>(1);
  *out = {stages, rows, numbers, shifted(fold.far, fold.rows - rows), first, fold.depth + 1, {}};
  const OwnNorms norms = fold.norms.own ? take_norms() : OwnNorms{};

  const Arena::Mark mark = arena_.mark();
  // Arrays over all rows of the stages after the first: what does not live on is not worth leaving out.
  const int64_t begin = fold.stages[first].end, size = padded(untouched - begin + kLanes);
  double* memory = arena_.take<double>(7 * size) - begin;
  const auto array = [&](int64_t i) { return memory + i * size; };
  double *size_before = array(0),
         *size_after = array(1);  // |A_r| + sum |C_rc| high_c, of the row as it was, and will be
  std::fill(size_before + begin, size_before + begin + 2 * size, 0.0);
  double* room = arena_.take<double>(kMovedTogether * size) - begin;
  for (int64_t l = first; l < plan.end; ++l) {
    const StageView& stage = fold.stages[l];
    const int64_t n = stages[l].end - stages[l].begin, to = column_end[l];
    const int64_t end = to < last ? fold.stages[to].begin : untouched;
    const Moved moved{&stage, &stages[l], l, to, end, kept + stages[l].begin, size_before, size_after, room, size};
    for (int64_t k = 0; k < n; k += kMovedTogether)
      move_columns(fold, plan, moved, k, std::min(n - k, kMovedTogether), on_begin);
  }
  // The affine parts, and e'_r = e_r + gamma_r size_r + sum |C_rt| (e'_t + gamma size'_t): Lemma 1.
  const Rows4 a{array(2), array(3), array(4), array(5)};
  const Rows4 given{a.a, a.b, a.c, array(6)};
  const int64_t from_far = std::max(begin, cell.reach);
  if (begin < cell.reach) copy_rows(cell.affine, a, begin, cell.reach);
  if (from_far < untouched) copy_rows(fold.far, a, from_far, untouched);
  // A row rounds as many products as are added to it; none: nothing.
  double* gamma = arena_.take<double>(last);
  double largest_gamma = 0;
  for (int64_t l = first; l < last; ++l) {
    int64_t added = 0;
    for (int64_t j = first; j < std::min(l, plan.end); ++j)
      if (fold.stages[j].extent > fold.stages[l].begin) added += on_begin[j + 1] - on_begin[j];
    gamma[l] = added ? pylinregion::gamma(added + 3) : 0;
    largest_gamma = std::max(largest_gamma, gamma[l]);
  }
  for (int64_t r = begin; r < untouched; r += kLanes) store(size_before + r, load(size_before + r) + magnitudes(a, r));
  for (int64_t l = first + 1; l < last; ++l) {
    const StageView& stage = fold.stages[l];
    for (int64_t r = stage.begin; r < stage.end; r += kLanes) {  // the next stage's rows are not known yet
      const uint32_t valid = first_lanes(stage.end - r);
      const V off = load(a.p + r), so_far = load(size_after + r), whole = so_far + magnitudes(a, r);
      const V off_now = (off + set(gamma[l]) * load(size_before + r)) * set(kInflate);
      store(a.p + r, select(valid, off_now, off));
      store(size_after + r, select(valid, whole, so_far));
      store(given.p + r, off_now + set(largest_gamma) * whole);
    }
    const int64_t some = l < plan.end ? on_begin[l + 1] - on_begin[l] : 0;
    if (some) add(a, a, stage, gathered(given, plan.on + on_begin[l], some));
  }
  double* fresh = arena_.take<double>(last);  // norms of what is rounded here
  if (fold.norms.own) {
    double* after = arena_.take<double>(last);
    for (int64_t l = first; l < last; ++l) {
      const StageView& stage = fold.stages[l];
      fresh[l] = gamma[l] ? norm(size_before, stage.begin, stage.end) : 0;
      after[l] = on_begin[l + 1] > on_begin[l] ? norm(size_after, stage.begin, stage.end) : 0;
      for (int64_t j = first; j < l; ++j) fresh[l] += frobenius(l, j) * after[j];
      fresh[l] *= gamma[l] * kInflateNorm;
    }
  }
  const Candidates& left = cell.candidates;
  const double* const from[4] = {a.a, a.b, a.c, a.p};
  double* to[4] = {affine.a + left.n, affine.b + left.n, affine.c + left.n, affine.p + left.n};
  for (int64_t l = first + 1; l < last; ++l) {
    const StageView& stage = fold.stages[l];
    const uint8_t* keeps = l < plan.end ? plan.keeps + plan.keeps_begin[l] : nullptr;  // null: all
    for (int64_t r = stage.begin; r < stage.end; r += kLanes) {
      const uint32_t kept_here = keeps ? *keeps++ : first_lanes(stage.end - r);
      for (int i = 0; i < 4; ++i) to[i] = put(to[i], load(from[i] + r), kept_here);
    }
  }
  std::copy(left.a, left.a + left.n, affine.a), std::copy(left.b, left.b + left.n, affine.b);
  std::copy(left.c, left.c + left.n, affine.c), std::copy(left.p, left.p + left.n, affine.p);
  for (int64_t r = 0; r < reach; r += kLanes)
    store(affine.p + r, load(affine.p + r) + set(shared_.prepaid) * magnitudes(affine, r));
  if (fold.norms.own) out->norms = folded_norms(norms, cell, first, last, stages, affine, fresh);
  arena_.release(mark);
  cell.fold = out;
  cell.affine = affine, cell.reach = reach;
  cell.spent = cell.operations = 0;
  cell.candidates = candidates_of(cell);
}
// n of them, from the k-th on.
inline void Engine::move_columns(const Fold& fold, const Plan& plan, const Moved& moved, int64_t k, int64_t n,
                                 const int64_t* on_begin) {
  const auto room = [&](int64_t i) { return moved.room + i * moved.size; };
  for (int64_t i = 0; i < n; i += 4)
    with_count(n - i, [&](auto count) { take_columns<count>(plan, moved, k + i, room(i)); });
  for (int64_t j = moved.stage + 1; j < std::min(moved.stage_end, plan.end); ++j) {
    const int64_t some = on_begin[j + 1] - on_begin[j];
    if (!some) continue;
    const Arena::Mark mark = arena_.mark();
    const StageView& stage = fold.stages[j];
    Rows4 rows[kMovedTogether / 4];
    Columns columns[kMovedTogether / 4];
    for (int64_t i = 0; i < n; i += 4)
      with_count(n - i, [&](auto count) {
        rows[i / 4] = {room(i), room(i + 1), room(i + 2), room(i + 3)};
        columns[i / 4] = columns_of(stage, gathered<count>(rows[i / 4], plan.on + on_begin[j], some));
      });
    int64_t r = stage.end;
    const auto add_rows = [&](auto vectors) {
      for (int64_t i = 0; i < n; i += 4)
        with_count(n - i, [&](auto count) {
          add_columns<vectors, count, false>(rows[i / 4], rows[i / 4], r, columns[i / 4]);
        });
      r += vectors * kLanes;
    };
    while (r + (kTall - 1) * kLanes < stage.extent) add_rows(std::integral_constant<int, kTall>());
    while (r < stage.extent) add_rows(std::integral_constant<int, 1>());
    arena_.release(mark);
  }
  for (int64_t i = 0; i < n; i += 4)
    with_count(n - i, [&](auto count) { keep_columns<count>(fold, plan, moved, k + i, room(i)); });
}
// work(the number n, but at most 4) as a constant
template <class Work> inline void Engine::with_count(int64_t n, const Work& work) {
  switch (n) {
    case 1: return work(std::integral_constant<int, 1>());
    case 2: return work(std::integral_constant<int, 2>());
    case 3: return work(std::integral_constant<int, 3>());
    default: return work(std::integral_constant<int, 4>());
  }
}
// N columns from the k-th on, as they are.
template <int N> inline void Engine::take_columns(const Plan& plan, const Moved& moved, int64_t k, double* room) {
  const StageView& from = *moved.from;
  const double* columns[N];
  double* v[N];
  V high[N];
  for (int i = 0; i < N; ++i) {
    const int64_t row = moved.rows[k + i];
    columns[i] = column(from, row), v[i] = room + i * moved.size, high[i] = set(plan.high[row]);
  }
  for (int64_t r = from.end; r < from.extent; r += kLanes) {
    V size = load(moved.size_before + r);
    for (int i = 0; i < N; ++i) {
      const V w = load(columns[i] + r);
      store(v[i] + r, w);
      size = multiply_add(abs(w), high[i], size);
    }
    store(moved.size_before + r, size);
  }
  for (int i = 0; i < N; ++i) std::fill(v[i] + from.extent, v[i] + moved.row_end, 0.0);
}
// What is kept of their rows.
template <int N> inline void Engine::keep_columns(const Fold& fold, const Plan& plan, const Moved& moved, int64_t k,
                                                  const double* room) {
  const StageView& to = *moved.to;
  const double* v[N];
  double* out[N];
  V high[N];
  for (int i = 0; i < N; ++i) {
    v[i] = room + i * moved.size, high[i] = set(plan.high[moved.rows[k + i]]);
    out[i] = const_cast<double*>(to.columns) + (k + i) * to.stride;
  }
  double* const stop = out[0] + to.stride;
  for (int64_t j = moved.stage + 1; j < moved.stage_end; ++j) {
    const StageView& stage = fold.stages[j];
    const uint8_t* keeps = j < plan.end ? plan.keeps + plan.keeps_begin[j] : nullptr;  // null: all
    for (int64_t r = stage.begin; r < stage.end; r += kLanes) {
      const uint32_t valid = first_lanes(stage.end - r), kept = keeps ? *keeps++ : valid;
      const V before = load(moved.size_after + r);
      V size = before;
      for (int i = 0; i < N; ++i) {
        const V w = load(v[i] + r);
        size = multiply_add(abs(w), high[i], size);
        out[i] = put(out[i], w, kept);
      }
      store(moved.size_after + r, select(valid, size, before));
    }
  }
  const int64_t rest = stop - out[0];
  for (int i = 0; i < N; ++i) std::fill(out[i], out[i] + rest, 0.0);
}

}  // namespace
}  // namespace pylinregion
