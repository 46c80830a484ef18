// csrc/partition/rows.inl -- (Engine) rows of affine forms in the arena.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

inline double Engine::magnitude(const Affine& x, int64_t r) const {
  return std::fabs(x.a[r]) * shared_.hs + std::fabs(x.b[r]) * shared_.ht + std::fabs(x.c[r]);
}
inline V Engine::magnitudes(const Affine& x, int64_t r) const {  // of eight rows
  return abs(load(x.a + r)) * set(shared_.hs) + abs(load(x.b + r)) * set(shared_.ht) + abs(load(x.c + r));
}
inline Rows4 Engine::shifted(const Rows4& x, int64_t by) { return {x.a + by, x.b + by, x.c + by, x.p + by}; }
// Memory for the rows [from, to), indexed by row.
inline Affine Engine::take_affine(int64_t from, int64_t to) {
  const int64_t size = padded(to - from + kLanes);
  double* memory = arena_.take<double>(4 * size);
  for (int64_t i = 0; i < 4; ++i) std::fill(memory + i * size + (to - from), memory + (i + 1) * size, 0.0);
  memory -= from;
  return {memory, memory + size, memory + 2 * size, memory + 3 * size};
}
inline const double* Engine::column(const StageView& stage, int64_t t) {  // indexed by row
  return stage.columns + (t - stage.begin) * stage.stride - stage.end;
}

inline void Engine::copy_rows(const Rows4& in, const Rows4& out, int64_t from, int64_t to) {
  const size_t bytes = static_cast<size_t>(to - from) * sizeof(double);
  std::memcpy(out.a + from, in.a + from, bytes), std::memcpy(out.b + from, in.b + from, bytes);
  std::memcpy(out.c + from, in.c + from, bytes), std::memcpy(out.p + from, in.p + from, bytes);
}

// The rows `t` [n], of the first N arrays.
template <int N> inline SomeRows Engine::gathered(const Rows4& from, const int32_t* t, int64_t n) {
  const Rows4 to = take_rows(n);
  const double* const in[4] = {from.a, from.b, from.c, from.p};
  double* const out[4] = {to.a, to.b, to.c, to.p};
  for (int j = 0; j < N; ++j)
    for (int64_t i = 0; i < n; ++i) out[j][i] = in[j][t[i]];
  return {to, n, t};
}
// Memory for n rows, and eight more.
inline Rows4 Engine::take_rows(int64_t n) {
  const int64_t size = padded(n + kLanes);
  double* memory = arena_.take<double>(4 * size);
  return {memory, memory + size, memory + 2 * size, memory + 3 * size};
}

}  // namespace
}  // namespace pylinregion
