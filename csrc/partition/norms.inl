// csrc/partition/norms.inl -- Engine: the norm form of the bound (docs/exactness.md, 5.1). What a row is off by is
// what its own arithmetic rounded, plus what the lines that were substituted into it brought along. Both are vectors
// over the rows of a stage, and the second grows by spectral norms: in deep networks far less than the row form, which
// grows by sums of absolute weights.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

constexpr int64_t kSumsOfNorm = 32;

PLR_ENGINE double Engine::norm(const double* x, int64_t n) {
  constexpr int64_t vectors = kSumsOfNorm / kLanes;  // so many sums on every machine, that all have the same
  V sums[vectors];
  for (V& some : sums) some = set(0);
  int64_t i = 0;
  for (; i + kSumsOfNorm <= n; i += kSumsOfNorm)
    for (int64_t v = 0; v < vectors; ++v) {
      const V z = load(x + i + v * kLanes);
      sums[v] = multiply_add(z, z, sums[v]);
    }
  double sum = 0;
  for (const V& some : sums)
    for (int64_t k = 0; k < kLanes; ++k) sum += lane(some, k);
  for (; i < n; ++i) sum += x[i] * x[i];
  return std::sqrt(sum) * kInflateNorm + kNormUnderflow;
}
PLR_ENGINE double Engine::size_norm(const Forms& x, int64_t n) const {
  return (norm(x.a, n) * shared_.hs + norm(x.b, n) * shared_.ht + norm(x.c, n)) * kInflateNorm;
}
// Bounds of the spectral and the Frobenius norm of what the rows of stage `to` take from the lines of stage `from`.
PLR_ENGINE double Engine::transfer(int64_t to, int64_t from) const { return system_.norms[to * n_stages_ + from]; }
PLR_ENGINE double Engine::frobenius(int64_t to, int64_t from) const {
  return system_.norms[(n_stages_ + to) * n_stages_ + from];
}

PLR_ENGINE Norms Engine::take_norms() {
  double* memory = arena_.take<double>(4 * n_stages_);
  return {memory, memory + n_stages_, memory + 2 * n_stages_, memory + 3 * n_stages_};
}

PLR_ENGINE Norms Engine::root_norms(const Forms& forms) {
  if (!system_.norms) return {};
  const Norms to = take_norms();
  for (int64_t l = 0; l < n_stages_; ++l) {
    const StageView& stage = system_.stages[static_cast<size_t>(l)];
    to.own[l] = norm(system_.error + stage.begin, stage.end - stage.begin);
    to.size[l] = size_norm(forms.from(stage.begin), stage.end - stage.begin);
  }
  add_up(to, 0);
  return to;
}

// The rest of the norms of a fold that is made in stage `first`. On entry size is that of the rows as they are; what is
// added to them later is at most what the lines before them have, transferred.
PLR_ENGINE void Engine::add_up(const Norms& to, int64_t first) const {
  for (int64_t l = n_stages_; l-- > first;) {
    double size = to.size[l];
    for (int64_t j = first; j < l; ++j) size += transfer(l, j) * to.size[j];
    put(to.size[l], size);
  }
  for (int64_t l = first; l < n_stages_; ++l) {
    double carried = to.own[l], rounded = to.size[l];
    for (int64_t j = 0; j < l; ++j) carried += transfer(l, j) * to.own[j];
    for (int64_t j = first; j < l; ++j) rounded += transfer(l, j) * to.size[j];
    to.carried[l] = carried * kInflateNorm, to.rounded[l] = rounded * 2 * kUnit * kInflateNorm;
  }
}

// The bounds p of the cell's stage, made smaller where the norm form, with roundings prepaid as in p, is smaller.
PLR_ENGINE double* Engine::capped(const Cell& cell) {
  const Norms& norms = cell.fold->norms;
  const Unsettled& rows = cell.unsettled;
  const V most = set(norms.carried[cell.stage] + static_cast<double>(cell.operations) * norms.rounded[cell.stage]);
  double* p = arena_.take<double>(rows.n + kLanes);
  for (int64_t i = 0; i < rows.n; i += kLanes)
    store(p + i, min(load(rows.p + i), most + set(shared_.prepaid) * magnitudes(rows, i)));
  return p;
}

}  // namespace
}  // namespace pylinregion
