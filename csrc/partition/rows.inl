// csrc/partition/rows.inl -- Engine: memory for the forms of rows, and their sizes.
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
      row_on_(static_cast<size_t>(padded(system_.rows)), 0),
      row_numbers_(static_cast<size_t>(system_.rows + kLanes)) {
  for (size_t r = 0; r < row_numbers_.size(); ++r) row_numbers_[r] = static_cast<int32_t>(r);
  if (system_.on) std::copy(system_.on, system_.on + system_.lines, on_.begin());
  for (const StageView& stage : system_.stages)
    has_groups_.push_back(stage.begin < stage.end && system_.groups->of_line()[root_lines()[stage.begin]] >= 0);
  start_result();
}

// Memory for n rows, and eight more.
inline Forms Engine::take_forms(int64_t n) {
  const int64_t size = padded(n + kLanes);
  double* memory = arena_.take<double>(4 * size);
  return {memory, memory + size, memory + 2 * size, memory + 3 * size};
}
// Memory for the rows [from, to), and for eight more, which are 0.
inline RowForms Engine::take_row_forms(int64_t from, int64_t to) {
  const int64_t n = to - from, size = padded(n + kLanes);
  const Forms out = take_forms(n);
  for (double* each : {out.a, out.b, out.c, out.p}) std::fill(each + n, each + size, 0.0);
  return {out, from};
}

// The rows t [n] of arrays that have the rows from `first` on.
template <int N> inline Arrays<N> Engine::gathered(const Arrays<N>& from, int64_t first, const int32_t* t, int64_t n) {
  const int64_t size = padded(n + kLanes);
  double* memory = arena_.take<double>(N * size);
  Arrays<N> out;
  for (int j = 0; j < N; ++j) {
    out.at[j] = memory + j * size;
    for (int64_t i = 0; i < n; ++i) out.at[j][i] = from.at[j][t[i] - first];
  }
  return out;
}

inline double Engine::magnitude(const Forms& x, int64_t i) const {
  return std::fabs(x.a[i]) * shared_.hs + std::fabs(x.b[i]) * shared_.ht + std::fabs(x.c[i]);
}
inline V Engine::magnitudes(const Forms& x, int64_t i) const {  // of eight rows
  return abs(load(x.a + i)) * set(shared_.hs) + abs(load(x.b + i)) * set(shared_.ht) + abs(load(x.c + i));
}

// All rows of the cell's stage.
inline Unsettled Engine::unsettled_of(const Cell& cell) const {
  const StageView& stage = cell.fold->stages[cell.stage];
  return {{cell.forms.from(stage.begin), stage.end - stage.begin, row_numbers_.data() + stage.begin},
          cell.fold->line + stage.begin};
}
inline Unsettled Engine::without_first(const Unsettled& all, int64_t n) {
  return {{all.from(n), all.n - n, all.row + n}, all.line + n};
}

}  // namespace
}  // namespace pylinregion
