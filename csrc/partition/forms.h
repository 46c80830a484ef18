// csrc/partition/forms.h -- the affine forms of many rows in arrays, and sums of columns that are added to them.
// Internal linkage: see sign_changes_row.inl for why.
#pragma once
#include <cstdint>
#include <cstring>

#include "lanes.h"
#include "system.h"
#include "tile.h"

namespace pylinregion {
namespace {

// N arrays that are indexed alike.
template <int N> struct Arrays {
  double* at[N];

  PLR_ENGINE Arrays from(int64_t i) const {
    Arrays out;
    for (int j = 0; j < N; ++j) out.at[j] = at[j] + i;
    return out;
  }
};

// Affine forms a s + b t + c, each with a bound p of how far it is off, or what goes into these.
struct Forms {
  double *a, *b, *c, *p;

  PLR_ENGINE Forms from(int64_t i) const { return {a + i, b + i, c + i, p + i}; }
  PLR_ENGINE Arrays<4> arrays() const { return {{a, b, c, p}}; }
};

// An array, and forms, that have the rows from `first` on: asked for by row.
struct RowArray {
  double* begin;
  int64_t first;

  PLR_ENGINE double* from(int64_t r) const { return begin + (r - first); }
};
struct RowForms {
  Forms forms;
  int64_t first;

  PLR_ENGINE Forms from(int64_t r) const { return forms.from(r - first); }
};

PLR_ENGINE void copy_forms(const Forms& in, const Forms& out, int64_t n) {
  copy(in.a, n, out.a), copy(in.b, n, out.b), copy(in.c, n, out.c), copy(in.p, n, out.p);
}

// A sum over rows t [n] of a stage: their columns, each times its values.
template <int N> struct Columns {
  const StageView* stage;
  const int32_t* t;
  Arrays<N> values;  // [n]
  int64_t n;
};

// Rows [r, r + 8 K) behind the columns' stage of N arrays: out = in + the sum, in rising order; kBound: the last array
// takes the sizes of the columns.
template <int K, int N, bool kBound>
PLR_ENGINE void add_columns(const Arrays<N>& in, const Arrays<N>& out, int64_t r, const Columns<N>& columns) {
  const StageView& stage = *columns.stage;
  const int64_t first = r - stage.begin * stage.stride;
  V sum[N][K];
  for (int j = 0; j < N; ++j)
    for (int k = 0; k < K; ++k) sum[j][k] = load(in.at[j] + r + k * kLanes);
  add_products<N, K, kBound>(
      sum, columns.n, [&](int64_t i) { return stage.columns + (columns.t[i] * stage.stride + first); },
      [&](int j, int64_t i) { return columns.values.at[j][i]; });
  for (int j = 0; j < N; ++j)
    for (int k = 0; k < K; ++k) store(out.at[j] + r + k * kLanes, sum[j][k]);
}
// All rows behind the stage that take from it, and up to eight more.
template <int N, bool kBound>
PLR_ENGINE void add_columns(const Arrays<N>& in, const Arrays<N>& out, const Columns<N>& columns) {
  const int64_t end = columns.stage->extent - columns.stage->end;
  int64_t r = 0;
  for (; r + (kTall - 1) * kLanes < end; r += kTall * kLanes) add_columns<kTall, N, kBound>(in, out, r, columns);
  for (; r < end; r += kLanes) add_columns<1, N, kBound>(in, out, r, columns);
}

}  // namespace
}  // namespace pylinregion
