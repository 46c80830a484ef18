// csrc/partition/rows.inl -- Engine: memory for the forms of rows, and their sizes.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Of the slice, and what p prepays.
PLR_ENGINE void find_extents(Shared& shared) {
  const System& system = shared.system;
  double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
  for (int64_t i = 0; i < 2 * system.n_corners; ++i) {
    low[i % 2] = std::min(low[i % 2], system.corners[i]), high[i % 2] = std::max(high[i % 2], system.corners[i]);
    double& most = i % 2 ? shared.ht : shared.hs;
    most = std::max(most, std::fabs(system.corners[i]) * kInflateExtent);
  }
  const double across = system.n_corners > 2 ? std::min(high[0] - low[0], high[1] - low[1]) : high[0] - low[0];
  shared.blur = std::max((system.is_fold() ? kBlurOfFold : kBlur) * across, kFinestBlur * (shared.hs + shared.ht));
  int64_t widest = 1;  // lines of the largest stage
  for (const StageView& stage : system.stages) widest = std::max(widest, stage.end - stage.begin);
  shared.budget = 8 * widest + 64;
  shared.prepaid = static_cast<double>(shared.budget) * kUnit * kInflateBudget;  // >= gamma of it
}

PLR_ENGINE Engine::Engine(const Shared& shared, Outside& outside)
    : shared_(shared),
      system_(shared.system),
      options_(shared.options),
      outside_(outside),
      factor_(options_.force_exact ? kForceExact : kInflate),
      n_stages_(system_.stages.count),
      arena_(outside.memory()),
      on_(arena_.take<uint8_t>(padded(system_.lines))),
      tally_(outside.tally()) {
  const int64_t known = system_.on ? system_.lines : 0;
  copy(system_.on, known, on_);
  fill(on_ + known, padded(system_.lines) - known, uint8_t{0});
}

// Memory for n rows, and as many more as there are lanes.
PLR_ENGINE Forms Engine::take_forms(int64_t n) {
  const int64_t size = padded(n + kLanes);
  double* memory = arena_.take<double>(4 * size);
  return {memory, memory + size, memory + 2 * size, memory + 3 * size};
}
// Memory for the rows [from, to), and for as many more as there are lanes, which are 0.
PLR_ENGINE RowForms Engine::take_row_forms(int64_t from, int64_t to) {
  const int64_t n = to - from, size = padded(n + kLanes);
  const Forms out = take_forms(n);
  for (double* of : {out.a, out.b, out.c, out.p}) fill(of + n, size - n, 0.0);
  return {out, from};
}

// The rows t [n] of arrays that have the rows from `first` on.
template <int N>
PLR_ENGINE Arrays<N> Engine::gathered(const Arrays<N>& from, int64_t first, const int32_t* t, int64_t n) {
  const int64_t size = padded(n + kLanes);
  double* memory = arena_.take<double>(N * size);
  Arrays<N> out;
  for (int j = 0; j < N; ++j) {
    out.at[j] = memory + j * size;
    each(n, [&](int64_t i) { out.at[j][i] = from.at[j][t[i] - first]; });
  }
  return out;
}

PLR_ENGINE double Engine::magnitude(const Forms& x, int64_t i) const {
  return std::fabs(x.a[i]) * shared_.hs + std::fabs(x.b[i]) * shared_.ht + std::fabs(x.c[i]);
}
PLR_ENGINE V Engine::magnitudes(const Forms& x, int64_t i) const {  // of a vector of rows
  return abs(load(x.a + i)) * set(shared_.hs) + abs(load(x.b + i)) * set(shared_.ht) + abs(load(x.c + i));
}

// All rows of the cell's stage.
PLR_ENGINE Unsettled Engine::unsettled_of(const Cell& cell) const {
  const StageView& stage = cell.fold->stages[cell.stage];
  return {{cell.forms.from(stage.begin), stage.end - stage.begin, shared_.row_numbers + stage.begin},
          cell.fold->line + stage.begin};
}
PLR_ENGINE Unsettled Engine::without_first(const Unsettled& all, int64_t n) {
  return {{all.from(n), all.n - n, all.row + n}, all.line + n};
}

}  // namespace
}  // namespace pylinregion
