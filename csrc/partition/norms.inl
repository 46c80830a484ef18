// csrc/partition/norms.inl -- (Engine) the norm form of the bound (docs/exactness.md, 5.1). What a row is off by is
// what its own arithmetic rounded, plus what the lines that were substituted into it brought along. Both are vectors
// over the rows of a stage, and the second grows by spectral norms: in deep networks far less than the row form,
// which grows by sums of absolute weights.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

inline double Engine::norm(const double* x, int64_t from, int64_t to) {
  V sums = set(0);
  int64_t i = from;
  for (; i + kLanes <= to; i += kLanes) sums = multiply_add(load(x + i), load(x + i), sums);
  double sum = 0;
  for (int64_t k = 0; k < kLanes; ++k) sum += sums[k];
  for (; i < to; ++i) sum += x[i] * x[i];
  return std::sqrt(sum) * kInflateNorm + kNormUnderflow;
}
inline double Engine::size_norm(const Rows4& x, int64_t from, int64_t to) const {
  return (norm(x.a, from, to) * shared_.hs + norm(x.b, from, to) * shared_.ht + norm(x.c, from, to)) * kInflateNorm;
}
inline double Engine::transfer(int64_t to, int64_t from) const { return system_.norms[to * n_stages_ + from]; }
inline double Engine::frobenius(int64_t to, int64_t from) const {
  return system_.norms[(n_stages_ + to) * n_stages_ + from];
}

inline OwnNorms Engine::take_norms() {
  double* memory = arena_.take<double>(4 * n_stages_);
  return {memory, memory + n_stages_, memory + 2 * n_stages_, memory + 3 * n_stages_};
}

inline Norms Engine::root_norms(const Affine& affine) {
  if (!system_.norms) return {};
  const OwnNorms to = take_norms();
  for (int64_t l = 0; l < n_stages_; ++l) {
    const StageView& stage = system_.stages[static_cast<size_t>(l)];
    to.own[l] = norm(system_.error, stage.begin, stage.end);
    to.size[l] = size_norm(affine, stage.begin, stage.end);
  }
  return with_sums(to, 0);
}

// The rest of the norms of a fold that is made in stage `first`. On entry size is that of the rows as they are; what is
// added to them later is at most what the lines before them have, transferred.
inline Norms Engine::with_sums(const OwnNorms& to, int64_t first) const {
  for (int64_t l = n_stages_; l-- > first;)
    for (int64_t j = first; j < l; ++j) to.size[l] += transfer(l, j) * to.size[j];
  for (int64_t l = first; l < n_stages_; ++l) {
    double carried = to.own[l], rounded = to.size[l];
    for (int64_t j = 0; j < l; ++j) carried += transfer(l, j) * to.own[j];
    for (int64_t j = first; j < l; ++j) rounded += transfer(l, j) * to.size[j];
    to.carried[l] = carried * kInflateNorm, to.rounded[l] = rounded * 2 * kUnit * kInflateNorm;
  }
  return {to.own, to.size, to.carried, to.rounded};
}

// The bounds p of the cell's stage, made smaller where the norm form, with roundings prepaid as in p, is smaller.
inline double* Engine::capped(const Cell& cell) {
  const Norms& norms = cell.fold->norms;
  const Candidates& rows = cell.candidates;
  const V most = set(norms.carried[cell.stage] + static_cast<double>(cell.operations) * norms.rounded[cell.stage]);
  double* p = arena_.take<double>(rows.n + kLanes);
  for (int64_t i = 0; i < rows.n; i += kLanes) {
    const V size =
        abs(load(rows.a + i)) * set(shared_.hs) + abs(load(rows.b + i)) * set(shared_.ht) + abs(load(rows.c + i));
    store(p + i, min(load(rows.p + i), most + set(shared_.prepaid) * size));
  }
  return p;
}

// The norms of the fold that `compact` makes from the cell's. fresh[l]: of what the fold rounds in the rows of a stage.
inline Norms Engine::folded_norms(const OwnNorms& to, const Cell& cell, int64_t first, int64_t last,
                                  const StageView* stages, const Affine& affine, const double* fresh) const {
  const Norms& old = cell.fold->norms;
  const double operations = static_cast<double>(cell.operations) * 2 * kUnit;
  for (int64_t l = 0; l < n_stages_; ++l) {
    to.own[l] = old.own[l];
    if (l >= cell.fold->first && l < last) to.own[l] += operations * old.size[l] * kInflateNorm;
    if (l >= first && l < last) {
      to.own[l] += fresh[l];
      to.size[l] = size_norm(affine, stages[l].begin, stages[l].end);
    } else if (l >= last) {
      to.size[l] = size_norm(cell.fold->far, cell.fold->stages[l].begin, cell.fold->stages[l].end);
    }
  }
  return with_sums(to, first);
}

}  // namespace
}  // namespace pylinregion
